// Between the parameters as users see them (rows of 4H gates, PyTorch's layout) and the panels that kernels read.
//
// `width` is the vector width W of the kernel table in use; P = ceil(H / W). See kernels/kernels.h for the layouts.
// Source and destination never overlap; nothing is kept.
#pragma once

#include <cstddef>

namespace fourgate {

inline size_t n_blocks(size_t n, size_t width) { return (n + width - 1) / width; }
// Groups of up to 4 blocks, as the back panels are cut.
inline size_t n_groups(size_t n, size_t width) { return (n_blocks(n, width) + 3) / 4; }

// weight (4H, K), row-major, to (P, K, 4, W); missing lanes become 0.
template <class T>
void pack_panels(const T* weight, size_t hidden, size_t n_k, size_t width, T* panels);

// bias (4H) or null (all zero) to (P, 4, W).
template <class T>
void pack_bias(const T* bias, size_t hidden, size_t width, T* packed);

// panels (P, K, 4, W) to the back panels of the same weight, for products over its 4H rows: 4H * ceil(K / W) * W
// elements.
template <class T>
void pack_back_panels(const T* panels, size_t hidden, size_t n_k, size_t width, T* back);

// Columns [first, first + n_cols) of a packed gradient (P, n_k, 4, W), for blocks [block_begin, block_end),
// into `out` (4H, n_cols), row-major; added to what is there when `add`.
template <class T>
void unpack_panels(const T* panels, size_t hidden, size_t n_k, size_t first, size_t n_cols, size_t width,
                   size_t block_begin, size_t block_end, bool add, T* out);

}  // namespace fourgate
