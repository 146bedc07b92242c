// Weights stored as float16: as accurate as 11 bits, half the bytes.
#pragma once

#include "kernels/vec/vec.h"
#include "kernels/weights/storage.h"

namespace quadgate {
namespace QG_ISA {

#if defined(QG_ISA_AVX512)

template <class Real>
QG_INLINE VF load_widened(const Float16* line, int v) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + v * 16)))};
}

#elif defined(QG_ISA_AVX2)

template <class Real>
QG_INLINE VF load_widened(const Float16* line, int v) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(line + v * 8)))};
}

#elif defined(QG_ISA_NEON)

template <class Real>
QG_INLINE VF load_widened(const Float16* line, int v) {
  return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&line[v * 4].bits)))};
}

#else  // by integers: exponent and fraction move to their places in a float, whose exponent has another bias

// The fraction of a number below 2^-14 counts in 2^-24: as the low bits of 2^-14, which is then subtracted. Every
// intermediate result is normal, since denormals may be flushed.
constexpr int kHalfMagnitude = 0x7fff, kHalfSign = 0x8000, kHalfNormal = 0x400, kBias = 112 << 23,
              kSmallest = 113 << 23;

template <class Real>
QG_INLINE VF load_widened(const Float16* line, int v) {
  const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(line + v * 4));
  const __m128i h = _mm_unpacklo_epi16(bits, _mm_setzero_si128());
  const __m128i magnitude = _mm_and_si128(h, _mm_set1_epi32(kHalfMagnitude));
  const __m128i moved = _mm_slli_epi32(magnitude, 13), first = _mm_set1_epi32(kSmallest);
  const __m128i small =
      _mm_castps_si128(_mm_sub_ps(_mm_castsi128_ps(_mm_add_epi32(moved, first)), _mm_castsi128_ps(first)));
  const __m128i normal = _mm_add_epi32(moved, _mm_set1_epi32(kBias));
  const __m128i is_small = _mm_cmpgt_epi32(_mm_set1_epi32(kHalfNormal), magnitude);
  const __m128i sign = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(kHalfSign)), 16);
  const __m128i value = _mm_or_si128(_mm_and_si128(is_small, small), _mm_andnot_si128(is_small, normal));
  return {_mm_castsi128_ps(_mm_or_si128(value, sign))};
}
#endif

}  // namespace QG_ISA
}  // namespace quadgate
