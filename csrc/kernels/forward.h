// A step of the forward pass: a product over k into a register tile, then the cell on the sums. backward.h mirrors it.
#pragma once

#include "cells/dispatch.h"
#include "kernels/multiply.h"
#include "kernels/tiles.h"

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

// The same for cells with options, and for rows with something extra: once, not for every tile size.
template <class Cell, class Real>
QG_OUTLINE void finish_other_rows(const CellStep<Real>& s, const ForwardRow<Real>* rows,
                                  Real (*sums)[Cell::kVectors][Vec<Real>::kWidth], size_t n_rows, size_t panel,
                                  const OutputExtra<Real>* extra) {
  finish_rows<Cell>(s, rows, sums, n_rows, panel, s.options, extra);
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

// MR rows of NP neighbouring panels with NV vectors in a line: all of k, then the cell.
template <int NV, int NP, int MR, class Real, class Storage>
QG_INLINE void forward_tile(const ForwardStep<Real, Storage>& s, size_t first, size_t panel, size_t next, size_t tile,
                            size_t n_tiles) {
  using Plain = Lstm<Real>;
  constexpr bool kPlain = NV == Plain::kVectors;  // the plain cell is compiled here, others are looked up
  constexpr size_t W = Vec<Real>::kWidth, line = NV * W;
  const size_t I = s.input_size, R = s.recurrent_size;
  const ForwardRow<Real>* rows = s.rows + first;
  Vec<Real> a[NP][MR][NV];
  const Real *x[MR], *h[MR];
  for (int r = 0; r < MR; ++r) {
    const Real* from = s.use_pre ? rows[r].pre : s.bias;
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < NV; ++v) a[p][r][v] = load(from + ((panel + p) * NV + v) * W);
    x[r] = rows[r].x;
    h[r] = rows[r].h;
  }
  const Ahead<Real, Storage> ih = {s.w_ih + panel * I * line, s.w_ih + next * I * line, n_tiles};
  const Ahead<Real, Storage> hh = {s.w_hh + panel * R * line, s.w_hh + next * R * line, n_tiles};
  if (!s.use_pre) multiply(a, x, 0, 1, ih.panel, I * line, I, ih.slice(tile, I, NV));
  multiply(a, h, 0, 1, hh.panel, R * line, R, hh.slice(tile, R, NV));
  const CellOptions<Real>* const plain = nullptr;
  const OutputExtra<Real>* const none = nullptr;
  const bool is_plain = kPlain && !s.options && !s.extra;
  if constexpr (kPlain && MR == 1) {
    if (is_plain) {
      Vec<Real> state[NP];
#pragma GCC unroll 2
      for (int p = 0; p < NP; ++p) state[p] = Plain::forward_state(s, rows[0], a[p][0], panel + p, plain, none);
#pragma GCC unroll 2
      for (int p = 0; p < NP; ++p)
        Plain::forward_output(s, rows[0], a[p][0][Plain::kOutputGate], state[p], panel + p, plain, none);
      return;
    }
  }
  // Through the stack, so that the cell is compiled once and not MR times.
  alignas(64) Real sums[NP][MR][NV][W];
  for (int p = 0; p < NP; ++p)
    for (int r = 0; r < MR; ++r)
      for (int v = 0; v < NV; ++v) store(sums[p][r][v], a[p][r][v]);
  if (!is_plain) {
    for (int p = 0; p < NP; ++p)
      finish_any_rows<NV>(s, rows, sums[p], MR, panel + p, s.extra ? s.extra + first : nullptr);
  } else if constexpr (kPlain && MR > 1) {
    finish_rows<Plain>(s, rows, sums[0], MR, panel, plain, none);
  }
}

// One step of all rows, for panels [block_begin, block_end).
template <int NV, class Real, class Storage>
QG_INLINE void forward_panels(const ForwardStep<Real, Storage>& s, bool descending) {
  const size_t n_panels = s.block_end - s.block_begin;
  if (s.n_rows == 1) {  // two panels at a time: 8 chains
    const size_t pairs = n_panels / 2;
    if (descending && n_panels % 2) forward_tile<NV, 1, 1>(s, 0, s.block_end - 1, s.block_end - 1, 0, 1);
    for (size_t i = 0; i < pairs; ++i) {
      const size_t panel = s.block_begin + 2 * (descending ? pairs - 1 - i : i);
      forward_tile<NV, 2, 1>(s, 0, panel, panel, 0, 1);
    }
    if (!descending && n_panels % 2) forward_tile<NV, 1, 1>(s, 0, s.block_end - 1, s.block_end - 1, 0, 1);
    return;
  }
  const Parts tiles(s.n_rows, kMaxRows);
  for (size_t i = 0; i < n_panels; ++i) {
    const size_t panel = descending ? s.block_end - 1 - i : s.block_begin + i;
    const size_t next = i + 1 == n_panels ? panel : descending ? panel - 1 : panel + 1;
    for (size_t t = 0; t < tiles.count; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            forward_tile<NV, 1, decltype(mr)::value>(s, tiles.begin(t), panel, next, t, tiles.count);
          });
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
