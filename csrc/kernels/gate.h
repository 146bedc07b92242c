// The cell's pointwise arithmetic on vectors: forward and, below it, its derivative.
//
//   i = s(a_i + p_i c')   f = s(a_f + p_f c')   g = t(a_g)   n = f c' + i g
//   o = s(a_o + p_o n)    m = o u(n)
//
// The plain cell has s = sigmoid, t = u = tanh and no p, so that c = n and h = m (Hochreiter & Schmidhuber 1997 with
// the forget gate of Gers, Schmidhuber & Cummins 2000). The others (kernels.h) are the same code: `kind` is the
// constant null where the plain cell is compiled, and every question about it is answered by the compiler.
#pragma once

#include "kernels.h"
#include "math.h"

namespace quadgate {
namespace QG_ISA {

template <class T>
struct Cell {
  Vec<T> i, f, g, o, n;
};

// Diagonal weights of a vector of units, zero where there are none.
template <class T>
struct Peephole {
  Vec<T> i, f, o;
};

// Rather than min and max by themselves: keeps NaN.
template <class T>
QG_INLINE Vec<T> clip(Vec<T> x, T most) {
  return max(set1(-most), min(set1(most), x));
}

template <class T>
QG_INLINE Vec<T> gate_forward(const CellKind<T>* kind, Vec<T> a) {
  return kind ? activate(kind->gate, clip(a, kind->gate_clip)) : sigmoid(a);
}

// i, f, g and n. Leaves the gates' whole arguments, peepholes included, in `a`.
template <class T>
QG_INLINE void cell_forward(Cell<T>& s, Vec<T> (&a)[4], Vec<T> c_prev, const CellKind<T>* kind, const Peephole<T>* p) {
  if (p) {
    a[0] = fma(p->i, c_prev, a[0]);
    a[1] = fma(p->f, c_prev, a[1]);
  }
  s.i = gate_forward(kind, a[0]);
  s.f = kind && kind->coupled ? set1(T(1)) - s.i : gate_forward(kind, a[1]);
  s.g = kind ? activate(kind->cell, clip(a[2], kind->gate_clip)) : tanh(a[2]);
  s.n = fma(s.f, c_prev, s.i * s.g);
  if (kind) s.n = clip(s.n, kind->cell_clip);
}

// o, from the n that a carried normalisation may have changed meanwhile. Leaves the whole argument in `a`.
template <class T>
QG_INLINE Vec<T> output_gate_forward(Vec<T>& a, Vec<T> n, const CellKind<T>* kind, const Peephole<T>* p) {
  if (p) a = fma(p->o, n, a);
  return gate_forward(kind, a);
}

// u(v), where v is n or n normalised.
template <class T>
QG_INLINE Vec<T> squash(Vec<T> v, const CellKind<T>* kind) {
  return kind ? activate(kind->output, clip(v, kind->gate_clip)) : tanh(v);
}

// old where the row keeps it, by the mask or, without one, by expectation.
template <class T>
QG_INLINE Vec<T> zoneout(Vec<T> old, Vec<T> fresh, const unsigned char* keep, T rate, int n) {
  if (keep) return where_less(zero<T>(), load_flags<T>(keep, n), old, fresh);
  return fma(set1(rate), old, set1(T(1) - rate) * fresh);
}

// ---- backward ----

// da = d s'(clip(a)), nothing past the clip; y = s(clip(a)).
template <class T>
QG_INLINE Vec<T> clipped_slope(const Activation<T>& f, Vec<T> d, Vec<T> a, Vec<T> y, T most) {
  return where_less(set1(most), zero<T>() - negative_abs(a), zero<T>(), d * slope(f, clip(a, most), y));
}

template <class T>
QG_INLINE Vec<T> gate_backward(const CellKind<T>* kind, Vec<T> d, Vec<T> a, Vec<T> y) {
  return kind ? clipped_slope(kind->gate, d, a, y, kind->gate_clip) : d * fnma(y, y, y);
}

// From dm to da_o and, added to d, what reaches n through o and u. `v` is what u was taken of.
template <class T>
QG_INLINE void output_gate_backward(const Cell<T>& s, Vec<T> v, Vec<T> dm, Vec<T>& d_v, Vec<T>& d_n, Vec<T> (&da)[4],
                                    const Vec<T>* a, const CellKind<T>* kind, const Peephole<T>* p) {
  const Vec<T> one = set1(T(1));
  if (!kind) {
    Vec<T> t = tanh(v);
    d_v = fma(dm * s.o, fnma(t, t, one), d_v);
    da[3] = dm * t * fnma(s.o, s.o, s.o);
    return;
  }
  Vec<T> u = squash(v, kind);
  d_v = d_v + clipped_slope(kind->output, dm * s.o, v, u, kind->gate_clip);
  da[3] = gate_backward(kind, dm * u, a[3], s.o);
  if (p) d_n = fma(da[3], p->o, d_n);
}

// With d the whole gradient of n:
//   da_i = d g s'_i    da_f = d c' s'_f    da_g = d i t'    dc' = d f + p_i da_i + p_f da_f
template <class T>
QG_INLINE Vec<T> cell_backward(const Cell<T>& s, Vec<T> c_prev, Vec<T> d, Vec<T> (&da)[4], const Vec<T>* a,
                               const CellKind<T>* kind, const Peephole<T>* p) {
  if (!kind) {
    da[0] = d * s.g * fnma(s.i, s.i, s.i);
    da[1] = d * c_prev * fnma(s.f, s.f, s.f);
    da[2] = d * s.i * fnma(s.g, s.g, set1(T(1)));
    return d * s.f;
  }
  Vec<T> n = fma(s.f, c_prev, s.i * s.g);
  d = where_less(set1(kind->cell_clip), zero<T>() - negative_abs(n), zero<T>(), d);
  if (kind->coupled) {
    da[0] = gate_backward(kind, d * (s.g - c_prev), a[0], s.i);
    da[1] = zero<T>();
  } else {
    da[0] = gate_backward(kind, d * s.g, a[0], s.i);
    da[1] = gate_backward(kind, d * c_prev, a[1], s.f);
  }
  da[2] = clipped_slope(kind->cell, d * s.i, a[2], s.g, kind->gate_clip);
  Vec<T> dc = d * s.f;
  return p ? fma(p->i, da[0], fma(p->f, da[1], dc)) : dc;
}

}  // namespace QG_ISA
}  // namespace quadgate
