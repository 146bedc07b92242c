// The products of rows with compact weights, a group of rows at a time: the one thing that each compact type has of its
// own.
//
// Sums wait in memory between calls, so that cells and time loop need no copy for each type.
#pragma once

#include "cells/dispatch.h"
#include "kernels/compact_steps.h"
#include "kernels/multiply.h"
#include "kernels/weights/int8.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// MR rows with NP panels, for n_k of their k from `w` on.
template <class Storage, int NP, int MR, int NV>
QG_INLINE void compact_tile(const CompactProduct& s, const Storage* w, size_t first_k, size_t n_k, size_t row,
                            Slice ahead) {
  constexpr size_t W = VF::kWidth;
  VF a[NP][MR][NV];
  const float* rows[MR];
  for (int r = 0; r < MR; ++r) {
    rows[r] = static_cast<const float*>(s.rows[row + r]) + first_k;
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < NV; ++v) a[p][r][v] = load(s.from + (row + r) * s.from_stride + (p * NV + v) * W);
  }
  multiply(a, rows, 0, 1, w, s.panel_bytes / sizeof(Storage), n_k, ahead);
  for (int r = 0; r < MR; ++r)
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < NV; ++v) store(s.lines + (row + r) * s.row_stride + (p * NV + v) * W, a[p][r][v]);
}

// One row with two panels that may come from memory. Both are prefetched two kilobytes ahead, since the instructions
// that widen weights leave fewer reads in flight: a tenth to a quarter less time from there.
template <class Storage, int NV>
QG_OUTLINE void far_tile(const CompactProduct& s) {
  constexpr size_t W = VF::kWidth, line = NV * W, kAheadBytes = 2048;
  const size_t w_stride = s.panel_bytes / sizeof(Storage);
  const auto* w = static_cast<const Storage*>(s.panels);
  const float* const rows[1] = {static_cast<const float*>(s.rows[0])};
  VF a[2][1][NV];
  for (int p = 0; p < 2; ++p)
    for (int v = 0; v < NV; ++v) a[p][0][v] = load(s.from + (p * NV + v) * W);
#pragma GCC unroll 2
  for (size_t k = 0; k < s.n_k; ++k, w += line) {
    const char* ahead = reinterpret_cast<const char*>(w) + kAheadBytes;
#pragma GCC unroll 4
    for (size_t b = 0; b < line * sizeof(Storage); b += 64) {
      __builtin_prefetch(ahead + b, 0, 2);
      __builtin_prefetch(ahead + s.panel_bytes + b, 0, 2);
    }
    multiply_line(a, rows, 0, k, w, w_stride);
  }
  for (int p = 0; p < 2; ++p)
    for (int v = 0; v < NV; ++v) store(s.lines + (p * NV + v) * W, a[p][0][v]);
}

// All rows with one panel or a part of it. next: the weights to prefetch meanwhile.
template <class Storage, int NV, class Next>
QG_INLINE void compact_tiles(const CompactProduct& s, const Storage* w, size_t first_k, size_t n_k, const Next* next) {
  const Parts tiles(s.n_rows, kMaxRows);
  const Ahead<float, Next> ahead = {next, next, tiles.count};
  for (size_t t = 0; t < tiles.count; ++t)
    with_constant<kMaxRows>(
        tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
          compact_tile<Storage, 1, decltype(mr)::value, NV>(s, w, first_k, n_k, tiles.begin(t),
                                                            ahead.slice(t, n_k, NV));
        });
}

// The same for weights that have been widened. Compiled once for all types.
template <int NV>
QG_OUTLINE void wide_tiles(const CompactProduct& s, size_t first_k, size_t n_k, const void* next) {
  compact_tiles<float, NV>(s, s.wide, first_k, n_k, static_cast<const uint16_t*>(next));
}

template <class Storage>
void widen(const void* from, size_t n_lines, int n_vectors, float* to) {
  const auto* w = static_cast<const Storage*>(from);
  const size_t line = n_vectors * size_t(VF::kWidth);
  for (size_t i = 0; i < n_lines; ++i, w += line, to += line)
    for (int v = 0; v < n_vectors; ++v) store(to + v * VF::kWidth, load_widened<float>(w, v));
}

// Up to MR rows, too many for a tile of whole lines, with one panel: half of its lines at a time, so that all rows
// share what is widened. Missing rows repeat the last one.
template <class Storage, int MR, int NV>
QG_INLINE void half_tiles(const CompactProduct& s, size_t bytes_ahead) {
  constexpr size_t W = VF::kWidth;
  const char* ahead = static_cast<const char*>(s.next);
  for (int half = 0; half < 2; ++half) {
    const float* from = s.from + half * (NV / 2) * W;
    float* lines = s.lines + half * (NV / 2) * W;
    const auto* w = static_cast<const Storage*>(s.panels);
    VF a[MR][NV / 2];
    const float* rows[MR];
    float* to[MR];
    for (int r = 0; r < MR; ++r) {
      const size_t row = size_t(r) < s.n_rows ? r : s.n_rows - 1;
      rows[r] = static_cast<const float*>(s.rows[row]);
      to[r] = lines + row * s.row_stride;
      for (int v = 0; v < NV / 2; ++v) a[r][v] = load(from + row * s.from_stride + v * W);
    }
#pragma GCC unroll 2
    for (size_t k = 0; k < s.n_k; ++k, w += NV * W, ahead += bytes_ahead) {
      __builtin_prefetch(ahead, 0, 2);
      VF weights[NV / 2];
#pragma GCC unroll 4
      for (int v = 0; v < NV / 2; ++v) weights[v] = load_widened<float>(w, half * (NV / 2) + v);
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r) {
        const VF x = set1(rows[r][k]);
#pragma GCC unroll 4
        for (int v = 0; v < NV / 2; ++v) a[r][v] = fma(x, weights[v], a[r][v]);
      }
    }
    for (int r = 0; r < MR; ++r)
      for (int v = 0; v < NV / 2; ++v) store(to[r] + v * W, a[r][v]);
  }
}

// Up to two tiles of rows widen the weights as they read them; more of them share what is widened once.
template <class Storage, int NV>
QG_INLINE void product_of_floats(const CompactProduct& s) {
  constexpr size_t line = NV * VF::kWidth;
  const auto* w = static_cast<const Storage*>(s.panels);
  if (s.n_panels == 2) {
    if (s.far) return far_tile<Storage, NV>(s);
    return compact_tile<Storage, 2, 1, NV>(s, w, 0, s.n_k, 0, {});
  }
  if (s.n_rows <= size_t(kMaxRows))
    return compact_tiles<Storage, NV>(s, w, 0, s.n_k, static_cast<const Storage*>(s.next));
  if (s.n_rows <= 2 * size_t(kMaxRows))
    return with_constant<(kMaxRows + 1) / 2>(
        (int(s.n_rows) - kMaxRows + 1) / 2, [&](auto pairs) __attribute__((always_inline)) {
          constexpr int more = 2 * decltype(pairs)::value, most = more < kMaxRows ? more : kMaxRows;
          half_tiles<Storage, kMaxRows + most, NV>(s, sizeof(Storage) * line / 2);
        });
  CompactProduct part = s;
  for (size_t k = 0; k < s.n_k; k += kWideK) {
    const size_t n = s.n_k - k < kWideK ? s.n_k - k : kWideK;
    for (size_t i = 0; i < n; ++i, w += line)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) store(s.wide + i * line + v * VF::kWidth, load_widened<float>(w, v));
    wide_tiles<NV>(part, k, n, k + n < s.n_k ? w : s.next);
    part.from = s.lines;
    part.from_stride = s.row_stride;
  }
}

template <class Storage>
void float_product(const CompactProduct& s) {
  with_line(
      s.n_vectors, [&](auto nv) __attribute__((always_inline)) { product_of_floats<Storage, decltype(nv)::value>(s); });
}

// ---- int8 ----

template <int NP, int MR, int NV>
QG_INLINE void int8_tile(const CompactProduct& s, size_t row, Slice ahead) {
  constexpr size_t W = VF::kWidth;
  const size_t groups = (s.n_k + kInt8Group - 1) / kInt8Group;
  Words a[NP][MR][NV];
  const unsigned char* rows[MR];
  for (int r = 0; r < MR; ++r) {
    rows[r] = static_cast<const unsigned char*>(s.rows[row + r]);
    const Words minus_zero = set_words(-s.row_zeros[row + r]);
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < NV; ++v) a[p][r][v] = times(load_words(s.sums + (p * NV + v) * W), minus_zero);
  }
  const char *w = static_cast<const char*>(s.panels), *next = ahead.begin;
  constexpr size_t group = W * kInt8Group, tile = kInt8Tile;
  // Products of n groups; bytes from one to the next, and from a vector to the next.
  auto take = [&](size_t k, size_t n, size_t next_group, size_t next_vector) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (const size_t end = k + n; k < end; ++k, w += next_group, next += ahead.bytes_per_k) {
      if constexpr (MR * NV > 12) __builtin_prefetch(next, 0, 2);
      Factor x[MR];
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        int32_t four;
        __builtin_memcpy(&four, rows[r] + k * kInt8Group, sizeof four);
        x[r] = factor(set_words(four));
      }
#pragma GCC unroll 4
      for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
          const Factor weights = factor(load_words(w + p * s.panel_bytes + v * next_vector));
#pragma GCC unroll 8
          for (int r = 0; r < MR; ++r) a[p][r][v] = dot(a[p][r][v], x[r], weights);
        }
    }
  };
  if constexpr (MR == 1) {  // addresses of a base and a constant: operands of their instructions at no cost
    size_t k = 0;
    for (; k + tile <= groups; k += tile, w += (NV - 1) * tile * group) take(k, tile, group, tile * group);
    take(k, groups - k, NV * group, group);
  } else {
    for (size_t k = 0; k < groups; k += tile) {
      const size_t rest = groups - k;
      const bool whole = rest >= tile;
      take(k, whole ? tile : rest, whole ? group : NV * group, whole ? tile * group : group);
      if (whole) w += (NV - 1) * tile * group;
    }
  }
  for (int r = 0; r < MR; ++r) {
    const VF row_scale = set1(s.row_scales[row + r]);
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < NV; ++v) {
        const VF scale = row_scale * load(s.scales + (p * NV + v) * W);
        const VF before = load(s.from + (row + r) * s.from_stride + (p * NV + v) * W);
        store(s.lines + (row + r) * s.row_stride + (p * NV + v) * W, fma(number(a[p][r][v]), scale, before));
      }
  }
}

// A function of its own, so that the compiler does not keep its pointers in vector registers.
template <int NV>
QG_OUTLINE void product_of_row(const CompactProduct& s) {
  int8_tile<2, 1, NV>(s, 0, {});
}

template <int NV>
QG_INLINE void product_of_int8(const CompactProduct& s) {
  if (s.n_panels == 2) return product_of_row<NV>(s);
  const Parts tiles(s.n_rows, kInt8Rows);
  const size_t groups = (s.n_k + kInt8Group - 1) / kInt8Group;
  const Ahead<float, int32_t> ahead = {static_cast<const int32_t*>(s.panels), static_cast<const int32_t*>(s.next),
                                       tiles.count};
  for (size_t t = 0; t < tiles.count; ++t)
    with_constant<kInt8Rows>(
        tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
          int8_tile<1, decltype(mr)::value, NV>(s, tiles.begin(t), ahead.slice(t, groups, NV));
        });
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
      rows[r] = bytes;
    }
  }
}

constexpr CompactFunctions kInt8 = {int8_product, quantize_rows, nullptr,   nullptr,
                                    nullptr,      kInt8Rate,     kInt8Rate, nullptr};

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
