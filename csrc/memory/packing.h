// Between the parameters as users see them (PyTorch's layout) and the panels that kernels read.
//
// `width` is the vector width W of the kernel table in use. See kernels/kernels.h for the layouts.
// Source and destination never overlap; nothing is kept.
#pragma once

#include <algorithm>
#include <cstddef>

namespace quadgate {

inline size_t n_blocks(size_t n, size_t width) { return (n + width - 1) / width; }
// Groups of up to 4 blocks, as the back panels are cut.
inline size_t n_groups(size_t n, size_t width) { return (n_blocks(n, width) + 3) / 4; }
// The first block of a group, and its first column: groups are as even as can be, the larger ones first. The kernels'
// Tiles cut alike.
inline size_t group_block(size_t group, size_t n, size_t width) {
  const size_t blocks = n_blocks(n, width), groups = n_groups(n, width);
  return group * (blocks / groups) + std::min(group, blocks % groups);
}
inline size_t group_column(size_t group, size_t n, size_t width) {
  return std::min(n, group_block(group, n, width) * width);
}

// The rows of a matrix in panels: `gates` is 4, each of `rows` rows, or 1.
struct PanelShape {
  size_t gates, rows, width;
  size_t total() const { return gates * rows; }  // rows of the matrix
  size_t blocks() const { return n_blocks(rows, gates == 4 ? width : 4 * width); }
  // Vector v of block p: its first row in the matrix, and how many rows it has; the other lanes are zero.
  size_t row(size_t p, size_t v) const { return gates == 4 ? v * rows + p * width : (4 * p + v) * width; }
  size_t lanes(size_t p, size_t v) const {
    const size_t first = gates == 4 ? p * width : (4 * p + v) * width;
    return std::min(width, rows - std::min(rows, first));
  }
  size_t line() const { return 4 * width; }  // elements for one k of one block
};

// weight (total, K), row-major, to panels (blocks, K, 4, W); missing lanes become 0.
template <class Real>
void pack_panels(const Real* weight, const PanelShape& shape, size_t n_k, Real* panels);

// bias (total) or null (all zero) to (blocks, 4, W).
template <class Real>
void pack_bias(const Real* bias, const PanelShape& shape, Real* packed);

// panels (blocks, K, 4, W) to the back panels of the same weight, for products over its rows: total * ceil(K / W) * W
// elements.
template <class Real>
void pack_back_panels(const Real* panels, const PanelShape& shape, size_t n_k, Real* back);

// Columns [first, first + n_cols) of a packed gradient (blocks, n_k, 4, W), for blocks [block_begin, block_end),
// into `out` (total, n_cols), row-major; added to what is there when `add`.
template <class Real>
void unpack_panels(const Real* panels, const PanelShape& shape, size_t n_k, size_t first, size_t n_cols,
                   size_t block_begin, size_t block_end, bool add, Real* out);

}  // namespace quadgate
