// x86-64 with nothing but SSE2: 4 floats, 16 registers, no fused multiply-add. vec.h has the meaning of every function.
#pragma once

#include "kernels/vec/common.h"

namespace quadgate {
namespace QG_ISA {

constexpr int kMaxRows = 2, kMostRows = kMaxRows, kRegisters = 16;
// Old machines, for which a small wheel counts for more than their speed: fewer copies of the plain cell.
constexpr bool kSmallKernels = true;

constexpr size_t ahead_from(int, int, int, size_t) { return kNever; }
template <class Real>
constexpr bool kCopyColumns = false;
template <class Real>
constexpr bool kHalfLines = false;

template <>
struct Vec<float> {
  using Real = float;
  static constexpr int kWidth = 4;
  __m128 v;
};
template <>
struct Vec<double> {
  using Real = double;
  static constexpr int kWidth = 2;
  __m128d v;
};

using VF = Vec<float>;
using VD = Vec<double>;

QG_INLINE VF load(const float* p) { return {_mm_loadu_ps(p)}; }
QG_INLINE VD load(const double* p) { return {_mm_loadu_pd(p)}; }
QG_INLINE VF load_n(const float* p, int n) {
  return {_mm_setr_ps(p[0], n > 1 ? p[1] : 0.0f, n > 2 ? p[2] : 0.0f, 0.0f)};
}
QG_INLINE VD load_n(const double* p, int) { return {_mm_load_sd(p)}; }
QG_INLINE void store(float* p, VF a) { _mm_storeu_ps(p, a.v); }
QG_INLINE void store(double* p, VD a) { _mm_storeu_pd(p, a.v); }
QG_INLINE void stream(float* p, VF a) { _mm_stream_ps(p, a.v); }
QG_INLINE void stream(double* p, VD a) { _mm_stream_pd(p, a.v); }
QG_INLINE void stream_end() { _mm_sfence(); }
QG_INLINE void store_n(float* p, VF a, int n) {
  _mm_store_ss(p, a.v);
  if (n > 1) _mm_store_ss(p + 1, _mm_shuffle_ps(a.v, a.v, 1));
  if (n > 2) _mm_store_ss(p + 2, _mm_shuffle_ps(a.v, a.v, 2));
}
QG_INLINE void store_n(double* p, VD a, int) { _mm_store_sd(p, a.v); }
QG_INLINE VF set1(float s) { return {_mm_set1_ps(s)}; }
QG_INLINE VD set1(double s) { return {_mm_set1_pd(s)}; }
QG_INLINE VF operator+(VF a, VF b) { return {_mm_add_ps(a.v, b.v)}; }
QG_INLINE VD operator+(VD a, VD b) { return {_mm_add_pd(a.v, b.v)}; }
QG_INLINE VF operator-(VF a, VF b) { return {_mm_sub_ps(a.v, b.v)}; }
QG_INLINE VD operator-(VD a, VD b) { return {_mm_sub_pd(a.v, b.v)}; }
QG_INLINE VF operator*(VF a, VF b) { return {_mm_mul_ps(a.v, b.v)}; }
QG_INLINE VD operator*(VD a, VD b) { return {_mm_mul_pd(a.v, b.v)}; }
QG_INLINE VF operator/(VF a, VF b) { return {_mm_div_ps(a.v, b.v)}; }
QG_INLINE VD operator/(VD a, VD b) { return {_mm_div_pd(a.v, b.v)}; }
QG_INLINE VF root(VF a) { return {_mm_sqrt_ps(a.v)}; }
QG_INLINE VD root(VD a) { return {_mm_sqrt_pd(a.v)}; }
QG_INLINE VF fma(VF a, VF b, VF c) { return a * b + c; }
QG_INLINE VD fma(VD a, VD b, VD c) { return a * b + c; }
QG_INLINE VF fnma(VF a, VF b, VF c) { return c - a * b; }
QG_INLINE VD fnma(VD a, VD b, VD c) { return c - a * b; }
QG_INLINE VF min(VF a, VF b) { return {_mm_min_ps(a.v, b.v)}; }
QG_INLINE VD min(VD a, VD b) { return {_mm_min_pd(a.v, b.v)}; }
QG_INLINE VF max(VF a, VF b) { return {_mm_max_ps(a.v, b.v)}; }
QG_INLINE VD max(VD a, VD b) { return {_mm_max_pd(a.v, b.v)}; }
QG_INLINE VF negative_abs(VF a) { return {_mm_or_ps(a.v, _mm_set1_ps(-0.0f))}; }
QG_INLINE VD negative_abs(VD a) { return {_mm_or_pd(a.v, _mm_set1_pd(-0.0))}; }
QG_INLINE VF with_sign(VF a, VF b) { return {_mm_or_ps(a.v, _mm_and_ps(b.v, _mm_set1_ps(-0.0f)))}; }
QG_INLINE VD with_sign(VD a, VD b) { return {_mm_or_pd(a.v, _mm_and_pd(b.v, _mm_set1_pd(-0.0)))}; }
QG_INLINE VF to_exponent(VF a) { return {_mm_castsi128_ps(_mm_slli_epi32(_mm_castps_si128(a.v), 23))}; }
QG_INLINE VD to_exponent(VD a) { return {_mm_castsi128_pd(_mm_slli_epi64(_mm_castpd_si128(a.v), 52))}; }
QG_INLINE VF numbers(const unsigned char* p, VF) { return {_mm_setr_ps(p[0], p[1], p[2], p[3])}; }
QG_INLINE VD numbers(const unsigned char* p, VD) { return {_mm_setr_pd(p[0], p[1])}; }
QG_INLINE VF where_less(VF a, VF b, VF yes, VF no) {
  __m128 m = _mm_cmplt_ps(a.v, b.v);
  return {_mm_or_ps(_mm_and_ps(m, yes.v), _mm_andnot_ps(m, no.v))};
}
QG_INLINE VD where_less(VD a, VD b, VD yes, VD no) {
  __m128d m = _mm_cmplt_pd(a.v, b.v);
  return {_mm_or_pd(_mm_and_pd(m, yes.v), _mm_andnot_pd(m, no.v))};
}

QG_INLINE void interleave(VF a, VF b, VF& low, VF& high) {
  low = {_mm_unpacklo_ps(a.v, b.v)};
  high = {_mm_unpackhi_ps(a.v, b.v)};
}
QG_INLINE void interleave(VD a, VD b, VD& low, VD& high) {
  low = {_mm_unpacklo_pd(a.v, b.v)};
  high = {_mm_unpackhi_pd(a.v, b.v)};
}
QG_INLINE VF upper_half(VF a) { return {_mm_movehl_ps(a.v, a.v)}; }
QG_INLINE VD upper_half(VD a) { return {_mm_unpackhi_pd(a.v, a.v)}; }
}  // namespace QG_ISA
}  // namespace quadgate
