// The cell's pointwise arithmetic on vectors: forward and, below it, its derivative.
//
//   i = sigmoid(a_i)   f = sigmoid(a_f)   g = tanh(a_g)   o = sigmoid(a_o)
//   c = f c' + i g     h = o tanh(c)
//
// (Hochreiter & Schmidhuber 1997 with the forget gate of Gers, Schmidhuber & Cummins 2000.)
#pragma once

#include "math.h"

namespace fourgate {
namespace FG_ISA {

template <class T>
struct Cell {
  Vec<T> i, f, g, o, c;
};

// All but h: see finish_cell for why h comes later.
template <class T>
FG_INLINE Cell<T> cell_forward(const Vec<T> (&a)[4], Vec<T> c_prev) {
  Cell<T> s;
  s.i = sigmoid(a[0]);
  s.f = sigmoid(a[1]);
  s.g = tanh(a[2]);
  s.o = sigmoid(a[3]);
  s.c = fma(s.f, c_prev, s.i * s.g);
  return s;
}

template <class T>
FG_INLINE Vec<T> cell_output(Vec<T> o, Vec<T> c) {
  return o * tanh(c);
}

// With t = tanh(c) and D = dL/dc as seen through both c and h:
//   D    = dc + dh o (1 - t^2)
//   da_i = D g i (1 - i)    da_f = D c' f (1 - f)    da_g = D i (1 - g^2)    da_o = dh t o (1 - o)    dc' = D f
// `dc` is replaced by dc'.
template <class T>
FG_INLINE void cell_backward(const Cell<T>& s, Vec<T> c_prev, Vec<T> dh, Vec<T>& dc, Vec<T> (&da)[4]) {
  const Vec<T> one = set1(T(1));
  Vec<T> t = tanh(s.c);
  Vec<T> d = fma(dh * s.o, fnma(t, t, one), dc);
  da[0] = d * s.g * fnma(s.i, s.i, s.i);
  da[1] = d * c_prev * fnma(s.f, s.f, s.f);
  da[2] = d * s.i * fnma(s.g, s.g, one);
  da[3] = dh * t * fnma(s.o, s.o, s.o);
  dc = d * s.f;
}

}  // namespace FG_ISA
}  // namespace fourgate
