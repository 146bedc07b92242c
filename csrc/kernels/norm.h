// Layer normalisation (Ba, Kiros & Hinton 2016) of a cell's two products and of its c: the arguments of the pass that
// follows the products, row by row. Words and layouts: kernels.h. N(v) = (v - mean) / sqrt(variance + epsilon).
//
//   a = gain_ih N(W_ih x) + gain_hh N(W_hh h') + bias          N over all 4H
//   w = gain_c N(n) + bias_c                                   N over H
//   carried: n becomes w before o and c are made of it; otherwise u alone is taken of w
#pragma once

#include <stddef.h>

namespace quadgate {

template <class T>
struct Norm {
  const T *gain_ih, *gain_hh;  // (4H)
  const T *gain_c, *bias_c;    // (H)
  T epsilon;
  bool carried;
};

template <class T>
struct NormRow {
  const T *ih, *hh;          // (P,4,W) the products, from `project`
  T *normal_ih, *normal_hh;  // (4H) out for the tape: N of them; null for all rows or for none
  T* inverse;                // (2) out for the tape: 1 / their deviations; null as these
};

template <class T>
struct NormStep {
  const Norm<T>* norm;
  const T* bias;              // (P,4,W)
  const ForwardRow<T>* rows;  // x, h and pre are not read
  const NormRow<T>* norm_rows;
  size_t n_rows, hidden_size;
  const CellKind<T>* kind;  // never null
  const T* peephole;
  const OutputExtra<T>* extra;
  T* work;  // (2, P, W) of any contents
};

template <class T>
struct NormBackwardRow {
  const T* dm;                     // (H) gradient of m
  const T *normal_ih, *normal_hh;  // (4H) from the tape
  const T* inverse;                // (2) from the tape
  T* da;                           // (4H) out: gradient of a
  T *dg_ih, *dg_hh;                // (4H) out: gradients of the products
  T *ih_panel, *hh_panel;          // as BackwardRow::dg_panel
  T *dw, *normal_c;                // (H) out: gradient of w, and N(n)
};

template <class T>
struct NormBackwardStep {
  const Norm<T>* norm;
  const BackwardRow<T>* rows;  // gates, c_prev and dc are used
  const NormBackwardRow<T>* norm_rows;
  size_t n_rows, hidden_size, panel_stride;
  const CellKind<T>* kind;  // never null
  const T* peephole;
  const BackwardExtra<T>* extra;  // may be null
  T* work;                        // (2, P, W) of any contents
};

}  // namespace quadgate
