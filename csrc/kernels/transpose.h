// Transposition in registers, for packing and for columns that become rows.
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

// The part of a square that n_rows rows and n_cols columns fill; through memory, which takes less code than registers
// with all their masks.
template <class Real>
QG_OUTLINE void transpose_edge(const Real* from, size_t from_stride, Real* to, size_t to_stride, int n_rows, int n_cols,
                               bool add) {
  constexpr size_t W = Vec<Real>::kWidth;
  alignas(64) Real square[W][W];
  Vec<Real> a[W];
#pragma GCC unroll 1
  for (int r = 0; r < int(W); ++r)
    store(square[r], r < n_rows ? load_upto(from + size_t(r) * from_stride, n_cols) : zero<Real>());
#pragma GCC unroll 16
  for (size_t r = 0; r < W; ++r) a[r] = load(square[r]);
  transpose_square(a);
#pragma GCC unroll 16
  for (size_t c = 0; c < W; ++c) store(square[c], a[c]);
#pragma GCC unroll 1
  for (int c = 0; c < n_cols; ++c) {
    Real* line = to + size_t(c) * to_stride;
    const Vec<Real> sum = load(square[c]);
    store_upto(line, add ? load_upto(line, n_rows) + sum : sum, n_rows);
  }
}

template <class Real>
QG_INLINE void transpose_tile(const Real* from, size_t from_stride, Real* to, size_t to_stride, bool add) {
  constexpr size_t W = Vec<Real>::kWidth;
  Vec<Real> a[W];
#pragma GCC unroll 16
  for (size_t r = 0; r < W; ++r) a[r] = load(from + r * from_stride);
  transpose_square(a);
  if (add)
#pragma GCC unroll 16
    for (size_t c = 0; c < W; ++c) a[c] = load(to + c * to_stride) + a[c];
#pragma GCC unroll 16
  for (size_t c = 0; c < W; ++c) store(to + c * to_stride, a[c]);
}

// to[c][r] = from[r][c], or += with `add`.
template <class Real>
void transpose(const Real* from, size_t from_stride, Real* to, size_t to_stride, size_t rows, size_t cols, bool add) {
  constexpr size_t W = Vec<Real>::kWidth;
  for (size_t c = 0; c < cols; c += W)
    for (size_t r = 0; r < rows; r += W) {
      const Real* a = from + r * from_stride + c;
      Real* b = to + c * to_stride + r;
      if (rows - r >= W && cols - c >= W)
        transpose_tile(a, from_stride, b, to_stride, add);
      else
        transpose_edge(a, from_stride, b, to_stride, int(rows - r < W ? rows - r : W), int(cols - c < W ? cols - c : W),
                       add);
    }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
