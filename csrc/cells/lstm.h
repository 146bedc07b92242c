// The cell's pointwise arithmetic on vectors: forward and, below it, its derivative.
//
//   i = s(a_i + p_i c')   f = s(a_f + p_f c')   g = t(a_g)   n = f c' + i g
//   o = s(a_o + p_o n)    m = o u(n)
//
// The plain cell has s = sigmoid, t = u = tanh and no p, so that c = n and h = m (Hochreiter & Schmidhuber 1997 with
// the forget gate of Gers, Schmidhuber & Cummins 2000). The others (kernels.h) are the same code: `kind` is the
// constant null where the plain cell is compiled, and every question about it is answered by the compiler.
#pragma once

#include "kernels/math.h"
#include "kernels/steps.h"

namespace quadgate {
namespace QG_ISA {

template <class Real>
struct Cell {
  Vec<Real> i, f, g, o, n;
};

// Diagonal weights of a vector of units, zero where there are none.
template <class Real>
struct Peephole {
  Vec<Real> i, f, o;
};

// Rather than min and max by themselves: keeps NaN.
template <class Real>
QG_INLINE Vec<Real> clip(Vec<Real> x, Real most) {
  return max(set1(-most), min(set1(most), x));
}

template <class Real>
QG_INLINE Vec<Real> gate_forward(const CellKind<Real>* kind, Vec<Real> a) {
  return kind ? activate(kind->gate, clip(a, kind->gate_clip)) : sigmoid(a);
}

// i, f, g and n. Leaves the gates' whole arguments, peepholes included, in `a`.
template <class Real>
QG_INLINE void cell_forward(Cell<Real>& s, Vec<Real> (&a)[4], Vec<Real> c_prev, const CellKind<Real>* kind,
                            const Peephole<Real>* p) {
  if (p) {
    a[0] = fma(p->i, c_prev, a[0]);
    a[1] = fma(p->f, c_prev, a[1]);
  }
  s.i = gate_forward(kind, a[0]);
  s.f = kind && kind->coupled ? set1(Real(1)) - s.i : gate_forward(kind, a[1]);
  s.g = kind ? activate(kind->cell, clip(a[2], kind->gate_clip)) : tanh(a[2]);
  s.n = fma(s.f, c_prev, s.i * s.g);
  if (kind) s.n = clip(s.n, kind->cell_clip);
}

// o, from the n that a carried normalisation may have changed meanwhile. Leaves the whole argument in `a`.
template <class Real>
QG_INLINE Vec<Real> output_gate_forward(Vec<Real>& a, Vec<Real> n, const CellKind<Real>* kind,
                                        const Peephole<Real>* p) {
  if (p) a = fma(p->o, n, a);
  return gate_forward(kind, a);
}

// u(v), where v is n or n normalised.
template <class Real>
QG_INLINE Vec<Real> squash(Vec<Real> v, const CellKind<Real>* kind) {
  return kind ? activate(kind->output, clip(v, kind->gate_clip)) : tanh(v);
}

// old where the row keeps it, by the mask or, without one, by expectation.
template <class Real>
QG_INLINE Vec<Real> zoneout(Vec<Real> old, Vec<Real> fresh, const unsigned char* keep, Real rate, int n) {
  if (keep) return where_less(zero<Real>(), load_flags<Real>(keep, n), old, fresh);
  return fma(set1(rate), old, set1(Real(1) - rate) * fresh);
}

// ---- backward ----

// da = d s'(clip(a)), nothing past the clip; y = s(clip(a)).
template <class Real>
QG_INLINE Vec<Real> clipped_slope(const Activation<Real>& f, Vec<Real> d, Vec<Real> a, Vec<Real> y, Real most) {
  return where_less(set1(most), zero<Real>() - negative_abs(a), zero<Real>(), d * slope(f, clip(a, most), y));
}

template <class Real>
QG_INLINE Vec<Real> gate_backward(const CellKind<Real>* kind, Vec<Real> d, Vec<Real> a, Vec<Real> y) {
  return kind ? clipped_slope(kind->gate, d, a, y, kind->gate_clip) : d * fnma(y, y, y);
}

// From dm to da_o and, added to d, what reaches n through o and u. `v` is what u was taken of.
template <class Real>
QG_INLINE void output_gate_backward(const Cell<Real>& s, Vec<Real> v, Vec<Real> dm, Vec<Real>& d_v, Vec<Real>& d_n,
                                    Vec<Real> (&da)[4], const Vec<Real>* a, const CellKind<Real>* kind,
                                    const Peephole<Real>* p) {
  const Vec<Real> one = set1(Real(1));
  if (!kind) {
    Vec<Real> t = tanh(v);
    d_v = fma(dm * s.o, fnma(t, t, one), d_v);
    da[3] = dm * t * fnma(s.o, s.o, s.o);
    return;
  }
  Vec<Real> u = squash(v, kind);
  d_v = d_v + clipped_slope(kind->output, dm * s.o, v, u, kind->gate_clip);
  da[3] = gate_backward(kind, dm * u, a[3], s.o);
  if (p) d_n = fma(da[3], p->o, d_n);
}

// With d the whole gradient of n:
//   da_i = d g s'_i    da_f = d c' s'_f    da_g = d i t'    dc' = d f + p_i da_i + p_f da_f
template <class Real>
QG_INLINE Vec<Real> cell_backward(const Cell<Real>& s, Vec<Real> c_prev, Vec<Real> d, Vec<Real> (&da)[4],
                                  const Vec<Real>* a, const CellKind<Real>* kind, const Peephole<Real>* p) {
  if (!kind) {
    da[0] = d * s.g * fnma(s.i, s.i, s.i);
    da[1] = d * c_prev * fnma(s.f, s.f, s.f);
    da[2] = d * s.i * fnma(s.g, s.g, set1(Real(1)));
    return d * s.f;
  }
  Vec<Real> n = fma(s.f, c_prev, s.i * s.g);
  d = where_less(set1(kind->cell_clip), zero<Real>() - negative_abs(n), zero<Real>(), d);
  if (kind->coupled) {
    da[0] = gate_backward(kind, d * (s.g - c_prev), a[0], s.i);
    da[1] = zero<Real>();
  } else {
    da[0] = gate_backward(kind, d * s.g, a[0], s.i);
    da[1] = gate_backward(kind, d * c_prev, a[1], s.f);
  }
  da[2] = clipped_slope(kind->cell, d * s.i, a[2], s.g, kind->gate_clip);
  Vec<Real> dc = d * s.f;
  return p ? fma(p->i, da[0], fma(p->f, da[1], dc)) : dc;
}

}  // namespace QG_ISA
}  // namespace quadgate
