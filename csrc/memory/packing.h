// Between the parameters as users see them (PyTorch's layout) and the panels that kernels read.
//
// `width` is the vector width W of the kernel table in use. See kernels/layouts.h for the layouts.
// Source and destination never overlap; nothing is kept.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/layouts.h"
#include "kernels/weights/storage.h"
#include "memory/buffer.h"

namespace quadgate {

inline size_t n_blocks(size_t n, size_t width) { return (n + width - 1) / width; }

// The groups of blocks that the back panels of a matrix with n columns are cut into.
inline Parts column_groups(size_t n, size_t width) { return Parts(n_blocks(n, width), kGroupBlocks); }
inline size_t n_groups(size_t n, size_t width) { return column_groups(n, width).count; }
// The first column of a group; n for the end of the last.
inline size_t group_column(size_t group, size_t n, size_t width) {
  return std::min(n, column_groups(n, width).begin(group) * width);
}

// Blocks in a line of the back panel of a group of so many; half_lines: that of the kernel table in use.
inline size_t back_line(size_t blocks, bool half_lines) {
  return half_lines && blocks == size_t(kLineVectors) ? blocks / 2 : blocks;
}

// The rows of a matrix in panels: `rows` for each of `gates` gates; a matrix without gates counts as one gate.
struct PanelShape {
  size_t gates, rows, width;
  bool narrow = false;                           // the last panel is to be narrow if it can be
  bool half_lines = false;                       // whole panels of kLineVectors in a line are to lie in halves of lines
  size_t total() const { return gates * rows; }  // rows of the matrix
  size_t row_blocks() const { return size_t(quadgate::row_blocks(int(gates))); }
  size_t vectors() const { return gates * row_blocks(); }  // in a line
  size_t line() const { return vectors() * width; }        // elements for one k of one block
  size_t blocks() const { return n_blocks(rows, row_blocks() * width); }
  // Vector v of block p: its first row in the matrix, and how many rows it has; the other lanes are zero.
  size_t row(size_t p, size_t v) const { return v / row_blocks() * rows + row_in_gate(p, v); }
  size_t lanes(size_t p, size_t v) const { return std::min(width, rows - std::min(rows, row_in_gate(p, v))); }
  bool narrow_last() const { return narrow && gates % 2 == 0 && (rows - 1) % width < width / 2; }
  // Elements from vector to vector in a line of panel p, and from line to line.
  size_t step(size_t p) const { return narrow_last() && p + 1 == blocks() ? width / 2 : width; }
  size_t line(size_t p) const { return vectors() * step(p); }
  // The first element of vector v in panel p of n_k columns, and elements from there to the next column.
  size_t place(size_t p, size_t v, size_t n_k) const {
    const size_t panel = p * n_k * line(), half = vectors() / 2;
    return panel + (in_halves(p) ? (v / half * n_k * half + v % half) * width : v * step(p));
  }
  // Elements of all panels. Behind a narrow one there is half a vector, since kernels read and write it by whole ones.
  size_t elements(size_t n_k) const {
    const size_t whole = checked_mul(blocks(), line(), n_k);
    return narrow_last() ? whole - n_k * line() / 2 + width / 2 : whole;
  }
  size_t column(size_t p) const { return in_halves(p) ? line() / 2 : line(p); }
  PanelShape wide() const { return {gates, rows, width}; }  // as gradients are

 private:
  bool in_halves(size_t p) const {
    return half_lines && vectors() == size_t(kLineVectors) && !(narrow_last() && p + 1 == blocks());
  }
  size_t row_in_gate(size_t p, size_t v) const { return (p * row_blocks() + v % row_blocks()) * width; }
};

// Real: the arithmetic type. Lines are of shape.vectors() vectors V. `transpose` is that of the kernel table in use.
template <class Real>
using TransposeFunction = void (*)(const Real* from, size_t from_stride, Real* to, size_t to_stride, size_t rows,
                                   size_t cols, bool add);

// weight (total, K), row-major, to panels (blocks, K, V, W); missing lanes become 0.
template <class Real>
void pack_panels(TransposeFunction<Real> transpose, const Real* weight, const PanelShape& shape, size_t n_k,
                 Real* panels);

// Bytes of an element of a compact type.
inline double compact_weight_size(WeightType type) { return type == WeightType::int8 ? 1 : 2; }

// Bytes of one panel of a compact type (kernels/compact_steps.h has the layouts).
size_t compact_panel_bytes(WeightType type, const PanelShape& shape, size_t n_k);

// weight (total, K) of a compact type, row-major, to panels; missing lanes become 0. Of int8 also the sums of its
// rows, in panels like a bias.
void pack_compact(const void* weight, WeightType type, const PanelShape& shape, size_t n_k, void* panels,
                  int32_t* sums);

// bias (total) or null (all zero) to (blocks, V, W).
template <class Real>
void pack_bias(const Real* bias, const PanelShape& shape, Real* packed);

// panels (blocks, K, V, W) to the back panels of the same weight, for products over its rows: total * ceil(K / W) * W
// elements.
template <class Real>
void pack_back_panels(TransposeFunction<Real> transpose, const Real* panels, const PanelShape& shape, size_t n_k,
                      Real* back);

// Columns [first, first + n_cols) of a packed gradient (blocks, n_k, V, W), for blocks [block_begin, block_end),
// into `out` (total, n_cols), row-major; added to the values there when `add`.
template <class Real>
void unpack_panels(TransposeFunction<Real> transpose, const Real* panels, const PanelShape& shape, size_t n_k,
                   size_t first, size_t n_cols, size_t block_begin, size_t block_end, bool add, Real* out);

// Multiplies values by 0 where dropped is not 0, by kept elsewhere. Both have n elements.
template <class Real>
void drop(const unsigned char* dropped, Real kept, Real* values, size_t n);

// The same for columns [first, first + n_cols) of panels (blocks, n_k, V, W), in blocks [block_begin, block_end).
// dropped: (total, n_cols), row-major.
template <class Real>
void drop_in_panels(const unsigned char* dropped, Real kept, const PanelShape& shape, size_t n_k, size_t first,
                    size_t n_cols, size_t block_begin, size_t block_end, Real* panels);

}  // namespace quadgate
