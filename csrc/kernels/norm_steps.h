// Layer normalisation (Ba, Kiros & Hinton 2016) of a cell's two products and of its c: the arguments of the pass that
// follows the products, row by row. Words and layouts: layouts.h. N(p) = (p - mean) / sqrt(variance + epsilon).
//
//   a = gain_ih N(W_ih x) + gain_hh N(W_hh h') + bias          N over all 4H
//   v = gain_c N(c_new) + bias_c                               N over H
//   norm.replaces_cell: v replaces c_new before o and c are computed; otherwise v is only the argument of the
//   activation of the output
#pragma once

#include <stddef.h>

#include "kernels/steps.h"

namespace quadgate {

template <class Real>
struct Norm {
  const Real *gain_ih, *gain_hh;  // (4H)
  const Real *gain_c, *bias_c;    // (H)
  Real epsilon;
  bool replaces_cell;
};

template <class Real>
struct NormRow {
  const Real *ih, *hh;          // (n_blocks,4,W) the products, from `project`
  Real *normal_ih, *normal_hh;  // (4H) out for the tape: N of them; null for all rows or for none
  Real* inverse;                // (2) out for the tape: 1 / their deviations; null as these
};

template <class Real>
struct NormStep {
  const Norm<Real>* norm;
  const Real* bias;              // (n_blocks,4,W)
  const ForwardRow<Real>* rows;  // x, h and pre are not read
  const NormRow<Real>* norm_rows;
  size_t n_rows, hidden_size;
  const CellOptions<Real>* options;  // never null
  const Real* peephole;
  const OutputExtra<Real>* extra;
  Real* work;  // (2,n_blocks,W) of any contents
};

template <class Real>
struct NormBackwardRow {
  const Real* dm;                     // (H) gradient of m
  const Real *normal_ih, *normal_hh;  // (4H) from the tape
  const Real* inverse;                // (2) from the tape
  Real* da;                           // (4H) out: gradient of a
  Real *dg_ih, *dg_hh;                // (4H) out: gradients of the products
  Real *ih_panel, *hh_panel;          // as BackwardRow::dg_panel
  Real *dv, *normal_c;                // (H) out: gradient of v, and N(c_new)
};

template <class Real>
struct NormBackwardStep {
  const Norm<Real>* norm;
  const BackwardRow<Real>* rows;  // gates, c_prev and dc are used
  const NormBackwardRow<Real>* norm_rows;
  size_t n_rows, hidden_size, panel_stride;
  const CellOptions<Real>* options;  // never null
  const Real* peephole;
  const BackwardExtra<Real>* extra;  // may be null
  Real* work;                        // (2,n_blocks,W) of any contents
};

}  // namespace quadgate
