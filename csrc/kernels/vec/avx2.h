// AVX2 with FMA: 8 floats, 16 registers, masked loads and stores. vec.h has the meaning of every function.
#pragma once

#include "kernels/vec/common.h"

namespace quadgate {
namespace QG_ISA {

// 16 registers: 3 rows x 4 vectors of sums, 3 broadcast inputs, 1 vector of weights. Or 6 rows x 2 vectors of sums, 2
// of weights, 1 broadcast input.
constexpr int kMaxRows = 3, kMostRows = kMaxRows, kRegisters = 16;
constexpr bool kSmallKernels = false;

// Near weights are multiplied up to a quarter slower with a prefetch, far ones up to 1.7 times as fast. Measured on
// Zen 3. Of floats alone, since few use doubles.
constexpr size_t ahead_from(int panels, int rows, int vectors, size_t element) {
  if (rows == 1 || element > sizeof(float)) return kNever;
  const int sums = panels * rows * vectors;
  return sums >= 12 ? size_t(3) << 20 : sums >= 8 ? size_t(3) << 21 : kNever;
}
template <class Real>
constexpr bool kCopyColumns = sizeof(Real) == sizeof(float);
template <class Real>
constexpr bool kHalfLines = sizeof(Real) == sizeof(float);

template <>
struct Vec<float> {
  using Real = float;
  static constexpr int kWidth = 8;
  __m256 v;
};
template <>
struct Vec<double> {
  using Real = double;
  static constexpr int kWidth = 4;
  __m256d v;
};

using VF = Vec<float>;
using VD = Vec<double>;

QG_INLINE __m256i lanes32(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
QG_INLINE __m256i lanes64(int n) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)); }
QG_INLINE VF load(const float* p) { return {_mm256_loadu_ps(p)}; }
QG_INLINE VD load(const double* p) { return {_mm256_loadu_pd(p)}; }
QG_INLINE VF load_n(const float* p, int n) { return {_mm256_maskload_ps(p, lanes32(n))}; }
QG_INLINE VD load_n(const double* p, int n) { return {_mm256_maskload_pd(p, lanes64(n))}; }
QG_INLINE void store(float* p, VF a) { _mm256_storeu_ps(p, a.v); }
QG_INLINE void store(double* p, VD a) { _mm256_storeu_pd(p, a.v); }
QG_INLINE void stream(float* p, VF a) { _mm256_stream_ps(p, a.v); }
QG_INLINE void stream(double* p, VD a) { _mm256_stream_pd(p, a.v); }
QG_INLINE void stream_end() { _mm_sfence(); }
QG_INLINE void store_n(float* p, VF a, int n) { _mm256_maskstore_ps(p, lanes32(n), a.v); }
QG_INLINE void store_n(double* p, VD a, int n) { _mm256_maskstore_pd(p, lanes64(n), a.v); }
QG_INLINE VF set1(float s) { return {_mm256_set1_ps(s)}; }
QG_INLINE VD set1(double s) { return {_mm256_set1_pd(s)}; }
QG_INLINE VF operator+(VF a, VF b) { return {_mm256_add_ps(a.v, b.v)}; }
QG_INLINE VD operator+(VD a, VD b) { return {_mm256_add_pd(a.v, b.v)}; }
QG_INLINE VF operator-(VF a, VF b) { return {_mm256_sub_ps(a.v, b.v)}; }
QG_INLINE VD operator-(VD a, VD b) { return {_mm256_sub_pd(a.v, b.v)}; }
QG_INLINE VF operator*(VF a, VF b) { return {_mm256_mul_ps(a.v, b.v)}; }
QG_INLINE VD operator*(VD a, VD b) { return {_mm256_mul_pd(a.v, b.v)}; }
QG_INLINE VF operator/(VF a, VF b) { return {_mm256_div_ps(a.v, b.v)}; }
QG_INLINE VD operator/(VD a, VD b) { return {_mm256_div_pd(a.v, b.v)}; }
QG_INLINE VF root(VF a) { return {_mm256_sqrt_ps(a.v)}; }
QG_INLINE VD root(VD a) { return {_mm256_sqrt_pd(a.v)}; }
QG_INLINE VF fma(VF a, VF b, VF c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
QG_INLINE VD fma(VD a, VD b, VD c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
QG_INLINE VF fnma(VF a, VF b, VF c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
QG_INLINE VD fnma(VD a, VD b, VD c) { return {_mm256_fnmadd_pd(a.v, b.v, c.v)}; }
QG_INLINE VF min(VF a, VF b) { return {_mm256_min_ps(a.v, b.v)}; }
QG_INLINE VD min(VD a, VD b) { return {_mm256_min_pd(a.v, b.v)}; }
QG_INLINE VF max(VF a, VF b) { return {_mm256_max_ps(a.v, b.v)}; }
QG_INLINE VD max(VD a, VD b) { return {_mm256_max_pd(a.v, b.v)}; }
QG_INLINE VF negative_abs(VF a) { return {_mm256_or_ps(a.v, _mm256_set1_ps(-0.0f))}; }
QG_INLINE VD negative_abs(VD a) { return {_mm256_or_pd(a.v, _mm256_set1_pd(-0.0))}; }
QG_INLINE VF with_sign(VF a, VF b) { return {_mm256_or_ps(a.v, _mm256_and_ps(b.v, _mm256_set1_ps(-0.0f)))}; }
QG_INLINE VD with_sign(VD a, VD b) { return {_mm256_or_pd(a.v, _mm256_and_pd(b.v, _mm256_set1_pd(-0.0)))}; }
QG_INLINE VF to_exponent(VF a) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.v), 23))}; }
QG_INLINE VD to_exponent(VD a) { return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a.v), 52))}; }
QG_INLINE VF numbers(const unsigned char* p, VF) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
QG_INLINE VD numbers(const unsigned char* p, VD) {
  return {_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(p[0] | p[1] << 8 | p[2] << 16 | p[3] << 24)))};
}
QG_INLINE VF where_less(VF a, VF b, VF yes, VF no) {
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}
QG_INLINE VD where_less(VD a, VD b, VD yes, VD no) {
  return {_mm256_blendv_pd(no.v, yes.v, _mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ))};
}

QG_INLINE void interleave(VF a, VF b, VF& low, VF& high) {
  const __m256 even = _mm256_unpacklo_ps(a.v, b.v), odd = _mm256_unpackhi_ps(a.v, b.v);
  low = {_mm256_permute2f128_ps(even, odd, 0x20)};
  high = {_mm256_permute2f128_ps(even, odd, 0x31)};
}
QG_INLINE void interleave(VD a, VD b, VD& low, VD& high) {
  const __m256d even = _mm256_unpacklo_pd(a.v, b.v), odd = _mm256_unpackhi_pd(a.v, b.v);
  low = {_mm256_permute2f128_pd(even, odd, 0x20)};
  high = {_mm256_permute2f128_pd(even, odd, 0x31)};
}
QG_INLINE VF upper_half(VF a) { return {_mm256_permute2f128_ps(a.v, a.v, 0x11)}; }
QG_INLINE VD upper_half(VD a) { return {_mm256_permute2f128_pd(a.v, a.v, 0x11)}; }
}  // namespace QG_ISA
}  // namespace quadgate
