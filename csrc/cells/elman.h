// Elman's simple recurrent cell (1990) on vectors: h = s(a), one gate column, no state but h.
//
// The tape keeps nothing beside h: of the activations that this cell takes, tanh and relu, h alone gives the slope.
#pragma once

#include "cells/pointwise.h"

namespace quadgate {
namespace QG_ISA {

template <class Real>
struct Elman : CellConstants<CellType::elman> {
  static constexpr bool kPlain = false, kTwoParts = false;

  static QG_INLINE Vec<Real> forward(Vec<Real> a, const CellOptions<Real>* options) {
    return activate(options->gate, a);
  }

  // da, from dh and the h of this step.
  static QG_INLINE Vec<Real> backward(Vec<Real> h, Vec<Real> dh, const CellOptions<Real>* options) {
    return dh * slope(options->gate, h, h);
  }

  // ---- rows ----

  static QG_INLINE void forward_row(const CellStep<Real>& step, const ForwardRow<Real>& row, Vec<Real> (&a)[kGates],
                                    size_t block, const CellOptions<Real>* options, const OutputExtra<Real>* extra) {
    store_h(row.y, row.y_copy, forward(a[0], options), options->zoneout_h, extra, block * Vec<Real>::kWidth,
            lanes_of<Real>(block, step.hidden_size));
  }

  static QG_INLINE void backward_row(const BackwardStep<Real>& step, const BackwardRow<Real>& row, Vec<Real> dh,
                                     size_t block, const CellOptions<Real>* options, const BackwardExtra<Real>* extra) {
    const size_t u = block * Vec<Real>::kWidth;
    const int n = lanes_of<Real>(block, step.hidden_size);
    dh = complete_dh(dh, row.dh, row.dy, extra, u, n);
    const Vec<Real> da[kGates] = {backward(load_upto(row.gates + u, n), dh, options)};
    store_gradients(row.dg, row.dg_panel, da, block, step.hidden_size, step.panel_stride);
  }

  static QG_INLINE void prefetch_tape(const BackwardRow<Real>&, size_t, int) {}
};

}  // namespace QG_ISA
}  // namespace quadgate
