// The gradients of weights, their operands, and sums over rows.
#pragma once

#include "cells/dispatch.h"
#include "kernels/layouts.h"
#include "kernels/steps.h"
#include "kernels/tile_sums.h"
#include "kernels/transpose.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// The columns of one tile with one panel. A function of its own as sum_products is.
template <int NV, int MR, class Real>
QG_OUTLINE void gradient_tile(const WeightGradient<Real>& s, const Real* columns, const Real* panel, const Slice& ahead,
                              Real* dw, size_t line) {
  constexpr size_t W = Vec<Real>::kWidth;
  const bool continued = s.start == GradientStart::from_dw, added = s.start == GradientStart::add;
  Vec<Real> a[1][MR][NV];
  const Real* x[MR];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
    x[r] = columns + r;
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) a[0][r][v] = continued ? load(dw + r * line + v * W) : zero<Real>();
  }
  multiply</*kFarRows=*/true>(a, x, 0, s.xh_stride, panel, 0, s.n_rows, ahead);
  asm("" : "+r"(dw), "+r"(line));  // or GCC keeps the addresses of all sums on the stack meanwhile
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      Real* to = dw + r * line + v * W;
      store(to, added ? load(to) + a[0][r][v] : a[0][r][v]);
    }
}

// Rows up to which the next tile's dw is still in L1 when the tile comes.
constexpr size_t kRowsInL1 = 8;

// The product of the forward pass with other operands: k runs over rows, and the panel is the gates' gradient. NV
// vectors in a line. sum(t, panel, ahead, dw) makes a tile's sums.
//
// The next tile's dw is prefetched meanwhile: it comes from L2 or beyond. No sum begins without it, and where few rows
// pass by a tile waits for its stores.
template <int NV, class Real, class Sum>
QG_INLINE void gradient_tiles(const WeightGradient<Real>& s, const Parts& tiles, size_t line, Sum&& sum) {
  auto dw_of = [&](size_t block, size_t t) __attribute__((always_inline)) {
    return s.dw + block * s.dw_stride + tiles.begin(t) * line;
  };
  const size_t bytes_ahead = ahead_bytes<Real>(NV, s.tile_end - s.tile_begin, SIZE_MAX);
  for (size_t block = s.block_begin; block < s.block_end; ++block) {
    const Real* panel = s.dg_panels + block * s.panel_stride;
    const Ahead ahead(panel, block + 1 < s.block_end ? panel + s.panel_stride : nullptr, bytes_ahead, 0);
    for (size_t t = s.tile_begin; t < s.tile_end; ++t) {
      const bool last = t + 1 == s.tile_end;
      if (!last || block + 1 < s.block_end) {
        const size_t next = last ? s.tile_begin : t + 1;
        const Real* dw = dw_of(block + last, next);
#pragma GCC unroll 1
        for (int r = 0, n = tiles.size(next); r < n; ++r)
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) {
            const Real* at = dw + r * line + v * Vec<Real>::kWidth;
            if (s.n_rows <= kRowsInL1)
              __builtin_prefetch(at, 0, 3);
            else
              __builtin_prefetch(at, 0, 2);
          }
      }
      sum(t, panel, ahead.slice(t - s.tile_begin, s.n_rows), dw_of(block, t));
    }
  }
}

// Panels from which on columns are copied.
constexpr size_t kCopyPanels = 12;

// A tile takes few elements of a row for each k, and the next row lies some KB further. So columns are copied before
// many panels of whole lines pass by, each from end to end, and the product is that of rows, whose sums begin with dw
// or zero.
template <int NV, class Real>
QG_INLINE void copied_gradient(const WeightGradient<Real>& s, const Parts& tiles, size_t line) {
  const size_t first = tiles.begin(s.tile_begin);
  transpose(s.xh + first, s.xh_stride, s.columns, s.n_rows, s.n_rows, tiles.begin(s.tile_end) - first, false);
  TileSums<Real, Real> tile;
  TileProduct<Real, Real>& product = tile.products[0];
  tile.from_at = 0;
  tile.to_panel = 0;
  tile.to_stride = line;
  tile.n_products = 1;
  product.set_sizes(s.n_rows, 0, 0, 0);
  auto sum = [&](size_t t, const Real* panel, const Slice& ahead, Real* dw) __attribute__((always_inline)) {
    const int n = tiles.size(t);
#pragma GCC unroll 1
    for (int c = 0; c < n; ++c) {
      tile.from[c] = s.start == GradientStart::from_dw ? dw + c * line : kZeroLine<Real>;
      product.rows[c] = s.columns + (tiles.begin(t) - first + c) * s.n_rows;
    }
    tile.to = dw;
    product.w = panel;
    product.ahead = ahead;
    sum_products_of<kMaxRows, 1, NV>(tile, n);
  };
  gradient_tiles<NV>(s, tiles, line, sum);
}

// The `rest` of MR rows of dw, a vector at a time.
template <int MR, class Real>
QG_INLINE void gradient_rest(const WeightGradient<Real>& s, const Real* column, Real* dw, size_t line) {
  constexpr int W = Vec<Real>::kWidth;
  const bool continued = s.start == GradientStart::from_dw, added = s.start == GradientStart::add;
  for (size_t v = 0; v < s.rest_vectors; ++v, dw += W) {
    const int left = int(s.rest - v * W), n = left < W ? left : W;
    if (n <= 0) return;
    Vec<Real> a[MR];
    for (int r = 0; r < MR; ++r) a[r] = continued ? load_upto(dw + r * line, n) : zero<Real>();
    const Real *x = column, *w = s.rest_panel + v * W;
    for (size_t k = 0; k < s.n_rows; ++k, x += s.xh_stride, w += s.rest_vectors * W) {
      const Vec<Real> weight = load(w);
      for (int r = 0; r < MR; ++r) a[r] = fma(set1(x[r]), weight, a[r]);
    }
    for (int r = 0; r < MR; ++r) {
      Real* to = dw + r * line;
      store_upto(to, added ? load_upto(to, n) + a[r] : a[r], n);
    }
  }
}

// Columns [column, end) of `xh`, which are rows of dw. The lines of the panel after the next are prefetched.
template <class Real>
QG_OUTLINE void gradient_of_few_rows(const WeightGradient<Real>& s, size_t column, size_t end, size_t line) {
  constexpr size_t W = Vec<Real>::kWidth;
  constexpr int NV = kLineVectors;
  const bool continued = s.start == GradientStart::from_dw, added = s.start == GradientStart::add;
  for (size_t n; column < end; column += n) {
    n = column + 1 < end ? 2 : 1;
    const Real *panel = s.dg_panels + s.block_begin * s.panel_stride, *rows = s.xh + column;
    Real* dw = s.dw + s.block_begin * s.dw_stride + column * line;
    for (size_t block = s.block_begin; block < s.block_end; ++block, panel += s.panel_stride, dw += s.dw_stride) {
      if (n == 1) {
        gradient_tile<NV, 1>(s, rows, panel, {}, dw, line);
        continue;
      }
      Vec<Real> a[2][NV];
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
          Real* at = dw + r * line + v * W;
          __builtin_prefetch(at + 2 * s.dw_stride, 1, 3);
          a[r][v] = continued ? load(at) : zero<Real>();
        }
      const Real *x = rows, *w = panel;
      for (size_t k = 0; k < s.n_rows; ++k, x += s.xh_stride, w += NV * W) {
        Vec<Real> weights[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) weights[v] = load(w + v * W);
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) {
          const Vec<Real> of_row = set1(x[r]);
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) a[r][v] = fma(of_row, weights[v], a[r][v]);
        }
      }
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
          Real* to = dw + r * line + v * W;
          store(to, added ? load(to) + a[r][v] : a[r][v]);
        }
    }
    if (n == 2)
      gradient_rest<2>(s, rows, dw, line);
    else
      gradient_rest<1>(s, rows, dw, line);
  }
}

template <int NV, class Real>
QG_INLINE void weight_gradient_line(const WeightGradient<Real>& s) {
  const Parts tiles(s.n_k, kMaxRows);
  const size_t line = s.dw_line ? s.dw_line : NV * Vec<Real>::kWidth, panels = s.block_end - s.block_begin;
  if constexpr (kWritesRows<Real> && NV == kLineVectors)
    if (s.n_rows <= kStoreBoundRows && panels >= kStoreBoundPanels && line > NV * Vec<Real>::kWidth)
      return gradient_of_few_rows(s, tiles.begin(s.tile_begin), tiles.begin(s.tile_end), line);
  if constexpr (kCopyColumns<Real> && NV == kLineVectors)
    if (s.columns && s.block_end - s.block_begin >= kCopyPanels && s.start != GradientStart::add)
      return copied_gradient<NV>(s, tiles, line);
  auto sum = [&](size_t t, const Real* panel, const Slice& ahead, Real* dw) __attribute__((always_inline)) {
    with_constant<kMaxRows>(
        tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
          gradient_tile<NV, decltype(mr)::value>(s, s.xh + tiles.begin(t), panel, ahead, dw, line);
        });
  };
  gradient_tiles<NV>(s, tiles, line, sum);
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
void rows_to_panels(const RowsToPanels<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth, kLine = kLineVectors * W, kLeast = least_vectors<Real>();
  const size_t whole = s.n_columns / kLine, rest = s.n_columns % kLine, panel = s.panel_rows * kLine;
  const size_t vectors = rest ? (rest > kLeast * W ? (rest + W - 1) / W : kLeast) : 0;  // in the last panel
  const Real* from = s.from;
  Real *to = s.to + s.at * kLine, *last = s.to + whole * panel + s.at * vectors * W;
  for (size_t r = 0; r < s.n_rows; ++r, from += s.from_stride, to += kLine, last += vectors * W) {
    for (size_t p = 0; p < whole; ++p)
#pragma GCC unroll 4
      for (size_t v = 0; v < kLineVectors; ++v) store(to + p * panel + v * W, load(from + p * kLine + v * W));
    for (size_t v = 0; v < vectors; ++v) {
      const size_t first = v * W, n = rest < first ? 0 : rest - first;
      store(last + first, n ? load_upto(from + whole * kLine + first, int(n < W ? n : W)) : zero<Real>());
    }
  }
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
