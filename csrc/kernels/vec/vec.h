// The SIMD vocabulary of the kernels: one file per instruction set, chosen by QG_ISA_*.
//
// A kernel sees `Vec<Real>` (Real = float or double), its `kWidth` lanes, and the functions below. Loads and stores
// need no alignment. `load_n(p, n)` reads the first n < kWidth lanes (the others become 0) and touches no byte beyond
// them; `store_n` likewise. `stream` writes past the caches, to aligned addresses. `min(a, b)` and `max(a, b)` return b
// when either is NaN.
//
// Everything lives in a namespace of the instruction set, and nothing here comes from the standard library: two
// files compiled for different machines must never share an inline function (the linker would keep one for all).
#pragma once

#if defined(QG_ISA_AVX512)
#include "kernels/vec/avx512.h"
#elif defined(QG_ISA_AVX2)
#include "kernels/vec/avx2.h"
#elif defined(QG_ISA_NEON)
#include "kernels/vec/neon.h"
#elif defined(QG_ISA_BASELINE)
#include "kernels/vec/baseline.h"
#else
#error "no SIMD vocabulary for this QG_ISA: add its file here"
#endif

namespace quadgate {
namespace QG_ISA {

template <class Real>
QG_INLINE Vec<Real> zero() {
  return set1(Real(0));
}
// The lanes of a block that n elements fill; the last block may be partial.
template <class Real>
QG_INLINE int lanes_of(size_t block, size_t n) {
  constexpr size_t W = Vec<Real>::kWidth;
  size_t left = n - block * W;
  return int(left < W ? left : W);
}
// The first n lanes, n <= kWidth: a whole vector takes the unmasked path.
template <class Real>
QG_INLINE Vec<Real> load_upto(const Real* p, int n) {
  return n >= Vec<Real>::kWidth ? load(p) : load_n(p, n);
}
template <class Real>
QG_INLINE void store_upto(Real* p, Vec<Real> a, int n) {
  if (n >= Vec<Real>::kWidth)
    store(p, a);
  else
    store_n(p, a, n);
}
// The first n <= kWidth flags; the other lanes become 0.
template <class Real>
QG_INLINE Vec<Real> load_flags(const unsigned char* p, int n) {
  constexpr int W = Vec<Real>::kWidth;
  if (n >= W) return numbers(p, Vec<Real>());
  unsigned char t[W] = {};
  for (int i = 0; i < n; ++i) t[i] = p[i];
  return numbers(t, Vec<Real>());
}
// The sum of all lanes; each width has its own order.
template <class Real>
QG_INLINE Real sum_of(Vec<Real> a) {
  Real t[Vec<Real>::kWidth];
  store(t, a);
  for (int half = Vec<Real>::kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) t[i] += t[i + half];
  return t[0];
}
QG_INLINE float root(float x) { return __builtin_sqrtf(x); }
QG_INLINE double root(double x) { return __builtin_sqrt(x); }
// Stores past the caches if the address allows it, for data that is not read again soon. Other threads may see it only
// after stream_end().
template <class Real>
QG_INLINE void stream_upto(Real* p, Vec<Real> a, int n) {
  if (n >= Vec<Real>::kWidth && reinterpret_cast<uintptr_t>(p) % sizeof(Vec<Real>) == 0)
    stream(p, a);
  else
    store_upto(p, a, n);
}

}  // namespace QG_ISA
}  // namespace quadgate
