// The products of quantised rows with int8 weights, a group of rows at a time.
//
// Sums of up to kInt8UnitRows rows with a panel go through memory, so that the loop which makes numbers of them is the
// same for tiles of every height.
#pragma once

#include "cells/dispatch.h"
#include "kernels/int8_sums.h"
#include "kernels/multiply.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// Weights that come from beyond L2 are prefetched so many bytes ahead where a single tile reads them.
constexpr size_t kInt8AheadBytes = 2048;

// Integer sums over all k, without zero points, of MR rows with NP panels; ends with done(p, r, v, sum) for each, rows
// in order. kFetched: bytes of a panel from `ahead` on that are prefetched for four k. Of a line's kLine vectors NV
// from `vector` on take part.
template <int NP, int MR, int NV, size_t kFetched, int kLine = NV, class Done>
QG_INLINE void sum_tile(const CompactProduct& s, size_t row, Slice ahead, Done&& done, size_t vector = 0) {
  constexpr size_t W = VF::kWidth;
  constexpr int held = MR * NV + int((NV * sizeof(Factor) + sizeof(RowFactor)) / sizeof(Words));
  constexpr bool rows_pass = MR > 1 && NP == 1 && held < kRegisters;  // by weights in registers
  const size_t groups = (s.n_k + kInt8Group - 1) / kInt8Group;
  const char *w = static_cast<const char*>(s.panels), *next = ahead.begin;
  constexpr size_t group = W * kInt8Group, tile = kInt8Tile;
  if constexpr (kLine > NV) w += vector * group * (groups < tile ? 1 : tile);
  // The first three rows share a pointer, and all others, for lack of registers. The compiler must not see that they
  // lie one behind the other: it would give each its own again.
  size_t row_bytes = compact_row_bytes(s.n_k), to_signs = compact_round_up(s.n_k);
  const auto* low = static_cast<const unsigned char*>(s.rows[row]);
  const unsigned char* high = MR > 3 ? low + 3 * row_bytes : low;
  __asm__("" : "+r"(low), "+r"(high), "+r"(row_bytes));
  auto row_at = [&](int r) __attribute__((always_inline)) {
    return r < 3 ? low + r * row_bytes : high + (r - 3) * row_bytes;
  };
  Words a[NP][MR][NV];
#pragma GCC unroll 2
  for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) a[p][r][v] = first_sum(row_at(r), to_signs);
  // Products of n groups; bytes from one to the next, and from a vector to the next.
  auto take = [&](size_t n, size_t next_group, size_t next_vector) __attribute__((always_inline)) {
    const unsigned char* const end = low + n * kInt8Group;
#pragma GCC unroll 2
    while (low != end) {
      for (int p = 0; p < NP; ++p)
        for (size_t b = 0; b < kFetched; b += 64) __builtin_prefetch(next + p * s.panel_bytes + b, 0, 2);
      if constexpr (rows_pass) {
        Factor weights[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) weights[v] = factor(load_words(w + v * next_vector));
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) {
          const RowFactor x = row_factor(row_at(r), to_signs);
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) a[0][r][v] = dot(a[0][r][v], x, weights[v]);
        }
      } else {
        RowFactor x[MR];
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) x[r] = row_factor(row_at(r), to_signs);
#pragma GCC unroll 4
        for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) {
            const Factor weights = factor(load_words(w + p * s.panel_bytes + v * next_vector));
#pragma GCC unroll 8
            for (int r = 0; r < MR; ++r) a[p][r][v] = dot(a[p][r][v], x[r], weights);
          }
      }
      low += kInt8Group;
      if constexpr (MR > 3) high += kInt8Group;
      w += next_group;
      next += ahead.bytes_per_k;
    }
  };
  if constexpr (MR == 1 || NP == 2) {  // addresses of a base and a constant: operands of their instructions at no cost
    size_t k = 0;
#if defined(QG_DOT_FROM_MEMORY)
    // Unrolled, so that from tile to tile each instruction moves by 4 KB, and two or four lines of a vector at a time.
    // From L2, 144 KB to 1 MB, Zen 5 gives one row 39 to 60 bytes a cycle with two panels, two rows 36 to 49, three 34
    // to 40, near the rate of the products; a loop over groups gets 30 to 39. A single tile comes from L1.
    constexpr size_t kAtOnce = MR < 3 ? 4 : 2;  // as registers hold factors of so many
    if constexpr (NP == 2 && kFetched == 0)
      for (; groups >= 2 * tile && k + tile <= groups; k += tile, low += tile * kInt8Group, w += NV * tile * group) {
        // The compiler must not see how far apart the panels are: it would keep the sum of that and each constant.
        const char* second = w + s.panel_bytes;
        __asm__("" : "+r"(second));
#pragma GCC unroll 8
        for (size_t lines = 0; lines < tile; lines += kAtOnce) {
          RowFactor x[MR][kAtOnce];
#pragma GCC unroll 4
          for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
            for (size_t g = 0; g < kAtOnce; ++g) x[r][g] = row_factor(row_at(r) + (lines + g) * kInt8Group, to_signs);
#pragma GCC unroll 2
          for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v)
#pragma GCC unroll 4
              for (size_t g = 0; g < kAtOnce; ++g) {
                const char* from = (p ? second : w) + (v * tile + lines + g) * group;
                if constexpr (MR == 1) {
                  a[p][0][v] = dot_from(a[p][0][v], x[0][g], from);
                } else {
                  const Factor weights = factor(load_words(from));
#pragma GCC unroll 4
                  for (int r = 0; r < MR; ++r) a[p][r][v] = dot(a[p][r][v], x[r][g], weights);
                }
              }
        }
      }
#endif
    for (; k + tile <= groups; k += tile, w += (NV - 1) * tile * group) take(tile, group, tile * group);
    take(groups - k, NV * group, group);
  } else {
    for (size_t k = 0; k < groups; k += tile) {
      const size_t rest = groups - k;
      const bool whole = rest >= tile;
      if (kLine > NV && !whole && k > 0) w -= vector * (tile - 1) * group;
      take(whole ? tile : rest, whole ? group : kLine * group, whole ? tile * group : group);
      if (whole) w += (kLine - 1) * tile * group;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) done(p, r, v, a[p][r][v]);
}

// MR rows with NP panels, which are prefetched if kFar. A function of its own, so that the compiler does not keep its
// pointers in vector registers.
template <int NP, int MR, int NV, bool kFar>
QG_OUTLINE void int8_rows(const CompactProduct& s) {
  constexpr size_t W = VF::kWidth, kLineBytes = NV * W * kInt8Group;
  const ZeroInWords zero;
  VF row_scale;  // of the row at hand: nothing but sums stays in registers meanwhile
  Words minus_zero;
  const Slice ahead = {static_cast<const char*>(s.panels) + kInt8AheadBytes, kLineBytes, 0};
  sum_tile<NP, MR, NV, kFar ? kLineBytes : 0>(
      s, 0, ahead, [&](int p, int r, int v, Words sum) __attribute__((always_inline)) {
        const size_t at = (p * NV + v) * W;
        if (at == 0) {
          row_scale = set1(s.row_scales[r]);
          minus_zero = zero.row(-s.row_zeros[r]);
        }
        const Words whole = zero.add(sum, minus_zero, load_words(s.sums + at));
        store(s.lines + r * s.row_stride + at,
              fma(number(whole), row_scale * load(s.scales + at), load(s.from + r * s.from_stride + at)));
      });
}

// Rows of a panel whose sums are in memory together.
constexpr size_t kInt8UnitRows = 32;
// Rows up to which half of a line is taken at a time.
constexpr size_t kInt8HalfRows = 8;

template <int NV>
QG_INLINE void product_of_int8(const CompactProduct& s) {
  if (s.n_panels == 2) {
    static_assert(kInt8PairRows <= kMostPairRows, "the memory of a step is too small");
    static_assert(kInt8PairRows == 1 || kInt8Ahead == kNever, "several rows have no copy that prefetches");
    if constexpr (kInt8Ahead != kNever)
      if (s.of_bytes > kInt8Ahead) return int8_rows<2, 1, NV, true>(s);
    return with_constant<int(kInt8PairRows)>(
        int(s.n_rows), [&](auto mr)
                           __attribute__((always_inline)) { int8_rows<2, decltype(mr)::value, NV, false>(s); });
  }
  if (s.n_rows == 1) return int8_rows<1, 1, NV, false>(s);
  constexpr size_t W = VF::kWidth, kLineBytes = NV * W * kInt8Group;
  const Parts tiles(s.n_rows, kInt8Rows);
  const size_t groups = (s.n_k + kInt8Group - 1) / kInt8Group;
  const bool far = s.of_bytes > kInt8Ahead;
  const Slice own = {static_cast<const char*>(s.panels) + kInt8AheadBytes, kLineBytes, 0};
  const Ahead ahead(s.panels, s.next, ahead_bytes<float, int32_t>(NV, tiles.count, s.of_bytes), 0);
  auto* const of_rows = reinterpret_cast<int32_t*>(s.wide);
  Int8Sums of = {of_rows,     s.scales, s.sums,  s.n_k,         s.row_scales,
                 s.row_zeros, s.from,   s.lines, s.from_stride, s.row_stride};
#if defined(QG_DOT_FROM_MEMORY)
  // A few more rows than a tile has take half of a line at a time: in one tile each byte of the weights is read for all
  // of them, so that L2 and L3 need to give half as many bytes a cycle as to the first of two tiles. It was not
  // measured where tiles prefetch.
  if constexpr (NV == 4)
    if (!s.far && s.n_rows > kInt8Rows && s.n_rows <= kInt8HalfRows) {
      with_constant<kInt8HalfRows - kInt8Rows>(
          int(s.n_rows) - kInt8Rows, [&](auto more) __attribute__((always_inline)) {
#pragma GCC unroll 1
            for (size_t first = 0; first < NV; first += NV / 2)
              sum_tile<1, kInt8Rows + decltype(more)::value, NV / 2, 0, NV>(
                  s, 0, own,
                  [&](int, int r, int v, Words sum)
                      __attribute__((always_inline)) { store_words(of_rows + (r * NV + first + v) * W, sum); },
                  first);
          });
      return to_numbers<NV>(of, s.n_rows);
    }
#endif
  size_t first = 0;
  for (size_t t = 0; t < tiles.count; ++t) {
    const size_t row = tiles.begin(t), n = tiles.size(t);
    auto* sums = of_rows + (row - first) * NV * W;
    with_constant<kInt8Rows>(
        int(n), [&](auto mr) __attribute__((always_inline)) {
          constexpr int MR = decltype(mr)::value, kShare = MR * NV > 12 ? 64 : 0;
          auto sum = [&](auto fetch) __attribute__((always_inline)) {
            constexpr size_t kFetched = decltype(fetch)::value;
            sum_tile<1, MR, NV, kFetched>(
                s, row, kFetched == kLineBytes ? own : ahead.slice(t, groups),
                [&](int, int r, int v, Words sum)
                    __attribute__((always_inline)) { store_words(sums + (r * NV + v) * W, sum); });
          };
          if constexpr (kInt8Ahead != kNever)
            if (far) {
              if constexpr (MR == kInt8Rows)  // one tile has as many
                if (tiles.count == 1) return sum(Int<int(kLineBytes)>{});
              return sum(Int<64>{});
            }
          sum(Int<kShare>{});
        });
    const size_t end = row + n;
    if (end == s.n_rows || end - first + kInt8Rows > kInt8UnitRows) {
      to_numbers<NV>(of, end - first);
      of.row_scales += end - first;
      of.row_zeros += end - first;
      of.from += (end - first) * of.from_stride;
      of.lines += (end - first) * of.row_stride;
      first = end;
    }
  }
}

[[maybe_unused]] void int8_product(const CompactProduct& s) {
  with_line(
      s.n_vectors, [&](auto nv) __attribute__((always_inline)) { product_of_int8<decltype(nv)::value>(s); });
}

// The least and the largest of a row's n elements and 0, without signs, and NaN if one of them is not finite.
struct RowRange {
  float below, above, finite;
};

QG_INLINE RowRange range_of(const float* from, size_t n) {
  constexpr size_t W = VF::kWidth;
  const size_t whole = n / W * W;
  VF least[2] = {zero<float>(), zero<float>()}, most[2] = {set1(1e-30f), zero<float>()},
     finite[2] = {zero<float>(), zero<float>()};
  auto take = [&](VF x, int chain) __attribute__((always_inline)) {
    least[chain] = min(x, least[chain]);
    most[chain] = max(x, most[chain]);
    finite[chain] = fma(x, zero<float>(), finite[chain]);  // NaN once x is infinite or NaN
  };
  size_t i = 0;
  for (; i + W < whole; i += 2 * W) {  // in two chains, since each takes the latency of an instruction
    take(load(from + i), 0);
    take(load(from + i + W), 1);
  }
  if (i < whole) take(load(from + i), 0);
  if (whole < n) take(load_n(from + whole, int(n - whole)), 1);
  RowRange range;
  largest_of(max(most[0], most[1]), zero<float>() - min(least[0], least[1]), range.above, range.below);
  range.finite = sum_of(finite[0] + finite[1]);
  return range;
}

// z = x / t + z0, rounded to nearest, with t the row's range / 255, which includes 0: x that is 0 stays 0. Rows near 0
// get a t that is no denormal.
struct RowScale {
  float inverse, scale;
  int32_t zero;
};

QG_INLINE RowScale scale_of(RowRange range, size_t n) {
  float half_steps = 127.5f;
  if (n > kFullRangeK) {
    range.above = range.below = range.above < range.below ? range.below : range.above;
    half_steps = 127;
  }
  const float half_range = range.above * 0.5f + range.below * 0.5f, inverse = half_steps / half_range;
  const float at = range.below * inverse;  // NaN in a row with infinity, whose scale is NaN
  return {inverse, half_range / half_steps + range.finite, (at < 256 ? int32_t(at + 0.5f) : 0) - (kUnsigned ? 0 : 128)};
}

QG_INLINE void store_row(const float* from, size_t n, unsigned char* to, float inverse, int32_t zero) {
  constexpr size_t W = VF::kWidth;
  const size_t whole = n / W * W;
  const Words zeros = set_words(zero);
  const VF factor = set1(inverse);
  size_t i = 0;
#if defined(QG_ISA_AVX512)
#pragma GCC unroll 1
  for (; i + 4 * W <= whole; i += 4 * W)
    store_bytes(to + i, load(from + i) * factor, load(from + i + W) * factor, load(from + i + 2 * W) * factor,
                load(from + i + 3 * W) * factor, zeros);
#endif
  for (; i < whole; i += W) store_bytes(to + i, load(from + i) * factor, zeros);
  if (whole < n) store_bytes(to + whole, load_n(from + whole, int(n - whole)) * factor, zeros);
}

// Several rows at a time, so that none waits for the divisions of another.
[[maybe_unused]] void quantize_rows(const void** rows, size_t n_rows, size_t n, unsigned char* bytes, float* scales,
                                    int32_t* zeros) {
  constexpr size_t kAtOnce = 8;
  if (n_rows == 1) {
    const auto* from = static_cast<const float*>(rows[0]);
    const RowScale s = scale_of(range_of(from, n), n);
    store_row(from, n, bytes, s.inverse, s.zero);
    split_signs(bytes, n, compact_round_up(n));
    rows[0] = bytes;
    scales[0] = s.scale;
    zeros[0] = s.zero;
    return;
  }
  for (size_t first = 0; first < n_rows; first += kAtOnce) {
    const size_t end = n_rows - first < kAtOnce ? n_rows : first + kAtOnce;
    float inverses[kAtOnce];
    for (size_t r = first; r < end; ++r) {
      const RowScale s = scale_of(range_of(static_cast<const float*>(rows[r]), n), n);
      inverses[r - first] = s.inverse;
      scales[r] = s.scale;
      zeros[r] = s.zero;
    }
    for (size_t r = first; r < end; ++r, bytes += compact_row_bytes(n)) {
      store_row(static_cast<const float*>(rows[r]), n, bytes, inverses[r - first], zeros[r]);
      split_signs(bytes, n, compact_round_up(n));
      rows[r] = bytes;
    }
  }
}

constexpr CompactFunctions kInt8 =
    in_pairs({int8_product, quantize_rows, nullptr, nullptr, nullptr, kInt8Rate, kInt8Rate, nullptr});

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
