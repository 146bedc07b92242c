// Weights stored as int8, and the rows that they are multiplied with: integers, whose sums are exact.
//
// A lane of 32 bits sums the products of four k. Machines without an instruction for that widen to 16 bits and add
// pairs. AVX2 has one that multiplies unsigned with signed bytes and adds pairs in 16 bits. There they saturate where
// both factors are large, but not if the unsigned bytes are the sizes of signed ones, which are 128 at most. The other
// factor is the weight q, or -q - 1 where the row is negative, which takes one operation of any port: -2 * 128 * 128 is
// the least sum of a pair, and 2 * 127 * 127 the largest. What the -1 subtracts is known before the product: it is the
// sum of a row's negative sizes.
#pragma once

#include "kernels/vec/vec.h"
#include "kernels/weights/storage.h"

namespace quadgate {
namespace QG_ISA {

// The bytes of rows are unsigned, as VNNI takes them; elsewhere they are signed, and 128 less.
#if (defined(QG_ISA_AVX512) && defined(__AVX512VNNI__)) || (defined(QG_ISA_AVX2) && defined(__AVXVNNI__))
constexpr bool kUnsigned = true;
#else
constexpr bool kUnsigned = false;
#endif

// store_bytes: a rounded to nearest, plus `zeros`, as the nearest bytes.
#if defined(QG_ISA_AVX512)
using Words = __m512i;
QG_INLINE Words load_words(const void* p) { return _mm512_loadu_si512(p); }
QG_INLINE void store_words(int32_t* p, Words a) { _mm512_storeu_si512(p, a); }
QG_INLINE Words plus(Words a, Words b) { return _mm512_add_epi32(a, b); }
QG_INLINE Words set_words(int32_t a) { return _mm512_set1_epi32(a); }
QG_INLINE VF number(Words a) { return {_mm512_cvtepi32_ps(a)}; }
QG_INLINE Words times(Words a, Words b) { return _mm512_mullo_epi32(a, b); }
QG_INLINE void store_bytes(unsigned char* to, VF a, Words zeros) {
  const __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(a.v), zeros);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   kUnsigned ? _mm512_cvtusepi32_epi8(_mm512_max_epi32(whole, _mm512_setzero_si512()))
                             : _mm512_cvtsepi32_epi8(whole));
}
// The same for four vectors: two operations for each instead of three, in one store.
QG_INLINE void store_bytes(unsigned char* to, VF a, VF b, VF c, VF d, Words zeros) {
  auto whole = [zeros](VF x) __attribute__((always_inline)) {
    return _mm512_add_epi32(_mm512_cvtps_epi32(x.v), zeros);
  };
  const __m512i ab = _mm512_packs_epi32(whole(a), whole(b)), cd = _mm512_packs_epi32(whole(c), whole(d));
  const __m512i quarters = kUnsigned ? _mm512_packus_epi16(ab, cd) : _mm512_packs_epi16(ab, cd);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi32(order, quarters));
}
// The largest lanes of a and of b.
QG_INLINE void largest_of(VF a, VF b, float& of_a, float& of_b) {
  VF t = max(VF{_mm512_shuffle_f32x4(a.v, b.v, 0x44)}, VF{_mm512_shuffle_f32x4(a.v, b.v, 0xee)});
  t = max(t, VF{_mm512_shuffle_f32x4(t.v, t.v, 0xb1)});
  t = max(t, VF{_mm512_permute_ps(t.v, 0x4e)});
  t = max(t, VF{_mm512_permute_ps(t.v, 0xb1)});
  of_a = _mm512_cvtss_f32(t.v);
  of_b = _mm_cvtss_f32(_mm512_extractf32x4_ps(t.v, 2));
}
#elif defined(QG_ISA_AVX2)
using Words = __m256i;
QG_INLINE Words load_words(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
QG_INLINE void store_words(int32_t* p, Words a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a); }
QG_INLINE Words plus(Words a, Words b) { return _mm256_add_epi32(a, b); }
QG_INLINE Words set_words(int32_t a) { return _mm256_set1_epi32(a); }
QG_INLINE VF number(Words a) { return {_mm256_cvtepi32_ps(a)}; }
QG_INLINE Words times(Words a, Words b) { return _mm256_mullo_epi32(a, b); }
QG_INLINE void store_bytes(unsigned char* to, VF a, Words zeros) {
  const __m256i whole = _mm256_add_epi32(_mm256_cvtps_epi32(a.v), zeros);
  const __m128i pairs = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to),
                   kUnsigned ? _mm_packus_epi16(pairs, pairs) : _mm_packs_epi16(pairs, pairs));
}
#elif defined(QG_ISA_NEON)
using Words = int32x4_t;
QG_INLINE Words load_words(const void* p) { return vreinterpretq_s32_s8(vld1q_s8(static_cast<const int8_t*>(p))); }
QG_INLINE void store_words(int32_t* p, Words a) { vst1q_s32(p, a); }
QG_INLINE Words plus(Words a, Words b) { return vaddq_s32(a, b); }
QG_INLINE Words set_words(int32_t a) { return vdupq_n_s32(a); }
QG_INLINE VF number(Words a) { return {vcvtq_f32_s32(a)}; }
QG_INLINE Words times(Words a, Words b) { return vmulq_s32(a, b); }
QG_INLINE void store_bytes(unsigned char* to, VF a, Words zeros) {
  const int16x4_t pairs = vqmovn_s32(vaddq_s32(vcvtnq_s32_f32(a.v), zeros));
  const int8x8_t bytes = vqmovn_s16(vcombine_s16(pairs, pairs));
  const int32_t word = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
  __builtin_memcpy(to, &word, 4);
}
#else
using Words = __m128i;
QG_INLINE Words load_words(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
QG_INLINE void store_words(int32_t* p, Words a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), a); }
QG_INLINE Words plus(Words a, Words b) { return _mm_add_epi32(a, b); }
QG_INLINE Words set_words(int32_t a) { return _mm_set1_epi32(a); }
QG_INLINE VF number(Words a) { return {_mm_cvtepi32_ps(a)}; }
QG_INLINE Words times(Words a, Words b) {  // the even lanes, then the odd ones; SSE2 has no more
  const __m128i even = _mm_mul_epu32(a, b), odd = _mm_mul_epu32(_mm_srli_epi64(a, 32), _mm_srli_epi64(b, 32));
  return _mm_unpacklo_epi32(_mm_shuffle_epi32(even, _MM_SHUFFLE(0, 0, 2, 0)),
                            _mm_shuffle_epi32(odd, _MM_SHUFFLE(0, 0, 2, 0)));
}
QG_INLINE void store_bytes(unsigned char* to, VF a, Words zeros) {
  const __m128i whole = _mm_add_epi32(_mm_cvtps_epi32(a.v), zeros);
  const __m128i pairs = _mm_packs_epi32(whole, _mm_setzero_si128());
  const int32_t word = _mm_cvtsi128_si32(_mm_packs_epi16(pairs, pairs));
  __builtin_memcpy(to, &word, 4);
}
#endif

#if !defined(QG_ISA_AVX512)
QG_INLINE void largest_of(VF a, VF b, float& of_a, float& of_b) {
  float t[2][VF::kWidth];
  store(t[0], a);
  store(t[1], b);
  for (auto& lanes : t)
    for (int half = VF::kWidth / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) lanes[i] = lanes[i] < lanes[i + half] ? lanes[i + half] : lanes[i];
  of_a = t[0][0];
  of_b = t[1][0];
}
#endif

// Rows of a register tile; weights and a row's bytes, ready for the product; and sum + the products of four k in each
// lane.
#if (defined(QG_ISA_AVX512) && defined(__AVX512VNNI__)) || (defined(QG_ISA_AVX2) && defined(__AVXVNNI__)) || \
    defined(QG_ISA_NEON)
using Factor = Words;
using RowFactor = Words;
QG_INLINE Factor factor(Words a) { return a; }
#elif defined(QG_ISA_AVX2)
#define QG_ROW_SIGNS  // rows are two parts, their sizes and their signs, of which -1 stands for minus
using Factor = Words;
struct RowFactor {
  Words sizes, signs;
};
QG_INLINE Factor factor(Words a) { return a; }
#else
struct Factor {
  Words even, odd;  // k's 0 and 2, 1 and 3 of each lane, in 16 bits
};
using RowFactor = Factor;
#endif
#if defined(QG_ISA_AVX512) && defined(__AVX512VNNI__)
constexpr int kInt8Rows = 6;
// Not by an intrinsic: with it GCC 12 copies sums from register to register where there are many.
QG_INLINE Words dot(Words sum, RowFactor row, Factor weights) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(row), "v"(weights));
  return sum;
}
#define QG_DOT_FROM_MEMORY
QG_INLINE Words dot_from(Words sum, RowFactor row, const char* weights) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(row), "m"(*reinterpret_cast<const Words*>(weights)));
  return sum;
}
#elif defined(QG_ISA_AVX2) && defined(__AVXVNNI__)
constexpr int kInt8Rows = 3;
QG_INLINE Words dot(Words sum, RowFactor row, Factor weights) { return _mm256_dpbusd_avx_epi32(sum, row, weights); }
#elif defined(QG_ISA_NEON) && defined(__ARM_FEATURE_DOTPROD)
constexpr int kInt8Rows = 6;
QG_INLINE Words dot(Words sum, RowFactor row, Factor weights) {
  return vdotq_s32(sum, vreinterpretq_s8_s32(row), vreinterpretq_s8_s32(weights));
}
#elif defined(QG_ISA_NEON)
constexpr int kInt8Rows = 4;
QG_INLINE Words dot(Words sum, RowFactor row, Factor weights) {
  const int8x16_t a = vreinterpretq_s8_s32(row), b = vreinterpretq_s8_s32(weights);
  const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
  return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}
#else
#if defined(QG_ISA_AVX512)
constexpr int kInt8Rows = 4;
QG_INLINE Factor factor(Words a) { return {_mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8), _mm512_srai_epi16(a, 8)}; }
QG_INLINE Words dot(Words sum, RowFactor row, Factor weights) {
  sum = _mm512_add_epi32(sum, _mm512_madd_epi16(row.even, weights.even));
  return _mm512_add_epi32(sum, _mm512_madd_epi16(row.odd, weights.odd));
}
#elif defined(QG_ISA_AVX2)
constexpr int kInt8Rows = 2;
QG_INLINE Words dot(Words sum, RowFactor row, Factor weights) {
  const Words pairs = _mm256_maddubs_epi16(row.sizes, _mm256_xor_si256(weights, row.signs));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#else
constexpr int kInt8Rows = 2;
QG_INLINE Factor factor(Words a) { return {_mm_srai_epi16(_mm_slli_epi16(a, 8), 8), _mm_srai_epi16(a, 8)}; }
QG_INLINE Words dot(Words sum, RowFactor row, Factor weights) {
  sum = _mm_add_epi32(sum, _mm_madd_epi16(row.even, weights.even));
  return _mm_add_epi32(sum, _mm_madd_epi16(row.odd, weights.odd));
}
#endif
#endif

// A row that quantize_rows has made: the factor of four k from `at` on, whose signs are `to_signs` bytes behind; what
// sums of its products begin with; and that made of n_k bytes (others, to the next multiple of 64, can be written).
QG_INLINE Words four_times(const unsigned char* at) {
  int32_t four;
  __builtin_memcpy(&four, at, sizeof four);
  return set_words(four);
}
#if defined(QG_ROW_SIGNS)
QG_INLINE RowFactor row_factor(const unsigned char* at, size_t to_signs) {
  return {four_times(at), four_times(at + to_signs)};
}
QG_INLINE Words first_sum(const unsigned char* row, size_t to_signs) { return four_times(row + 2 * to_signs); }
QG_INLINE void split_signs(unsigned char* row, size_t n_k, size_t to_signs) {
  for (size_t k = n_k; k < to_signs; ++k) row[k] = 0;
  const Words zero = set_words(0);
  Words below = zero;  // of sizes, in words of 64 bits
  for (size_t k = 0; k < to_signs; k += sizeof(Words)) {
    const Words all = load_words(row + k), signs = _mm256_cmpgt_epi8(zero, all), sizes = _mm256_abs_epi8(all);
    store_words(reinterpret_cast<int32_t*>(row + k), sizes);
    store_words(reinterpret_cast<int32_t*>(row + to_signs + k), signs);
    below = _mm256_add_epi64(below, _mm256_sad_epu8(_mm256_and_si256(sizes, signs), zero));
  }
  int64_t sums[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), below);
  const auto sum = int32_t(sums[0] + sums[1] + sums[2] + sums[3]);
  __builtin_memcpy(row + 2 * to_signs, &sum, sizeof sum);
}
#else
QG_INLINE RowFactor row_factor(const unsigned char* at, size_t) { return factor(four_times(at)); }
QG_INLINE Words first_sum(const unsigned char*, size_t) { return set_words(0); }
QG_INLINE void split_signs(unsigned char*, size_t, size_t) {}
#endif

// Ways to add the product of a sum of weights and a row's zero point, with the sign changed, to a sum.
struct ZeroInWords {
  static constexpr size_t kMostK = ~size_t(0);  // columns that a product may have
  QG_INLINE Words weights(Words sums) const { return sums; }
  QG_INLINE Words row(int32_t minus_zero) const { return set_words(minus_zero); }
  QG_INLINE Words add(Words sum, Words row, Words weights) const { return plus(sum, times(row, weights)); }
};
#if defined(QG_ISA_AVX512) && defined(__AVX512VNNI__)
// Sums of less than 2^22 as two numbers of 16 bits, low + 128 high: one operation instead of three.
struct ZeroInHalves {
  static constexpr size_t kMostK = (size_t(1) << 22) / 128;
  QG_INLINE Words weights(Words sums) const {
    return _mm512_or_si512(_mm512_and_si512(sums, _mm512_set1_epi32(127)),
                           _mm512_slli_epi32(_mm512_srai_epi32(sums, 7), 16));
  }
  QG_INLINE Words row(int32_t minus_zero) const { return set_words(minus_zero * 128 * 65536 | (minus_zero & 0xffff)); }
  QG_INLINE Words add(Words sum, Words row, Words weights) const { return _mm512_dpwssd_epi32(sum, row, weights); }
};
#else
using ZeroInHalves = ZeroInWords;
#endif

// Tiles of more than 12 sums prefetch their share of the next panel. Smaller ones do from so many bytes of the step's
// weights on; one by itself prefetches what it will read itself. Measured on Zen 3: several tiles are up to 2.2 times
// as fast beyond L2 and 0.73 times in it; one by itself half as fast with the next panel, 1.2 to 1.3 times with its
// own.
#if defined(QG_ISA_AVX2) && !defined(__AVXVNNI__)
constexpr size_t kInt8Ahead = size_t(1) << 19;
#else
constexpr size_t kInt8Ahead = kNever;
#endif

// CompactFunctions::pair_rows
#if defined(QG_DOT_FROM_MEMORY)
constexpr size_t kInt8PairRows = 3;
#else
constexpr size_t kInt8PairRows = 1;
#endif

// As CompactFunctions::rate: an instruction for four k takes as long as a multiply-add of floats, but loads and scales
// do, too. AVX2 takes four instructions instead; a detour through 16 bits costs what it gains.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_DOTPROD)
constexpr double kInt8Rate = 2.5;
#elif defined(QG_ISA_AVX2)
constexpr double kInt8Rate = 1.4;
#else
constexpr double kInt8Rate = 1;
#endif

}  // namespace QG_ISA
}  // namespace quadgate
