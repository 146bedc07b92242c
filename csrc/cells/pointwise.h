// Arithmetic on vectors that cells share: clipping, zoneout, h to its destinations, and the mirrors of these.
#pragma once

#include "cells/cells.h"
#include "kernels/layouts.h"
#include "kernels/math.h"
#include "kernels/steps.h"

namespace quadgate {
namespace QG_ISA {

// A cell's sizes as constants, and the shape of its panels.
template <CellType Type>
struct CellConstants {
  static constexpr int kGates = int(kCellSizes[int(Type)].n_gates);
  static constexpr int kTaped = int(kCellSizes[int(Type)].n_taped);
  static constexpr bool kRecurrentApart = kCellSizes[int(Type)].apart >= 0;
  static constexpr int kRowBlocks = row_blocks(kGates);
  static constexpr int kVectors = kGates * kRowBlocks;  // in a line of its panels
};

// min and max nested, rather than a difference: keeps NaN.
template <class Real>
QG_INLINE Vec<Real> clip(Vec<Real> x, Real most) {
  return max(set1(-most), min(set1(most), x));
}

// `old` where the row keeps it, by the mask or, without one, by expectation.
template <class Real>
QG_INLINE Vec<Real> zoneout(Vec<Real> old, Vec<Real> computed, const unsigned char* keep, Real rate, int n) {
  if (keep) return where_less(zero<Real>(), load_flags<Real>(keep, n), old, computed);
  return fma(set1(rate), old, set1(Real(1) - rate) * computed);
}

// Applies zoneout to h, then stores it to every destination.
template <class Real>
QG_INLINE void store_h(Real* y, Real* y_copy, Vec<Real> h, Real rate, const OutputExtra<Real>* extra, size_t u, int n) {
  if (extra && extra->h_prev)
    h = zoneout(load_upto(extra->h_prev + u, n), h, extra->keep_h ? extra->keep_h + u : nullptr, rate, n);
  store_upto(y + u, h, n);
  if (y_copy) store_upto(y_copy + u, h, n);
  if (extra && extra->h_mask) store_upto(extra->h_masked + u, h * load_upto(extra->h_mask + u, n), n);
}

// ---- backward ----

// da = d s'(clip(a)), 0 past the clip; y = s(clip(a)).
template <class Real>
QG_INLINE Vec<Real> clipped_slope(const Activation<Real>& f, Vec<Real> d, Vec<Real> a, Vec<Real> y, Real most) {
  return where_less(set1(most), zero<Real>() - negative_abs(a), zero<Real>(), d * slope(f, clip(a, most), y));
}

// Completes dh: adds dy, the final state's gradient and what zoneout passed on. Returns the part for the h computed in
// this step; the part for the h that zoneout kept goes to `carry`.
template <class Real>
QG_INLINE Vec<Real> complete_dh(Vec<Real> dh, const Real* more, const Real* dy, const BackwardExtra<Real>* extra,
                                size_t u, int n) {
  if (extra && extra->h_mask) dh = dh * load_upto(extra->h_mask + u, n);
  if (more) dh = dh + load_upto(more + u, n);
  if (dy) dh = dh + load_upto(dy + u, n);
  if (!extra) return dh;
  if (extra->carry) dh = dh + load_upto(extra->carry + u, n);
  if (extra->dh_total) store_upto(extra->dh_total + u, dh, n);
  if (!extra->keep_h) return dh;
  const Vec<Real> keep = load_flags<Real>(extra->keep_h + u, n), none = zero<Real>();
  store_upto(extra->carry + u, where_less(none, keep, dh, none), n);
  return where_less(none, keep, none, dh);
}

// Stores one block's gradients of G gates by rows and, in whole vectors, in the order of the panels, unless dg_panel is
// null.
template <class Real, int G>
QG_INLINE void store_gradients(Real* dg, Real* dg_panel, const Vec<Real> (&da)[G], size_t block, size_t hidden,
                               size_t panel_stride) {
  constexpr size_t W = Vec<Real>::kWidth, B = row_blocks(G);
  for (size_t v = 0; v < size_t(G); ++v) {
    store_upto(dg + v * hidden + block * W, da[v], lanes_of<Real>(block, hidden));
    if (dg_panel) store(dg_panel + block / B * panel_stride + (v * B + block % B) * W, da[v]);
  }
}

}  // namespace QG_ISA
}  // namespace quadgate
