// AVX-512 F, DQ, BW and VL: 16 floats, 32 registers, masked loads and stores. vec.h has the meaning of every function.
#pragma once

#include "kernels/vec/common.h"

namespace quadgate {
namespace QG_ISA {

// 32 registers: 6 rows x 4 vectors of sums, 4 vectors of weights, 2 to spare. 7 rows fill them, and each multiply-add
// reads its element from memory then: more loads for a multiply-add, but one tile less.
constexpr int kMaxRows = 6, kMostRows = 7, kRegisters = 32;
constexpr bool kSmallKernels = false;

// In smaller tiles a prefetch would cost time.
constexpr size_t ahead_from(int, int rows, int vectors, size_t) { return rows * vectors > 12 ? 0 : kNever; }
template <class Real>
constexpr bool kCopyColumns = false;
template <class Real>
constexpr bool kHalfLines = false;

template <>
struct Vec<float> {
  using Real = float;
  static constexpr int kWidth = 16;
  __m512 v;
};
template <>
struct Vec<double> {
  using Real = double;
  static constexpr int kWidth = 8;
  __m512d v;
};

using VF = Vec<float>;
using VD = Vec<double>;

QG_INLINE VF load(const float* p) { return {_mm512_loadu_ps(p)}; }
QG_INLINE VD load(const double* p) { return {_mm512_loadu_pd(p)}; }
QG_INLINE VF load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p)}; }
QG_INLINE VD load_n(const double* p, int n) { return {_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p)}; }
QG_INLINE void store(float* p, VF a) { _mm512_storeu_ps(p, a.v); }
QG_INLINE void store(double* p, VD a) { _mm512_storeu_pd(p, a.v); }
QG_INLINE void stream(float* p, VF a) { _mm512_stream_ps(p, a.v); }
QG_INLINE void stream(double* p, VD a) { _mm512_stream_pd(p, a.v); }
QG_INLINE void stream_end() { _mm_sfence(); }
QG_INLINE void store_n(float* p, VF a, int n) { _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), a.v); }
QG_INLINE void store_n(double* p, VD a, int n) { _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), a.v); }
QG_INLINE VF set1(float s) { return {_mm512_set1_ps(s)}; }
QG_INLINE VD set1(double s) { return {_mm512_set1_pd(s)}; }
QG_INLINE VF operator+(VF a, VF b) { return {_mm512_add_ps(a.v, b.v)}; }
QG_INLINE VD operator+(VD a, VD b) { return {_mm512_add_pd(a.v, b.v)}; }
QG_INLINE VF operator-(VF a, VF b) { return {_mm512_sub_ps(a.v, b.v)}; }
QG_INLINE VD operator-(VD a, VD b) { return {_mm512_sub_pd(a.v, b.v)}; }
QG_INLINE VF operator*(VF a, VF b) { return {_mm512_mul_ps(a.v, b.v)}; }
QG_INLINE VD operator*(VD a, VD b) { return {_mm512_mul_pd(a.v, b.v)}; }
QG_INLINE VF operator/(VF a, VF b) { return {_mm512_div_ps(a.v, b.v)}; }
QG_INLINE VD operator/(VD a, VD b) { return {_mm512_div_pd(a.v, b.v)}; }
QG_INLINE VF root(VF a) { return {_mm512_sqrt_ps(a.v)}; }
QG_INLINE VD root(VD a) { return {_mm512_sqrt_pd(a.v)}; }
// a * b + c and c - a * b, rounded once where the machine can
QG_INLINE VF fma(VF a, VF b, VF c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
QG_INLINE VD fma(VD a, VD b, VD c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
// *a * b + c, with no register for *a, which the compiler would load once for several
QG_INLINE VF fma_element(const float* a, VF b, VF c) {
  __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(c.v) : "v"(b.v), "m"(*a));
  return c;
}
QG_INLINE VF fnma(VF a, VF b, VF c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
QG_INLINE VD fnma(VD a, VD b, VD c) { return {_mm512_fnmadd_pd(a.v, b.v, c.v)}; }
QG_INLINE VF min(VF a, VF b) { return {_mm512_min_ps(a.v, b.v)}; }
QG_INLINE VD min(VD a, VD b) { return {_mm512_min_pd(a.v, b.v)}; }
QG_INLINE VF max(VF a, VF b) { return {_mm512_max_ps(a.v, b.v)}; }
QG_INLINE VD max(VD a, VD b) { return {_mm512_max_pd(a.v, b.v)}; }
// -|a|
QG_INLINE VF negative_abs(VF a) { return {_mm512_or_ps(a.v, _mm512_set1_ps(-0.0f))}; }
QG_INLINE VD negative_abs(VD a) { return {_mm512_or_pd(a.v, _mm512_set1_pd(-0.0))}; }
// magnitude of a, sign of b; a must not be negative
QG_INLINE VF with_sign(VF a, VF b) { return {_mm512_or_ps(a.v, _mm512_and_ps(b.v, _mm512_set1_ps(-0.0f)))}; }
QG_INLINE VD with_sign(VD a, VD b) { return {_mm512_or_pd(a.v, _mm512_and_pd(b.v, _mm512_set1_pd(-0.0)))}; }
// the low bits of a's pattern moved up to be the exponent: 2^(low bits - bias)
QG_INLINE VF to_exponent(VF a) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 23))}; }
QG_INLINE VD to_exponent(VD a) { return {_mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a.v), 52))}; }
// kWidth flags, bytes of 0 or 1, as numbers
QG_INLINE VF numbers(const unsigned char* p, VF) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
QG_INLINE VD numbers(const unsigned char* p, VD) {
  return {_mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
// a < b ? yes : no
QG_INLINE VF where_less(VF a, VF b, VF yes, VF no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
QG_INLINE VD where_less(VD a, VD b, VD yes, VD no) {
  return {_mm512_mask_blend_pd(_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}

// low = a0 b0 a1 b1 ..., and high the same of the upper halves
QG_INLINE void interleave(VF a, VF b, VF& low, VF& high) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  low = {_mm512_permutex2var_ps(a.v, first, b.v)};
  high = {_mm512_permutex2var_ps(a.v, second, b.v)};
}
QG_INLINE void interleave(VD a, VD b, VD& low, VD& high) {
  low = {_mm512_permutex2var_pd(a.v, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b.v)};
  high = {_mm512_permutex2var_pd(a.v, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b.v)};
}
// the upper half of the lanes, moved to the lower; the rest is anything
QG_INLINE VF upper_half(VF a) { return {_mm512_shuffle_f32x4(a.v, a.v, 0xEE)}; }
QG_INLINE VD upper_half(VD a) { return {_mm512_shuffle_f64x2(a.v, a.v, 0xEE)}; }
}  // namespace QG_ISA
}  // namespace quadgate
