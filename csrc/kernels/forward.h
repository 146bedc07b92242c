// A step of the forward pass: a product over k into a register tile, then the cell on the sums. backward.h mirrors it.
#pragma once

#include "cells/dispatch.h"
#include "kernels/step_tile.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// The cell of n_rows rows of a panel, whose sums lie in memory. `options` and `extra` are constants null for the plain
// cell.
template <class Cell, class Real>
QG_INLINE void finish_rows(const CellStep<Real>& s, const ForwardRow<Real>* rows,
                           Real (*sums)[Cell::kVectors][Vec<Real>::kWidth], size_t n_rows, size_t panel,
                           const CellOptions<Real>* options, const OutputExtra<Real>* extra) {
  constexpr size_t W = Vec<Real>::kWidth, B = Cell::kRowBlocks, G = Cell::kGates;
  if constexpr (Cell::kTwoParts) {
    static_assert(B == 1, "a cell in two parts has one block of units in a panel");
#pragma GCC unroll 1
    for (size_t r = 0; r < n_rows; ++r) {
      Vec<Real> a[G];
      for (size_t v = 0; v < G; ++v) a[v] = load(sums[r][v]);
      store(sums[r][0], Cell::forward_state(s, rows[r], a, panel, options, extra ? extra + r : nullptr));
    }
#pragma GCC unroll 1
    for (size_t r = 0; r < n_rows; ++r)
      Cell::forward_output(s, rows[r], load(sums[r][Cell::kOutputGate]), load(sums[r][0]), panel, options,
                           extra ? extra + r : nullptr);
  } else {
    const size_t n_blocks = (s.hidden_size + W - 1) / W;
    for (size_t r = 0; r < n_rows; ++r)
      for (size_t b = 0; b < B && panel * B + b < n_blocks; ++b) {
        Vec<Real> a[G];
        for (size_t v = 0; v < G; ++v) a[v] = load(sums[r][v * B + b]);
        Cell::forward_row(s, rows[r], a, panel * B + b, options, extra ? extra + r : nullptr);
      }
  }
}

// The same for cells with options, and for rows with something extra: once, not for every tile size. Compiled for size
// in double, whose options few use.
template <class Cell>
QG_OUTLINE void finish_other_rows(const CellStep<float>& s, const ForwardRow<float>* rows,
                                  float (*sums)[Cell::kVectors][Vec<float>::kWidth], size_t n_rows, size_t panel,
                                  const OutputExtra<float>* extra) {
  finish_rows<Cell>(s, rows, sums, n_rows, panel, s.options, extra);
}
template <class Cell>
QG_OUTLINE QG_SMALL void finish_other_rows(const CellStep<double>& s, const ForwardRow<double>* rows,
                                           double (*sums)[Cell::kVectors][Vec<double>::kWidth], size_t n_rows,
                                           size_t panel, const OutputExtra<double>* extra) {
  finish_rows<Cell>(s, rows, sums, n_rows, panel, s.options, extra);
}

// The plain cell, for narrow panels, and where tiles have no copy of it.
template <class Real>
QG_OUTLINE void finish_plain_rows(const CellStep<Real>& s, const ForwardRow<Real>* rows,
                                  Real (*sums)[Lstm<Real>::kVectors][Vec<Real>::kWidth], size_t n_rows, size_t panel) {
  const CellOptions<Real>* const plain = nullptr;
  const OutputExtra<Real>* const none = nullptr;
  finish_rows<Lstm<Real>>(s, rows, sums, n_rows, panel, plain, none);
}

// The same with the cell looked up, so that tiles need no copy for each cell.
template <int NV, class Real>
QG_OUTLINE void finish_any_rows(const ForwardStep<Real>& s, const ForwardRow<Real>* rows,
                                Real (*sums)[NV][Vec<Real>::kWidth], size_t n_rows, size_t panel,
                                const OutputExtra<Real>* extra) {
  with_cell<Real>(
      s.options, [&](auto cell) __attribute__((always_inline)) {
        using Cell = decltype(cell);
        static_assert(!Cell::kRecurrentApart, "such a cell needs sums for R h beside those for W x");
        if constexpr (int(Cell::kVectors) == NV) finish_other_rows<Cell>(s, rows, sums, n_rows, panel, extra);
      });
}

// True if tiles of several rows call the plain cell. A copy in each of them takes up to 5 % less time: none for
// doubles, which few use, and in small kernels.
template <class Real>
constexpr bool kOneCopy = sizeof(Real) > sizeof(float) || kSmallKernels;

// The cell of n_rows rows of a panel, from sums in memory. kInline: the plain cell is compiled here.
template <int NV, bool kInline, class Real, class Storage>
QG_INLINE void finish_sums(const ForwardStep<Real, Storage>& s, size_t first, size_t panel,
                           Real (*sums)[NV][Vec<Real>::kWidth], size_t n_rows) {
  using Plain = Lstm<Real>;
  const ForwardRow<Real>* rows = s.rows + first;
  const CellOptions<Real>* const plain = nullptr;
  const OutputExtra<Real>* const none = nullptr;
  if constexpr (NV == Plain::kVectors) {
    if (!s.options && !s.extra) {
      if constexpr (kInline)
        finish_rows<Plain>(s, rows, sums, n_rows, panel, plain, none);  // a call would cost up to 5 %
      else
        finish_plain_rows<Real>(s, rows, sums, n_rows, panel);
      return;
    }
  }
  finish_any_rows<NV>(s, rows, sums, n_rows, panel, s.extra ? s.extra + first : nullptr);
}

// The cell of one row of NP neighbouring panels, from their sums.
template <int NV, int NP, class Real, class Storage>
QG_INLINE void finish_row(const ForwardStep<Real, Storage>& s, size_t panel, Vec<Real> (&a)[NP][1][NV]) {
  using Plain = Lstm<Real>;
  constexpr size_t W = Vec<Real>::kWidth;
  if constexpr (NV == Plain::kVectors && !kSmallKernels) {
    if (!s.options && !s.extra) {
      const CellOptions<Real>* const plain = nullptr;
      const OutputExtra<Real>* const none = nullptr;
      Vec<Real> state[NP];
#pragma GCC unroll 2
      for (int p = 0; p < NP; ++p) state[p] = Plain::forward_state(s, s.rows[0], a[p][0], panel + p, plain, none);
#pragma GCC unroll 2
      for (int p = 0; p < NP; ++p)
        Plain::forward_output(s, s.rows[0], a[p][0][Plain::kOutputGate], state[p], panel + p, plain, none);
      return;
    }
  }
  alignas(64) Real sums[NP][1][NV][W];
  for (int p = 0; p < NP; ++p) {
    for (int v = 0; v < NV; ++v) store(sums[p][0][v], a[p][0][v]);
    if constexpr (kSmallKernels)
      finish_sums<NV, false>(s, 0, panel + p, sums[p], 1);
    else
      finish_any_rows<NV>(s, s.rows, sums[p], 1, panel + p, s.extra);
  }
}

// One row of NP neighbouring panels with NV vectors in a line: all of k, then the cell.
template <int NV, int NP, class Real, class Storage>
QG_INLINE void forward_row_tile(const ForwardStep<Real, Storage>& s, size_t panel) {
  constexpr size_t W = Vec<Real>::kWidth;
  constexpr int P = kParts<Real, Storage, NV>, N = NV / P;
  const ForwardRow<Real>& row = s.rows[0];
  const Real* from = (s.use_pre ? row.pre : s.bias) + panel * NV * W;
  Vec<Real> sums[NP * P][1][N], a[NP][1][NV];
  for (int v = 0; v < NP * NV; ++v) sums[v / N][0][v % N] = load(from + v * W);
  auto add = [&](const Real* x, const Storage* w, size_t n_k) __attribute__((always_inline)) {
    const Real* const rows[1] = {x};
    multiply<false, (P > 1)>(sums, rows, 0, 1, w + panel * n_k * NV * W, n_k * N * W, n_k, {});
  };
  if (!s.use_pre) add(row.x, s.w_ih, s.input_size);
  add(row.h, s.w_hh, s.recurrent_size);
  for (int v = 0; v < NP * NV; ++v) a[v / NV][0][v % NV] = sums[v / N][0][v % N];
  finish_row(s, panel, a);
}

// The sums and cells of n_rows rows of a narrow panel.
template <int NV, class Real>
QG_OUTLINE void forward_narrow_tile(const ForwardStep<Real>& s, size_t first, int n_rows, size_t panel) {
  constexpr size_t W = Vec<Real>::kWidth;
  alignas(64) Real half[kMostSumRows][NV / 2][W], sums[kMostSumRows][NV][W];
  StepTile<NV, Real, Real> tile(s, 1, false, 0);
  tile.set_rows(first, n_rows);
  tile.sum_narrow(panel, half);
#pragma GCC unroll 1
  for (int r = 0; r < n_rows; ++r)
    for (int v = 0; v < NV; ++v) {
      const Vec<Real> pair = load(half[r][v / 2]);
      store(sums[r][v], v % 2 ? upper_half(pair) : pair);
    }
  finish_sums<NV, false>(s, first, panel, sums, size_t(n_rows));
}

// A whole panel and the narrow one behind it, for one row: their chains run side by side.
template <int NV, class Real>
QG_INLINE void forward_last_pair(const ForwardStep<Real>& s, size_t panel) {
  constexpr size_t W = Vec<Real>::kWidth, line = NV * W;
  constexpr int N = NV / 2, P = kParts<Real, Real, NV>;
  const ForwardRow<Real>& row = s.rows[0];
  const Real* from = (s.use_pre ? row.pre : s.bias) + panel * line;
  Vec<Real> a[2][1][NV], whole[P][1][NV / P], half[1][1][N];
  for (int v = 0; v < NV; ++v) whole[v / (NV / P)][0][v % (NV / P)] = load(from + v * W);
  for (int v = 0; v < N; ++v) half[0][0][v] = load(from + line + v * W);
  auto add = [&](const Real* x, const Real* w, size_t n_k) __attribute__((always_inline)) {
    const Real *const left[1] = {x}, *narrow = w + n_k * line;
    const size_t part = n_k * (NV / P) * W;
#pragma GCC unroll 2
    for (size_t k = 0; k < n_k; ++k, w += NV / P * W, narrow += N * W) {
      multiply_line(whole, left, 0, k, w, part);
      multiply_line(half, left, 0, k, narrow, 0);
    }
  };
  if (!s.use_pre) add(row.x, s.w_ih + panel * s.input_size * line, s.input_size);
  add(row.h, s.w_hh + panel * s.recurrent_size * line, s.recurrent_size);
  for (int v = 0; v < NV; ++v) {
    a[0][0][v] = whole[v / (NV / P)][0][v % (NV / P)];
    a[1][0][v] = v % 2 ? upper_half(half[0][0][v / 2]) : half[0][0][v / 2];
  }
  finish_row(s, panel, a);
}

// One step of one row: two panels at a time, which gives 8 chains. `narrow`: the last panel is.
template <int NV, class Real, class Storage>
QG_INLINE void forward_row(const ForwardStep<Real, Storage>& s, bool descending, bool narrow) {
  const size_t whole = s.block_end - s.block_begin - narrow, pairs = whole / 2;
  auto rest = [&]() __attribute__((always_inline)) {
    const size_t last = s.block_end - 1;
    if constexpr (kNarrowLast<Real, Storage, NV>) {
      if (narrow && whole % 2) return forward_last_pair<NV>(s, last - 1);
      if (narrow) return forward_narrow_tile<NV>(s, 0, 1, last);
    }
    if (whole % 2) forward_row_tile<NV, 1>(s, last);
  };
  if (descending) rest();
  for (size_t i = 0; i < pairs; ++i) {
    const size_t panel = s.block_begin + 2 * (descending ? pairs - 1 - i : i);
    forward_row_tile<NV, 2>(s, panel);
  }
  if (!descending) rest();
}

// Prefetches what an LSTM's rows of a tile are to write behind the product, a panel of units of each. Stores to lines
// that are not in L1 or L2 fill the core's queue of stores, and then hold up the next product.
template <class Real>
QG_INLINE void prefetch_results(const ForwardRow<Real>* rows, int n_rows, size_t unit) {
  for (int r = 0; r < n_rows; ++r) {
    __builtin_prefetch(rows[r].c + unit, 1, 3);
    __builtin_prefetch(rows[r].y + unit, 1, 3);
    if (rows[r].y_copy) __builtin_prefetch(rows[r].y_copy + unit, 1, 3);
  }
}

// Columns of x and h from which on all rows go into one tile of more than kMaxRows rows. With fewer they stay in two
// tiles: the cells of one overlap with the product of the other, which gains more the shorter the product is.
constexpr size_t kOneTileColumns = 256;

// One step of all rows, for panels [block_begin, block_end).
template <int NV, class Real, class Storage>
QG_INLINE void forward_panels(const ForwardStep<Real, Storage>& s, bool descending) {
  constexpr size_t W = Vec<Real>::kWidth;
  constexpr int P = kParts<Real, Storage, NV>, most = P > 1 ? kPartRows<Real, Storage, NV> : kLargestTile<Real, NV>;
  using Tile = StepTile<NV, Real, Storage>;
  const size_t n_panels = s.block_end - s.block_begin, all = (s.hidden_size + W - 1) / W;
  const bool narrow = s.narrow_last && s.block_end == all && n_panels > 0;
  if (s.n_rows == 1) return forward_row<NV>(s, descending, narrow);
  const size_t n_columns = s.recurrent_size + (s.use_pre ? 0 : s.input_size);
  const bool large = (P > 1 ? !parts_abreast(s.n_rows) : s.n_rows == most) && n_columns >= kOneTileColumns;
  const Parts tiles(s.n_rows, large ? most : kMaxRows);
  Tile tile(s, tiles.count, large, n_panels * n_columns * NV * W * sizeof(Storage));
  alignas(64) Real sums[most][NV][W];  // through memory, so that the cell is compiled once
  const bool pairs = Tile::kPairs && s.n_rows <= Tile::kPairRows;
  for (size_t i = 0, width; i < n_panels; i += width) {
    const size_t left = n_panels - i;
    width = pairs && left > 1 && !(narrow && (descending ? i == 0 : left == 2)) ? 2 : 1;
    const size_t panel = descending ? s.block_end - width - i : s.block_begin + i;
    const size_t next = left == 1 ? panel : descending ? panel - 1 : panel + 1;
    for (size_t t = 0; t < tiles.count; ++t) {
      const size_t first = tiles.begin(t);
      const int n_rows = tiles.size(t);
      if (i == 0 || tiles.count > 1) tile.set_rows(first, n_rows);
      if constexpr (kNarrowLast<Real, Storage, NV>)
        if (narrow && panel + 1 == all) {
          forward_narrow_tile<NV>(s, first, n_rows, panel);
          continue;
        }
      if (s.far_results)
        for (size_t p = 0; p < width; ++p) prefetch_results(s.rows + first, n_rows, (panel + p) * W);
      if constexpr (Tile::kPairs)
        if (width == 2) tile.sum_pair(panel, sums);
      if (width == 1) tile.template sum<most>(t, panel, next, sums);
#pragma GCC unroll 1
      for (size_t p = 0; p < width; ++p)
        finish_sums<NV, !kOneCopy<Real>>(s, first, panel + p, sums + p * n_rows, size_t(n_rows));
    }
  }
}

template <class Real>
void advance(ForwardRow<Real>* rows, size_t n_rows, const RowStrides& next) {
  for (size_t r = 0; r < n_rows; ++r) {
    ForwardRow<Real>& row = rows[r];
    row.x += next.x;
    row.pre += next.pre;
    row.h = row.y;
    row.y += next.y;
    row.y_copy += next.y_copy;
    row.c_prev = row.c;
    row.c += next.c;
    row.gates += next.gates;
  }
}

template <class Real, class Storage>
void forward(const ForwardStep<Real, Storage>& s) {
  with_line(
      line_vectors(int(s.options ? s.options->type : CellType::lstm)), [&](auto nv) __attribute__((always_inline)) {
        bool descending = s.descending;
        for (size_t left = s.n_more;; --left, descending = !descending) {
          forward_panels<decltype(nv)::value>(s, descending);
          if (left == 0) break;
          advance(s.rows, s.n_rows, s.next);
        }
      });
  if (s.large_tape) stream_end();
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
