// The SIMD vocabulary of the kernels: one section per instruction set, chosen by QG_ISA_*.
//
// A kernel sees `Vec<T>` (T = float or double), its `kWidth` lanes, and the functions below. Loads and stores need
// no alignment. `load_n(p, n)` reads the first n < kWidth lanes (the others become 0) and touches no byte beyond
// them; `store_n` likewise. `stream` writes past the caches, to aligned addresses. `min(a, b)` and `max(a, b)` return b
// when either is NaN.
//
// Everything lives in a namespace of the instruction set, and nothing here comes from the standard library: two
// files compiled for different machines must never share an inline function (the linker would keep one for all).
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(QG_ISA_AVX512) || defined(QG_ISA_AVX2)
#if defined(__GNUC__) && !defined(__clang__)  // before 13, gcc takes its own _mm512_undefined_*() for a mistake
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#elif defined(QG_ISA_NEON)
#include <arm_neon.h>
#else
#include <emmintrin.h>
#endif

#define QG_INLINE inline __attribute__((always_inline))

namespace quadgate {
namespace QG_ISA {

template <class T>
struct Vec;

#if defined(QG_ISA_AVX512)

// 32 registers: 6 rows x 4 vectors of sums, 4 vectors of weights, 2 to spare.
constexpr int kMaxRows = 6, kRegisters = 32;

template <>
struct Vec<float> {
  using T = float;
  static constexpr int kWidth = 16;
  __m512 v;
};
template <>
struct Vec<double> {
  using T = double;
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
// a * b + c and c - a * b, rounded once where the machine can
QG_INLINE VF fma(VF a, VF b, VF c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
QG_INLINE VD fma(VD a, VD b, VD c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
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

#elif defined(QG_ISA_AVX2)

// 16 registers: 3 rows x 4 vectors of sums, 3 broadcast inputs, 1 vector of weights.
constexpr int kMaxRows = 3, kRegisters = 16;

template <>
struct Vec<float> {
  using T = float;
  static constexpr int kWidth = 8;
  __m256 v;
};
template <>
struct Vec<double> {
  using T = double;
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

#elif defined(QG_ISA_NEON)

constexpr int kMaxRows = 6, kRegisters = 32;

template <>
struct Vec<float> {
  using T = float;
  static constexpr int kWidth = 4;
  float32x4_t v;
};
template <>
struct Vec<double> {
  using T = double;
  static constexpr int kWidth = 2;
  float64x2_t v;
};

using VF = Vec<float>;
using VD = Vec<double>;

QG_INLINE VF load(const float* p) { return {vld1q_f32(p)}; }
QG_INLINE VD load(const double* p) { return {vld1q_f64(p)}; }
QG_INLINE VF load_n(const float* p, int n) {
  float t[4] = {p[0], n > 1 ? p[1] : 0, n > 2 ? p[2] : 0, 0};
  return {vld1q_f32(t)};
}
QG_INLINE VD load_n(const double* p, int) { return {vsetq_lane_f64(p[0], vdupq_n_f64(0), 0)}; }
QG_INLINE void store(float* p, VF a) { vst1q_f32(p, a.v); }
QG_INLINE void store(double* p, VD a) { vst1q_f64(p, a.v); }
QG_INLINE void stream(float* p, VF a) { vst1q_f32(p, a.v); }
QG_INLINE void stream(double* p, VD a) { vst1q_f64(p, a.v); }
QG_INLINE void stream_end() {}
QG_INLINE void store_n(float* p, VF a, int n) {
  vst1q_lane_f32(p, a.v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, a.v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, a.v, 2);
}
QG_INLINE void store_n(double* p, VD a, int) { vst1q_lane_f64(p, a.v, 0); }
QG_INLINE VF set1(float s) { return {vdupq_n_f32(s)}; }
QG_INLINE VD set1(double s) { return {vdupq_n_f64(s)}; }
QG_INLINE VF operator+(VF a, VF b) { return {vaddq_f32(a.v, b.v)}; }
QG_INLINE VD operator+(VD a, VD b) { return {vaddq_f64(a.v, b.v)}; }
QG_INLINE VF operator-(VF a, VF b) { return {vsubq_f32(a.v, b.v)}; }
QG_INLINE VD operator-(VD a, VD b) { return {vsubq_f64(a.v, b.v)}; }
QG_INLINE VF operator*(VF a, VF b) { return {vmulq_f32(a.v, b.v)}; }
QG_INLINE VD operator*(VD a, VD b) { return {vmulq_f64(a.v, b.v)}; }
QG_INLINE VF operator/(VF a, VF b) { return {vdivq_f32(a.v, b.v)}; }
QG_INLINE VD operator/(VD a, VD b) { return {vdivq_f64(a.v, b.v)}; }
QG_INLINE VF fma(VF a, VF b, VF c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
QG_INLINE VD fma(VD a, VD b, VD c) { return {vfmaq_f64(c.v, a.v, b.v)}; }
QG_INLINE VF fnma(VF a, VF b, VF c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
QG_INLINE VD fnma(VD a, VD b, VD c) { return {vfmsq_f64(c.v, a.v, b.v)}; }
QG_INLINE VF min(VF a, VF b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
QG_INLINE VD min(VD a, VD b) { return {vbslq_f64(vcltq_f64(a.v, b.v), a.v, b.v)}; }
QG_INLINE VF max(VF a, VF b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
QG_INLINE VD max(VD a, VD b) { return {vbslq_f64(vcgtq_f64(a.v, b.v), a.v, b.v)}; }
QG_INLINE VF negative_abs(VF a) { return {vnegq_f32(vabsq_f32(a.v))}; }
QG_INLINE VD negative_abs(VD a) { return {vnegq_f64(vabsq_f64(a.v))}; }
QG_INLINE VF with_sign(VF a, VF b) { return {vbslq_f32(vdupq_n_u32(0x80000000u), b.v, a.v)}; }
QG_INLINE VD with_sign(VD a, VD b) { return {vbslq_f64(vdupq_n_u64(0x8000000000000000u), b.v, a.v)}; }
QG_INLINE VF to_exponent(VF a) { return {vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(a.v), 23))}; }
QG_INLINE VD to_exponent(VD a) { return {vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(a.v), 52))}; }
QG_INLINE VF numbers(const unsigned char* p, VF) {
  float t[4] = {float(p[0]), float(p[1]), float(p[2]), float(p[3])};
  return {vld1q_f32(t)};
}
QG_INLINE VD numbers(const unsigned char* p, VD) {
  double t[2] = {double(p[0]), double(p[1])};
  return {vld1q_f64(t)};
}
QG_INLINE VF where_less(VF a, VF b, VF yes, VF no) { return {vbslq_f32(vcltq_f32(a.v, b.v), yes.v, no.v)}; }
QG_INLINE VD where_less(VD a, VD b, VD yes, VD no) { return {vbslq_f64(vcltq_f64(a.v, b.v), yes.v, no.v)}; }

#else  // baseline x86-64: SSE2, no fused multiply-add

constexpr int kMaxRows = 2, kRegisters = 16;

template <>
struct Vec<float> {
  using T = float;
  static constexpr int kWidth = 4;
  __m128 v;
};
template <>
struct Vec<double> {
  using T = double;
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

#endif

template <class T>
QG_INLINE Vec<T> zero() {
  return set1(T(0));
}
// The first n lanes, n <= kWidth: a whole vector takes the unmasked path.
template <class T>
QG_INLINE Vec<T> load_upto(const T* p, int n) {
  return n >= Vec<T>::kWidth ? load(p) : load_n(p, n);
}
template <class T>
QG_INLINE void store_upto(T* p, Vec<T> a, int n) {
  if (n >= Vec<T>::kWidth)
    store(p, a);
  else
    store_n(p, a, n);
}
// The first n <= kWidth flags; the other lanes become 0.
template <class T>
QG_INLINE Vec<T> load_flags(const unsigned char* p, int n) {
  constexpr int W = Vec<T>::kWidth;
  if (n >= W) return numbers(p, Vec<T>());
  unsigned char t[W] = {};
  for (int i = 0; i < n; ++i) t[i] = p[i];
  return numbers(t, Vec<T>());
}
// The sum of all lanes, in an order of its own for each width.
template <class T>
QG_INLINE T sum_of(Vec<T> a) {
  T t[Vec<T>::kWidth];
  store(t, a);
  for (int half = Vec<T>::kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) t[i] += t[i + half];
  return t[0];
}
QG_INLINE float root(float x) { return __builtin_sqrtf(x); }
QG_INLINE double root(double x) { return __builtin_sqrt(x); }
// A store past the caches where the address allows it, for what is not read again soon. Other threads may see it only
// after stream_end().
template <class T>
QG_INLINE void stream_upto(T* p, Vec<T> a, int n) {
  if (n >= Vec<T>::kWidth && reinterpret_cast<uintptr_t>(p) % sizeof(Vec<T>) == 0)
    stream(p, a);
  else
    store_upto(p, a, n);
}

}  // namespace QG_ISA
}  // namespace quadgate
