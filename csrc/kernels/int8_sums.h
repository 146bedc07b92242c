// From integer sums of int8 products to the numbers that they stand for.
#pragma once

#include "kernels/compact_steps.h"
#include "kernels/vec/vec.h"
#include "kernels/weights/int8.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// Functions of int8 with pair_rows, which only the product of few rows decides.
static constexpr CompactFunctions in_pairs(CompactFunctions f) {
  f.pair_rows = kInt8PairRows;
  return f;
}

// Sums of rows with one panel, without their zero points, and where their numbers go to. `lines` may be `from`, or the
// memory of `sums` with the same stride.
struct Int8Sums {
  const int32_t* sums;  // (n, V, W)
  const float* scales;  // (V, W)
  const int32_t* weight_sums;
  size_t n_k;
  const float* row_scales;  // (n)
  const int32_t* row_zeros;
  const float* from;  // as in CompactProduct
  float* lines;
  size_t from_stride, row_stride;
};

// lines = from + numbers of n rows' sums.
template <int NV, class Zero>
QG_INLINE void to_numbers_with(const Int8Sums& s, size_t n, Zero zero) {
  constexpr size_t W = VF::kWidth;
  VF scales[NV];
  Words weight_sums[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    scales[v] = load(s.scales + v * W);
    weight_sums[v] = zero.weights(load_words(s.weight_sums + v * W));
  }
  const int32_t* sums = s.sums;
  const float* from = s.from;
  float* lines = s.lines;
#pragma GCC unroll 1
  for (size_t r = 0; r < n; ++r, sums += NV * W, from += s.from_stride, lines += s.row_stride) {
    const VF scale = set1(s.row_scales[r]);
    const Words minus_zero = zero.row(-s.row_zeros[r]);
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const VF whole = number(zero.add(load_words(sums + v * W), minus_zero, weight_sums[v]));
      store(lines + v * W, fma(whole, scale * scales[v], load(from + v * W)));
    }
  }
}

template <int NV>
QG_INLINE void to_numbers(const Int8Sums& s, size_t n) {
  if (s.n_k <= ZeroInHalves::kMostK)
    to_numbers_with<NV>(s, n, ZeroInHalves{});
  else
    to_numbers_with<NV>(s, n, ZeroInWords{});
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
