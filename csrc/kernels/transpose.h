// Transposition in registers, for packing.
#pragma once

#include "kernels/vec/vec.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// A square of W rows in registers. Each stage interleaves the upper half of the rows with the lower half; after
// log2(W) stages an element's row and lane have changed places.
template <class Real>
QG_INLINE void transpose_square(Vec<Real> (&rows)[Vec<Real>::kWidth]) {
  constexpr int W = Vec<Real>::kWidth;
#pragma GCC unroll 4
  for (int stage = 1; stage < W; stage *= 2) {
    Vec<Real> next[W];
#pragma GCC unroll 8
    for (int i = 0; i < W / 2; ++i) interleave(rows[i], rows[i + W / 2], next[2 * i], next[2 * i + 1]);
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) rows[i] = next[i];
  }
}

template <class Real>
QG_INLINE void put(Real* to, Vec<Real> a, bool add) {
  store(to, add ? load(to) + a : a);
}
template <class Real>
QG_INLINE void put_upto(Real* to, Vec<Real> a, int n, bool add) {
  store_upto(to, add ? load_upto(to, n) + a : a, n);
}

// A square, or the part of one that n_rows rows and n_cols columns fill.
template <class Real>
QG_INLINE void transpose_tile(const Real* from, size_t from_stride, Real* to, size_t to_stride, size_t n_rows,
                              size_t n_cols, bool add) {
  constexpr size_t W = Vec<Real>::kWidth;
  Vec<Real> a[W];
  if (n_rows >= W && n_cols >= W) {
#pragma GCC unroll 16
    for (size_t r = 0; r < W; ++r) a[r] = load(from + r * from_stride);
    transpose_square(a);
#pragma GCC unroll 16
    for (size_t c = 0; c < W; ++c) put(to + c * to_stride, a[c], add);
    return;
  }
  const int rows = int(n_rows < W ? n_rows : W), cols = int(n_cols < W ? n_cols : W);
#pragma GCC unroll 16
  for (int r = 0; r < int(W); ++r) a[r] = r < rows ? load_upto(from + size_t(r) * from_stride, cols) : zero<Real>();
  transpose_square(a);
#pragma GCC unroll 16
  for (int c = 0; c < int(W); ++c)
    if (c < cols) put_upto(to + size_t(c) * to_stride, a[c], rows, add);
}

// to[c][r] = from[r][c], or += with `add`.
template <class Real>
void transpose(const Real* from, size_t from_stride, Real* to, size_t to_stride, size_t rows, size_t cols, bool add) {
  constexpr size_t W = Vec<Real>::kWidth;
  for (size_t c = 0; c < cols; c += W)
    for (size_t r = 0; r < rows; r += W)
      transpose_tile(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride, rows - r, cols - c,
                     add);
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
