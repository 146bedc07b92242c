// Weights stored as bfloat16, the upper half of a float: as accurate as 8 bits, half the bytes.
//
// Two vectors of a line lie in the halves of the same words, so that each takes one operation: a shift, or a mask.
#pragma once

#include "kernels/vec/vec.h"
#include "kernels/weights/storage.h"

namespace quadgate {
namespace QG_ISA {

template <class Real>
QG_INLINE VF load_widened(const BFloat16* line, int v) {
  const BFloat16* words = line + v / 2 * 2 * VF::kWidth;
#if defined(QG_ISA_AVX512)
  const __m512i both = _mm512_loadu_si512(words);
  return {_mm512_castsi512_ps(v % 2 ? _mm512_and_si512(both, _mm512_set1_epi32(int(0xffff0000)))
                                    : _mm512_slli_epi32(both, 16))};
#elif defined(QG_ISA_AVX2)
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
  return {_mm256_castsi256_ps(v % 2 ? _mm256_and_si256(both, _mm256_set1_epi32(int(0xffff0000)))
                                    : _mm256_slli_epi32(both, 16))};
#elif defined(QG_ISA_NEON)
  const uint32x4_t both = vreinterpretq_u32_u16(vld1q_u16(&words->bits));
  return {vreinterpretq_f32_u32(v % 2 ? vandq_u32(both, vdupq_n_u32(0xffff0000)) : vshlq_n_u32(both, 16))};
#else
  const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words));
  return {_mm_castsi128_ps(v % 2 ? _mm_and_si128(both, _mm_set1_epi32(int(0xffff0000))) : _mm_slli_epi32(both, 16))};
#endif
}

}  // namespace QG_ISA
}  // namespace quadgate
