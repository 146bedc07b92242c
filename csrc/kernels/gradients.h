// The gradients of weights, and sums over rows.
#pragma once

#include "cells/dispatch.h"
#include "kernels/layouts.h"
#include "kernels/multiply.h"
#include "kernels/steps.h"
#include "kernels/tiles.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// Panels from which on columns are copied, at some four cycles an element, and rows that are copied at a time: their
// lines stay in L1 for all tiles.
constexpr size_t kCopyPanels = 12, kCopyRows = 64;

// The columns of each tile side by side: (tile, row, column).
template <class Real>
QG_OUTLINE void copy_columns(const WeightGradient<Real>& s, const Parts& tiles) {
  const size_t first = tiles.begin(s.tile_begin);
  for (size_t row = 0; row < s.n_rows; row += kCopyRows) {
    const size_t n = s.n_rows - row < kCopyRows ? s.n_rows - row : kCopyRows;
    for (size_t t = s.tile_begin; t < s.tile_end; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            constexpr size_t MR = decltype(mr)::value;
            const Real* from = s.xh + row * s.xh_stride + tiles.begin(t);
            Real* to = s.columns + (tiles.begin(t) - first) * s.n_rows + row * MR;
            for (size_t i = 0; i < n; ++i, from += s.xh_stride, to += MR) {
              __builtin_prefetch(from + 64 / sizeof(Real));  // the row's next line, some tiles ahead
              for (size_t r = 0; r < MR; ++r) to[r] = from[r];
            }
          });
  }
}

// The product of the forward pass with other operands: k runs over rows, and the panel is the gates' gradient. NV
// vectors in a line. A tile takes few elements of a row for each k, and the next row lies some KB further: where L1 and
// L2 are small, columns are copied before many panels pass by (kCopied).
template <int NV, bool kCopied, class Real>
QG_INLINE void weight_gradient_panels(const WeightGradient<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth;
  const Parts tiles(s.n_k, kMaxRows);
  const size_t line = s.dw_line ? s.dw_line : NV * W, first = tiles.begin(s.tile_begin);
  if constexpr (kCopied) copy_columns(s, tiles);
  for (size_t block = s.block_begin; block < s.block_end; ++block)
    for (size_t t = s.tile_begin; t < s.tile_end; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            constexpr int MR = decltype(mr)::value;
            Real* dw = s.dw + block * s.dw_stride + tiles.begin(t) * line;
            Vec<Real> a[1][MR][NV];
            const Real* x[MR];
            const bool continued = s.start == GradientStart::from_dw, added = s.start == GradientStart::add;
            for (int r = 0; r < MR; ++r) {
              for (int v = 0; v < NV; ++v) a[0][r][v] = continued ? load(dw + r * line + v * W) : zero<Real>();
              x[r] = (kCopied ? s.columns + (tiles.begin(t) - first) * s.n_rows : s.xh + tiles.begin(t)) + r;
            }
            const Real* panel = s.dg_panels + block * s.panel_stride;
            const Ahead<Real> ahead = {panel, block + 1 < s.block_end ? panel + s.panel_stride : nullptr,
                                       s.tile_end - s.tile_begin, 0};
            const Slice slice = ahead.slice(t - s.tile_begin, s.n_rows, NV);
            multiply</*kFarRows=*/!kCopied>(a, x, 0, kCopied ? MR : s.xh_stride, panel, 0, s.n_rows, slice);
            for (int r = 0; r < MR; ++r)
              for (int v = 0; v < NV; ++v) {
                Real* to = dw + r * line + v * W;
                store(to, added ? load(to) + a[0][r][v] : a[0][r][v]);
              }
          });
}

template <int NV, class Real>
QG_INLINE void weight_gradient_line(const WeightGradient<Real>& s) {
  if constexpr (kCopyColumns<Real>)
    if (s.columns && s.block_end - s.block_begin >= kCopyPanels) return weight_gradient_panels<NV, true>(s);
  weight_gradient_panels<NV, false>(s);
}

template <class Real>
void weight_gradient(const WeightGradient<Real>& s) {
  if constexpr (least_vectors<Real>() < kLineVectors) {
    if (s.n_vectors == 2) return weight_gradient_line<2>(s);
    if (s.n_vectors == 3) return weight_gradient_line<3>(s);
  }
  with_line(
      s.n_vectors, [&](auto nv) __attribute__((always_inline)) { weight_gradient_line<decltype(nv)::value>(s); });
}

template <class Real>
void column_sums(const ColumnSums<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth, N = 4;  // chains of additions side by side
  size_t u = s.begin;
  for (; !s.b && u + N * W <= s.end; u += N * W) {
    Vec<Real> sums[N];
    for (size_t v = 0; v < N; ++v) sums[v] = load(s.out + u + v * W);
    for (size_t r = 0; r < s.n_rows; ++r)
      for (size_t v = 0; v < N; ++v) sums[v] = sums[v] + load(s.a[r] + u + v * W);
    for (size_t v = 0; v < N; ++v) store(s.out + u + v * W, sums[v]);
  }
  for (; u < s.end; u += W) {
    const int n = int(s.end - u < W ? s.end - u : W);
    Vec<Real> sum = load_upto(s.out + u, n);
    for (size_t r = 0; r < s.n_rows; ++r) {
      Vec<Real> a = load_upto(s.a[r] + u, n);
      sum = s.b ? fma(a, load_upto(s.b[r] + u, n), sum) : sum + a;
    }
    store_upto(s.out + u, sum, n);
  }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
