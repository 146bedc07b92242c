// The LSTM cell on vectors: its arithmetic forward and backward, its tape, and both on the row of a step.
//
//   i = s(a_i + p_i c')   f = s(a_f + p_f c')   g = t(a_g)   c_new = f c' + i g
//   o = s(a_o + p_o c_new)    m = o u(c_new)
//
// The plain cell has s = sigmoid, t = u = tanh and no p, so that c = c_new and h = m (Hochreiter & Schmidhuber 1997
// with the forget gate of Gers, Schmidhuber & Cummins 2000). Cells with options (kernels/steps.h) are the same code:
// where the plain cell is compiled, `options`, `peephole` and `extra` are constants null, and branches on them are
// resolved at compile time.
#pragma once

#include "cells/pointwise.h"

namespace quadgate {
namespace QG_ISA {

template <class Real>
struct Lstm : CellConstants<CellType::lstm> {
  using CellConstants<CellType::lstm>::kGates;
  using Options = CellOptions<Real>;
  // Compiled for null options too; and in two parts, see forward_state.
  static constexpr bool kPlain = true, kTwoParts = true;
  static constexpr int kOutputGate = 3;

  struct Values {
    Vec<Real> i, f, g, o, c_new;
  };

  // Diagonal weights of a vector of units.
  struct Peephole {
    Vec<Real> i, f, o;
  };
  static QG_INLINE const Peephole* load_peephole(Peephole& to, const Real* from, size_t hidden, size_t u, int n) {
    if (!from) return nullptr;
    to = {load_upto(from + u, n), load_upto(from + hidden + u, n), load_upto(from + 2 * hidden + u, n)};
    return &to;
  }

  // ---- forward ----

  static QG_INLINE Vec<Real> gate(Vec<Real> a, const Options* options) {
    return options ? activate(options->gate, clip(a, options->gate_clip)) : sigmoid(a);
  }

  // i, f, g and c_new. Leaves the gates' whole arguments, peepholes included, in `a`.
  static QG_INLINE void forward(Values& s, Vec<Real> (&a)[kGates], Vec<Real> c_prev, const Options* options,
                                const Peephole* peephole) {
    if (peephole) {
      a[0] = fma(peephole->i, c_prev, a[0]);
      a[1] = fma(peephole->f, c_prev, a[1]);
    }
    s.i = gate(a[0], options);
    s.f = options && options->coupled ? set1(Real(1)) - s.i : gate(a[1], options);
    s.g = options ? activate(options->cell, clip(a[2], options->gate_clip)) : tanh(a[2]);
    s.c_new = fma(s.f, c_prev, s.i * s.g);
    if (options) s.c_new = clip(s.c_new, options->cell_clip);
  }

  // o, from the c_new that layer normalisation may have changed meanwhile. Leaves the whole argument in `a`.
  static QG_INLINE Vec<Real> output_gate(Vec<Real>& a, Vec<Real> c_new, const Options* options,
                                         const Peephole* peephole) {
    if (peephole) a = fma(peephole->o, c_new, a);
    return gate(a, options);
  }

  // u(v), where v is c_new or c_new normalised.
  static QG_INLINE Vec<Real> squash(Vec<Real> v, const Options* options) {
    return options ? activate(options->output, clip(v, options->gate_clip)) : tanh(v);
  }

  // c as the next step gets it.
  static QG_INLINE Vec<Real> zoneout_c(Vec<Real> c_prev, Vec<Real> c_new, const Options* options,
                                       const OutputExtra<Real>* extra, size_t u, int n) {
    const unsigned char* keep = extra ? extra->keep_c : nullptr;
    if (!keep && options->zoneout_c == 0) return c_new;
    return zoneout(c_prev, c_new, keep ? keep + u : nullptr, options->zoneout_c, n);
  }

  // ---- backward ----

  static QG_INLINE Vec<Real> gate_backward(Vec<Real> d, Vec<Real> a, Vec<Real> y, const Options* options) {
    return options ? clipped_slope(options->gate, d, a, y, options->gate_clip) : d * fnma(y, y, y);
  }

  // From dm to da_o and, added to d_v and d_c, what reaches c_new through u and through o's peephole. `v` is u's
  // argument.
  static QG_INLINE void output_backward(const Values& s, Vec<Real> v, Vec<Real> dm, Vec<Real>& d_v, Vec<Real>& d_c,
                                        Vec<Real> (&da)[kGates], const Vec<Real>* a, const Options* options,
                                        const Peephole* peephole) {
    const Vec<Real> one = set1(Real(1));
    if (!options) {
      Vec<Real> t = tanh(v);
      d_v = fma(dm * s.o, fnma(t, t, one), d_v);
      da[3] = dm * t * fnma(s.o, s.o, s.o);
      return;
    }
    Vec<Real> u = squash(v, options);
    d_v = d_v + clipped_slope(options->output, dm * s.o, v, u, options->gate_clip);
    da[3] = gate_backward(dm * u, a[3], s.o, options);
    if (peephole) d_c = fma(da[3], peephole->o, d_c);
  }

  // With d the whole gradient of c_new:
  //   da_i = d g s'_i    da_f = d c' s'_f    da_g = d i t'    dc' = d f + p_i da_i + p_f da_f
  static QG_INLINE Vec<Real> backward(const Values& s, Vec<Real> c_prev, Vec<Real> d, Vec<Real> (&da)[kGates],
                                      const Vec<Real>* a, const Options* options, const Peephole* peephole) {
    if (!options) {
      da[0] = d * s.g * fnma(s.i, s.i, s.i);
      da[1] = d * c_prev * fnma(s.f, s.f, s.f);
      da[2] = d * s.i * fnma(s.g, s.g, set1(Real(1)));
      return d * s.f;
    }
    Vec<Real> c_new = fma(s.f, c_prev, s.i * s.g);
    d = where_less(set1(options->cell_clip), zero<Real>() - negative_abs(c_new), zero<Real>(), d);
    if (options->coupled) {
      da[0] = gate_backward(d * (s.g - c_prev), a[0], s.i, options);
      da[1] = zero<Real>();
    } else {
      da[0] = gate_backward(d * s.g, a[0], s.i, options);
      da[1] = gate_backward(d * c_prev, a[1], s.f, options);
    }
    da[2] = clipped_slope(options->cell, d * s.i, a[2], s.g, options->gate_clip);
    Vec<Real> dc = d * s.f;
    return peephole ? fma(peephole->i, da[0], fma(peephole->f, da[1], dc)) : dc;
  }

  // Gradient of the pre-zoneout cell, from the next step and from dcells; the share of the cell that zoneout kept is
  // left in `direct`.
  static QG_INLINE Vec<Real> zoneout_c_backward(Vec<Real> dc, const BackwardExtra<Real>* extra, size_t u, int n,
                                                Vec<Real>& direct) {
    direct = zero<Real>();
    if (!extra) return dc;
    if (extra->dcell) dc = dc + load_upto(extra->dcell + u, n);
    if (!extra->keep_c) return dc;
    const Vec<Real> keep = load_flags<Real>(extra->keep_c + u, n), none = zero<Real>();
    direct = where_less(none, keep, dc, none);
    return where_less(none, keep, none, dc);
  }

  // ---- tape: the activated gates of a plain cell, the gates' arguments of one with options ----

  // The place of a gate of n units from u on, see layouts.h.
  static QG_INLINE size_t tape_at(size_t gate, size_t u, int n) {
    constexpr int W = Vec<Real>::kWidth;
    return kGates * u + gate * size_t(n < W ? n : W);
  }

  // Writes past the caches where the tape is large.
  static QG_INLINE void store_tape(const CellStep<Real>& step, const ForwardRow<Real>& row, size_t gate,
                                   Vec<Real> value, size_t u, int n) {
    Real* to = row.gates + tape_at(gate, u, n);
    if (step.large_tape)
      stream_upto(to, value, n);
    else
      store_upto(to, value, n);
  }

  // The gates' values from the tape. `a` gets the gates' arguments, which have their peepholes already, of a cell with
  // options.
  static QG_INLINE void load_tape(Values& s, Vec<Real> (&a)[kGates], const BackwardRow<Real>& row, Vec<Real> c_prev,
                                  size_t u, int n, const Options* options) {
    for (int v = 0; v < kGates; ++v) a[v] = load_upto(row.gates + tape_at(v, u, n), n);
    if (options) {
      forward(s, a, c_prev, options, static_cast<const Peephole*>(nullptr));
      s.o = gate(a[kOutputGate], options);
    } else {
      s = {a[0], a[1], a[2], a[3], load_upto(row.c + u, n)};
    }
  }

  // Prefetches the tape lines of this row's n blocks, which have left the caches since the forward pass.
  static QG_INLINE void prefetch_tape(const BackwardRow<Real>& row, size_t block, int n) {
    constexpr size_t kBlock = kTaped * Vec<Real>::kWidth, kLine = 64 / sizeof(Real);
    const Real* const dy = row.dy ? row.dy : row.c;
    for (size_t u = block * Vec<Real>::kWidth; n > 0; --n, u += Vec<Real>::kWidth) {
      for (size_t at = 0; at < kBlock; at += kLine) __builtin_prefetch(row.gates + kTaped * u + at, 0, 2);
      __builtin_prefetch(row.c + u, 0, 2);
      __builtin_prefetch(row.c_prev + u, 0, 2);
      __builtin_prefetch(dy + u, 0, 2);
    }
  }

  // ---- rows ----

  // The cell in two parts. One after the other they are a chain of two activations, some 140 cycles, and the scheduler
  // is too small to hold more than one and a half rows of it; a tile does the first part of all its rows, then the
  // second. o belongs to the second, and is computed while tanh(c_new) is waited for.
  //
  // First part: to c_new, from the sums of i, f and g.
  static QG_INLINE Vec<Real> forward_state(const CellStep<Real>& step, const ForwardRow<Real>& row,
                                           Vec<Real> (&a)[kGates], size_t block, const Options* options,
                                           const OutputExtra<Real>* extra) {
    const size_t hidden = step.hidden_size;
    size_t u = block * Vec<Real>::kWidth;
    int n = lanes_of<Real>(block, hidden);
    Vec<Real> c_prev = load_upto(row.c_prev + u, n);
    Values s;
    Peephole loaded;
    forward(s, a, c_prev, options, options ? load_peephole(loaded, step.peephole, hidden, u, n) : nullptr);
    store_upto(row.c + u, options ? zoneout_c(c_prev, s.c_new, options, extra, u, n) : s.c_new, n);
    if (row.gates) {
      store_tape(step, row, 0, options ? a[0] : s.i, u, n);
      store_tape(step, row, 1, options ? a[1] : s.f, u, n);
      store_tape(step, row, 2, options ? a[2] : s.g, u, n);
    }
    return s.c_new;
  }

  // Second part: to h, from c_new and the sum of o.
  static QG_INLINE void forward_output(const CellStep<Real>& step, const ForwardRow<Real>& row, Vec<Real> a,
                                       Vec<Real> c_new, size_t block, const Options* options,
                                       const OutputExtra<Real>* extra) {
    const size_t hidden = step.hidden_size;
    size_t u = block * Vec<Real>::kWidth;
    int n = lanes_of<Real>(block, hidden);
    Peephole loaded;
    Vec<Real> o =
        output_gate(a, c_new, options, options ? load_peephole(loaded, step.peephole, hidden, u, n) : nullptr);
    if (row.gates) store_tape(step, row, kOutputGate, options ? a : o, u, n);
    store_h(row.y, row.y_copy, o * squash(c_new, options), options ? options->zoneout_h : Real(0), extra, u, n);
  }

  static QG_INLINE void backward_row(const BackwardStep<Real>& step, const BackwardRow<Real>& row, Vec<Real> dh,
                                     size_t block, const Options* options, const BackwardExtra<Real>* extra) {
    const size_t hidden = step.hidden_size, u = block * Vec<Real>::kWidth;
    int n = lanes_of<Real>(block, hidden);
    dh = complete_dh(dh, row.dh, row.dy, extra, u, n);
    Vec<Real> a[kGates], da[kGates], direct = zero<Real>();
    Vec<Real> c_prev = load_upto(row.c_prev + u, n), d = load_upto(row.dc + u, n);
    Values s;
    load_tape(s, a, row, c_prev, u, n, options);
    Peephole loaded;
    const Peephole* peephole = options ? load_peephole(loaded, step.peephole, hidden, u, n) : nullptr;
    d = zoneout_c_backward(d, extra, u, n, direct);
    output_backward(s, s.c_new, dh, d, d, da, a, options, peephole);
    if (extra && extra->c_new) store_upto(extra->c_new + u, s.c_new, n);
    if (extra && extra->dc_total) store_upto(extra->dc_total + u, d + direct, n);
    Vec<Real> dc = backward(s, c_prev, d, da, a, options, peephole);
    store_upto(row.dc + u, extra ? dc + direct : dc, n);
    store_gradients(row.dg, row.dg_panel, da, block, hidden, step.panel_stride);
  }
};

}  // namespace QG_ISA
}  // namespace quadgate
