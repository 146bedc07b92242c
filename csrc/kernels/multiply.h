// The one matrix product of quadgate: a tile of sums that stays in registers while k runs.
//
// sums[p][r][v] += sum over k of a[r][p * a_stride + k * a_step] * w[p * w_stride + (k * NV + v) * W ...]
//
// The weights are of type Storage, and widened to Real a vector at a time.
//
// NP  panels (or segments of k) worked on side by side, each with its own weights
// MR  rows that share the weights loaded for one k
// NV  vectors of columns, adjacent in memory for each k
//
// Each sum is one chain of fused multiply-adds in the order of k. A machine with two multiply-add ports of latency 4
// needs 8 chains in flight; NP * MR * NV is chosen to give them, so k is never split.
// Cost per k and full AVX-512 tile (NP 1, MR 6, NV 4): 24 multiply-adds in 12 cycles, 4 + 6 loads, 256 bytes of
// weights.
#pragma once

#include "kernels/layouts.h"
#include "kernels/tiles.h"
#include "kernels/vec/vec.h"
#include "kernels/weights/bfloat16.h"
#include "kernels/weights/float16.h"
#include "kernels/weights/real.h"

namespace quadgate {
namespace QG_ISA {

// Region to prefetch into L2 during the product; the address may be invalid. `of_bytes`: of all panels that the call
// reads, by which some tiles choose whether to prefetch at all (ahead_from). Functions of tiles take it by reference:
// by value GCC loads two words at once that were stored one by one, which waits for all earlier stores.
struct Slice {
  const char* begin;
  size_t bytes_per_k, of_bytes;
};

// One k of every sum. kShared: all panels have the same rows.
template <bool kShared = false, class Real, class Storage, int NP, int MR, int NV>
QG_INLINE void multiply_line(Vec<Real> (&sums)[NP][MR][NV], const Real* const (&a)[MR], size_t a_stride, size_t at,
                             const Storage* w, size_t w_stride) {
  if constexpr (kShared && NP > 1) {
    Vec<Real> x[MR];
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) x[r] = set1(a[r][at]);
#pragma GCC unroll 8
    for (int v = 0; v < NP * NV; ++v) {
      const Vec<Real> weight = load_widened<Real>(w + v / NV * w_stride, v % NV);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) sums[v / NV][r][v % NV] = fma(x[r], weight, sums[v / NV][r][v % NV]);
    }
    return;
  }
#pragma GCC unroll 4
  for (int p = 0; p < NP; ++p) {
    const Storage* weights = w + p * w_stride;
    if constexpr (NP * MR * NV + NV + 1 <= kRegisters) {  // weights in registers, one row after the other
      Vec<Real> weight[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) weight[v] = load_widened<Real>(weights, v);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        const Vec<Real> x = set1(a[r][p * a_stride + at]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) sums[p][r][v] = fma(x, weight[v], sums[p][r][v]);
      }
    } else if constexpr (MR > kMaxRows) {  // no register for rows
      Vec<Real> weight[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) weight[v] = load_widened<Real>(weights, v);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) sums[p][r][v] = fma_element(a[r] + p * a_stride + at, weight[v], sums[p][r][v]);
    } else {  // rows in registers, one vector of weights after the other
      Vec<Real> x[MR];
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) x[r] = set1(a[r][p * a_stride + at]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        const Vec<Real> weight = load_widened<Real>(weights, v);
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) sums[p][r][v] = fma(x[r], weight, sums[p][r][v]);
      }
    }
  }
}

// Rows of the largest tile of NV vectors in a line. One of kMostRows is for exactly as many rows: where a tile waits
// for its weights, or a neighbour on the core takes half of its loads, 7 rows need 0.85 to 0.9 of the time of 3 and 4.
template <class Real, int NV>
constexpr int kLargestTile = sizeof(Real) == sizeof(float) && (kMostRows + 1) * NV == kRegisters ? kMostRows : kMaxRows;

// Rows of an operand that are a_step apart are prefetched into L1 so many k ahead: no hardware does that for steps of
// 2 KB and more, in which the gradients of all but small networks lie. The address may be invalid.
constexpr size_t kRowsAhead = 8;

// `ahead`: memory to prefetch into L2 meanwhile, see Ahead. kFarRows: a_step may be large, and the elements
// of all rows for one k are neighbours.
template <bool kFarRows = false, bool kShared = false, class Real, class Storage, int NP, int MR, int NV>
QG_INLINE void multiply(Vec<Real> (&sums)[NP][MR][NV], const Real* const (&a)[MR], size_t a_stride, size_t a_step,
                        const Storage* w, size_t w_stride, size_t n_k, Slice ahead) {
  constexpr int W = Vec<Real>::kWidth;
  constexpr size_t from = kFarRows && MR * NV <= 12 ? kNever : ahead_from(NP, MR, NV, sizeof(Real));
  auto products = [&](auto fetch) __attribute__((always_inline)) {
    constexpr bool kFetch = decltype(fetch)::value != 0;
    size_t at = 0;
    if constexpr (NP * MR * NV >= 12 || kFetch) {  // unrolled by 4, it would be twice as large and no faster
      const char* line = ahead.begin;
#pragma GCC unroll 2
      for (size_t k = 0; k < n_k; ++k, at += a_step, w += NV * W, line += ahead.bytes_per_k) {
        if constexpr (kFetch) __builtin_prefetch(line, 0, 2);
        if constexpr (kFarRows) __builtin_prefetch(a[0] + at + kRowsAhead * a_step, 0, 3);
        multiply_line<kShared>(sums, a, a_stride, at, w, w_stride);
      }
    } else {
#pragma GCC unroll 4
      for (size_t k = 0; k < n_k; ++k, at += a_step, w += NV * W)
        multiply_line<kShared>(sums, a, a_stride, at, w, w_stride);
    }
  };
  if constexpr (from == 0) {
    products(Int<1>{});
  } else if constexpr (from == kNever) {
    products(Int<0>{});
  } else {
    if (ahead.of_bytes >= from)
      products(Int<1>{});
    else
      products(Int<0>{});
  }
}

constexpr int larger(int a, int b) { return a > b ? a : b; }

// Parts that a whole panel of NV vectors in a line lies in, and rows of the largest tile with a part.
template <class Real, class Storage, int NV>
constexpr int kParts = 1;
template <int NV>
constexpr int kParts<float, float, NV> = (NV == kLineVectors && kHalfLines<float>) ? 2 : 1;
template <class Real, class Storage, int NV>
constexpr int kPartRows = kParts<Real, Storage, NV> == 2 ? 2 * kMaxRows : kMaxRows;
// True where parts go side by side, so that there are enough chains: of few rows, and where a tile would have few.
QG_INLINE bool parts_abreast(size_t n_rows) { return n_rows <= kMaxRows || n_rows == 2 * kMaxRows + 1; }

// True if the last panel may be narrow: of float alone, since vectors of double are short already.
template <class Real, class Storage, int NV>
constexpr bool kNarrowLast = false;
template <int NV>
constexpr bool kNarrowLast<float, float, NV> = NV % 2 == 0;

template <class Real, class Storage = Real>
QG_INLINE size_t ahead_bytes(int n_vectors, size_t n_tiles, size_t of_bytes) {
  return quadgate::ahead_bytes(size_t(n_vectors) * Vec<Real>::kWidth * sizeof(Storage), n_tiles, of_bytes);
}

// The same of a panel's tiles, one after the other.
struct Ahead {
  const char* next;
  size_t bytes, of_bytes;  // see Slice
  // next: null for the last panel, then a tile prefetches its own.
  QG_INLINE Ahead(const void* panel, const void* next, size_t bytes, size_t of_bytes)
      : next(static_cast<const char*>(next ? next : panel)), bytes(bytes), of_bytes(of_bytes) {}
  QG_INLINE Slice slice(size_t tile, size_t n_k) const { return {next + tile * n_k * bytes, bytes, of_bytes}; }
};

}  // namespace QG_ISA
}  // namespace quadgate
