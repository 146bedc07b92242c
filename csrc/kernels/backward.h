// A step of the backward pass, the mirror of forward.h: a product over k into a register tile, then the cell's
// derivative on the sums.
#pragma once

#include "cells/dispatch.h"
#include "kernels/back_product.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// For cells with options, and for rows with something extra. Takes the sums in memory: given a vector in a register,
// gcc 12 leaves out the vzeroupper on return, and the next SSE instruction of the caller stalls. Compiled for size in
// double, whose options few use.
template <class Cell>
QG_OUTLINE void finish_other_backward(const BackwardStep<float>& s, size_t r, const float* sums, size_t block) {
  Cell::backward_row(s, s.rows[r], load(sums), block, s.options, s.extra ? s.extra + r : nullptr);
}
template <class Cell>
QG_OUTLINE QG_SMALL void finish_other_backward(const BackwardStep<double>& s, size_t r, const double* sums,
                                               size_t block) {
  Cell::backward_row(s, s.rows[r], load(sums), block, s.options, s.extra ? s.extra + r : nullptr);
}

// One copy for all cells: the product is the same. The plain cell is compiled into it, others are looked up by row.
template <class Real>
void backward(const BackwardStep<Real>& s) {
  using Plain = Lstm<Real>;
  const CellOptions<Real>* const plain = nullptr;
  const BackwardExtra<Real>* const none = nullptr;
  const CellSizes sizes = cell_sizes(s.options ? s.options->type : CellType::lstm);
  // A shorter product does not hide the prefetch, and the tape of a smaller network is often still in cache.
  const bool tape_is_far = sizes.n_taped > 0 && s.n_gates == sizes.n_gates && s.hidden_size >= 64;
  back_products<Real>(
      s.w_back, s.n_gates, s.n_rows_of_gate, s.hidden_size, s.n_rows, s.group_begin, s.group_end, s.descending,
      !s.rows[0].dg_next, s.work, [&](size_t r) __attribute__((always_inline)) { return s.rows[r].dg_next; },
      tape_is_far,
      [&](size_t r, size_t block, int n) __attribute__((always_inline)) {
        with_cell<Real>(
            s.options, [&](auto cell) __attribute__((always_inline)) { cell.prefetch_tape(s.rows[r], block, n); });
      },
      [&](size_t r, size_t block, const Real* sums) __attribute__((always_inline)) {
        if (!s.options && !s.extra) return Plain::backward_row(s, s.rows[r], load(sums), block, plain, none);
        with_cell<Real>(
            s.options, [&](auto cell) __attribute__((always_inline)) {
              finish_other_backward<decltype(cell)>(s, r, sums, block);
            });
      });
}

template <class Real>
void projected_backward(const ProjectedBackwardStep<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth, B = row_blocks(1);
  for (size_t r = 0; r < s.n_rows; ++r)
    for (size_t u = s.begin; u < s.end; u += W) {
      const ProjectedBackwardRow<Real>& row = s.rows[r];
      const size_t block = u / W;
      const int n = lanes_of<Real>(block, s.size);
      Vec<Real> dh = row.through ? load_upto(row.through + u, n) : zero<Real>();
      Vec<Real> dz = complete_dh(dh, row.dh, row.dy, s.extra ? s.extra + r : nullptr, u, n);
      if (s.clip < Real(__builtin_inf())) {  // an h at the clip was clipped
        Vec<Real> size = zero<Real>() - negative_abs(load_upto(row.h + u, n));
        dz = where_less(size, set1(s.clip), dz, zero<Real>());
      }
      store_upto(row.dz + u, dz, n);
      if (row.dz_panel) store(row.dz_panel + block / B * s.panel_stride + block % B * W, dz);
    }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
