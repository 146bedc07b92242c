// The pass that layer normalisation puts behind the products, forward and backward; norm_steps.h has the formulas.
//
// A row's mean and variance need all of it before any of its cells, so products go to memory here, and a row is
// finished by one thread: its sums have one order, whatever the split. The cell has gates with peepholes, and an output
// gate that is computed after c is normalised: Lstm, or another of its kind.
#pragma once

#include "cells/lstm.h"
#include "kernels/norm_steps.h"

namespace quadgate {
namespace QG_ISA {
namespace {

template <class Real>
struct Moments {
  Real mean, inverse;
};

// Of n elements that at(block) gives by vectors; two passes, so that a large mean costs no accuracy.
template <class Real, class At>
QG_INLINE Moments<Real> moments(size_t n_blocks, size_t n, Real epsilon, At&& at) {
  Vec<Real> sum = zero<Real>();
  for (size_t b = 0; b < n_blocks; ++b) sum = sum + at(b, zero<Real>());
  const Real mean = sum_of(sum) / Real(n);
  sum = zero<Real>();
  for (size_t b = 0; b < n_blocks; ++b) {
    Vec<Real> d = at(b, set1(mean));
    sum = fma(d, d, sum);
  }
  return {mean, Real(1) / root(sum_of(sum) / Real(n) + epsilon)};
}

// The first n lanes of x - mean, zeros in the others.
template <class Real>
QG_INLINE Vec<Real> centred(Vec<Real> x, Vec<Real> mean, int n) {
  constexpr int W = Vec<Real>::kWidth;
  Vec<Real> d = x - mean;
  if (n >= W) return d;
  Real t[W];
  store(t, d);
  return load_n(t, n);
}

// Of a product of G gates in panel order.
template <int G, class Real>
QG_OUTLINE Moments<Real> product_moments(const Real* product, size_t hidden, Real epsilon) {
  constexpr size_t W = Vec<Real>::kWidth;
  return moments<Real>((hidden + W - 1) / W * G, G * hidden,
                       epsilon, [&](size_t b, Vec<Real> mean) __attribute__((always_inline)) {
                         return centred(load(product + b * W), mean, lanes_of<Real>(b / G, hidden));
                       });
}

// Of (hidden) elements in order.
template <class Real>
QG_OUTLINE Moments<Real> unit_moments(const Real* values, size_t hidden, Real epsilon) {
  constexpr size_t W = Vec<Real>::kWidth;
  return moments<Real>((hidden + W - 1) / W, hidden,
                       epsilon, [&](size_t b, Vec<Real> mean) __attribute__((always_inline)) {
                         return centred(load(values + b * W), mean, lanes_of<Real>(b, hidden));
                       });
}

template <class Cell, class Real>
QG_INLINE void normalise_rows(const NormStep<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth, G = Cell::kGates, O = Cell::kOutputGate;
  const size_t H = s.hidden_size, blocks = (H + W - 1) / W;
  const Norm<Real>& norm = *s.norm;
  Real *cells = s.work, *outputs = s.work + blocks * W;  // c_new, and the output gate's argument
  for (size_t r = 0; r < s.n_rows; ++r) {
    const ForwardRow<Real>& row = s.rows[r];
    const NormRow<Real>& from = s.norm_rows[r];
    const OutputExtra<Real>* extra = s.extra ? s.extra + r : nullptr;
    const Moments<Real> ih = product_moments<G>(from.ih, H, norm.epsilon),
                        hh = product_moments<G>(from.hh, H, norm.epsilon);
    if (from.inverse) from.inverse[0] = ih.inverse, from.inverse[1] = hh.inverse;
    typename Cell::Values cell;
    typename Cell::Peephole loaded;
    for (size_t b = 0; b < blocks; ++b) {
      const size_t u = b * W;
      const int n = lanes_of<Real>(b, H);
      Vec<Real> a[G];
      for (size_t v = 0; v < G; ++v) {
        const size_t at = (b * G + v) * W, row_at = v * H + u;
        Vec<Real> x = (load(from.ih + at) - set1(ih.mean)) * set1(ih.inverse);
        Vec<Real> h = (load(from.hh + at) - set1(hh.mean)) * set1(hh.inverse);
        a[v] = fma(load_upto(norm.gain_ih + row_at, n), x, load(s.bias + at));
        a[v] = fma(load_upto(norm.gain_hh + row_at, n), h, a[v]);
        if (from.normal_ih) {
          store_upto(from.normal_ih + row_at, x, n);
          store_upto(from.normal_hh + row_at, h, n);
        }
      }
      Cell::forward(cell, a, load_upto(row.c_prev + u, n), s.options, Cell::load_peephole(loaded, s.peephole, H, u, n));
      store(cells + u, cell.c_new);
      store(outputs + u, a[O]);
      for (size_t v = 0; row.gates && v < O; ++v) store_upto(row.gates + Cell::tape_at(v, u, n), a[v], n);
    }
    const Moments<Real> c = unit_moments(cells, H, norm.epsilon);
    for (size_t b = 0; b < blocks; ++b) {
      const size_t u = b * W;
      const int n = lanes_of<Real>(b, H);
      cell.c_new = load(cells + u);
      Vec<Real> v = (cell.c_new - set1(c.mean)) * set1(c.inverse);
      v = fma(load_upto(norm.gain_c + u, n), v, load_upto(norm.bias_c + u, n));
      if (norm.replaces_cell) cell.c_new = v;
      Vec<Real> a = load(outputs + u);
      cell.o = Cell::output_gate(a, cell.c_new, s.options, Cell::load_peephole(loaded, s.peephole, H, u, n));
      if (row.gates) store_upto(row.gates + Cell::tape_at(O, u, n), a, n);
      store_upto(row.c + u, Cell::zoneout_c(load_upto(row.c_prev + u, n), cell.c_new, s.options, extra, u, n), n);
      store_h(row.y, row.y_copy, cell.o * Cell::squash(v, s.options), s.options->zoneout_h, extra, u, n);
    }
  }
}

// The double ones are compiled for size, since few use them; so are those of the backward pass.
template <class Cell>
void normalised(const NormStep<float>& s) {
  normalise_rows<Cell>(s);
}
template <class Cell>
QG_SMALL void normalised(const NormStep<double>& s) {
  normalise_rows<Cell>(s);
}

// ---- backward ----

// From the gradient of gain * N(p) to that of p, over all GH: with g = gain da,
//   dp = (g - mean(g) - N(p) mean(g N(p))) / deviation
template <int G, class Real>
QG_OUTLINE void product_backward(const Real* da, const Real* gain, const Real* normal, Real inverse, size_t hidden,
                                 Real* dg, Real* panel, size_t panel_stride) {
  constexpr size_t W = Vec<Real>::kWidth;
  const size_t blocks = (hidden + W - 1) / W;
  Vec<Real> sum = zero<Real>(), weighted = zero<Real>();
  for (size_t b = 0; b < blocks; ++b)
    for (size_t v = 0; v < size_t(G); ++v) {
      const int n = lanes_of<Real>(b, hidden);
      Vec<Real> g = load_upto(gain + v * hidden + b * W, n) * load_upto(da + v * hidden + b * W, n);
      sum = sum + g;
      weighted = fma(g, load_upto(normal + v * hidden + b * W, n), weighted);
    }
  const Vec<Real> mean = set1(sum_of(sum) / Real(G * hidden)), weight = set1(sum_of(weighted) / Real(G * hidden));
  for (size_t b = 0; b < blocks; ++b) {
    const int n = lanes_of<Real>(b, hidden);
    Vec<Real> d[G];
    for (size_t v = 0; v < size_t(G); ++v) {
      Vec<Real> g = load_upto(gain + v * hidden + b * W, n) * load_upto(da + v * hidden + b * W, n);
      d[v] = centred(fnma(load_upto(normal + v * hidden + b * W, n), weight, g), mean, n) * set1(inverse);
    }
    store_gradients(dg, panel, d, b, hidden, panel_stride);
  }
}

// The arguments of units u to u + n from the tape, and the cell's values but for o.
template <class Cell, class Real>
QG_OUTLINE void load_gates(const BackwardRow<Real>& row, size_t u, int n, const CellOptions<Real>* options,
                           Vec<Real> (&a)[Cell::kGates], typename Cell::Values& cell) {
  const typename Cell::Peephole* const taped = nullptr;  // the arguments of the gates have their peepholes already
  for (int v = 0; v < Cell::kGates; ++v) a[v] = load_upto(row.gates + Cell::tape_at(v, u, n), n);
  Cell::forward(cell, a, load_upto(row.c_prev + u, n), options, taped);
}

template <class Cell, class Real>
QG_INLINE void normalise_rows_backward(const NormBackwardStep<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth, G = Cell::kGates, O = Cell::kOutputGate;
  const size_t H = s.hidden_size, blocks = (H + W - 1) / W;
  const Norm<Real>& norm = *s.norm;
  const CellOptions<Real>* options = s.options;
  Real *cells = s.work, *beside = s.work + blocks * W;  // c_new; its gradient that does not pass the normalisation
  for (size_t r = 0; r < s.n_rows; ++r) {
    const BackwardRow<Real>& row = s.rows[r];
    const NormBackwardRow<Real>& to = s.norm_rows[r];
    const BackwardExtra<Real>* extra = s.extra ? s.extra + r : nullptr;
    typename Cell::Peephole loaded;
    Vec<Real> a[G], da[G], direct;
    typename Cell::Values cell;
    for (size_t b = 0; b < blocks; ++b) {
      load_gates<Cell>(row, b * W, lanes_of<Real>(b, H), options, a, cell);
      store(cells + b * W, cell.c_new);
    }
    const Moments<Real> c = unit_moments(cells, H, norm.epsilon);
    Vec<Real> sum = zero<Real>(), weighted = zero<Real>();
    for (size_t b = 0; b < blocks; ++b) {
      const size_t u = b * W;
      const int n = lanes_of<Real>(b, H);
      const Vec<Real> gain = load_upto(norm.gain_c + u, n);
      Vec<Real> normal = centred(load(cells + u), set1(c.mean), n) * set1(c.inverse);
      Vec<Real> v = fma(gain, normal, load_upto(norm.bias_c + u, n));
      Vec<Real> d_c = Cell::zoneout_c_backward(load_upto(row.dc + u, n), extra, u, n, direct), d_v = zero<Real>();
      a[O] = load_upto(row.gates + Cell::tape_at(O, u, n), n);
      cell.c_new = norm.replaces_cell ? v : load(cells + u);
      if (extra && extra->c_new) store_upto(extra->c_new + u, cell.c_new, n);
      cell.o = Cell::gate(a[O], options);
      Cell::output_backward(cell, v, load_upto(to.dm + u, n), d_v, d_c, da, a, options,
                            Cell::load_peephole(loaded, s.peephole, H, u, n));
      if (norm.replaces_cell) {
        d_v = d_v + d_c;
        d_c = zero<Real>();
        if (extra && extra->dc_total) store_upto(extra->dc_total + u, d_v + direct, n);
      }
      Vec<Real> g = gain * d_v;
      sum = sum + g;
      weighted = fma(g, normal, weighted);
      store(cells + u, g);
      store(beside + u, d_c);
      store_upto(to.dv + u, d_v, n);
      store_upto(to.normal_c + u, normal, n);
      store_upto(to.da + O * H + u, da[O], n);
      store_upto(row.dc + u, direct, n);
    }
    const Vec<Real> mean = set1(sum_of(sum) / Real(H)), weight = set1(sum_of(weighted) / Real(H));
    for (size_t b = 0; b < blocks; ++b) {
      const size_t u = b * W;
      const int n = lanes_of<Real>(b, H);
      Vec<Real> d = fnma(load_upto(to.normal_c + u, n), weight, load(cells + u)) - mean;
      d = fma(d, set1(c.inverse), load(beside + u));
      direct = load_upto(row.dc + u, n);
      if (extra && extra->dc_total && !norm.replaces_cell) store_upto(extra->dc_total + u, d + direct, n);
      load_gates<Cell>(row, u, n, options, a, cell);
      Vec<Real> dc = Cell::backward(cell, load_upto(row.c_prev + u, n), d, da, a, options,
                                    Cell::load_peephole(loaded, s.peephole, H, u, n));
      store_upto(row.dc + u, dc + direct, n);
      for (size_t v = 0; v < O; ++v) store_upto(to.da + v * H + u, da[v], n);
    }
    product_backward<G>(to.da, norm.gain_ih, to.normal_ih, to.inverse[0], H, to.dg_ih, to.ih_panel, s.panel_stride);
    product_backward<G>(to.da, norm.gain_hh, to.normal_hh, to.inverse[1], H, to.dg_hh, to.hh_panel, s.panel_stride);
  }
}

template <class Cell>
void normalised_backward(const NormBackwardStep<float>& s) {
  normalise_rows_backward<Cell>(s);
}
template <class Cell>
QG_SMALL void normalised_backward(const NormBackwardStep<double>& s) {
  normalise_rows_backward<Cell>(s);
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
