// The product of gradients with back panels: over the rows of all gates, gate by gate.
#pragma once

#include "kernels/layouts.h"
#include "kernels/multiply.h"
#include "kernels/steps.h"
#include "kernels/tiles.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// Gates whose chains run side by side for one or two rows, which have too few chains by themselves. A matrix with fewer
// gates takes them one after the other; sums are the same.
constexpr int kGatesAbreast = 4;

// Bytes of a panel of all gates up to which it stays in L2 while the tiles of rows pass by, one after the other.
constexpr size_t kSmallPanel = size_t(1) << 17;
// kFewRows: rows of a chunk where a chunk goes through all panels (back_products). kFewGroups: panels above which that
// is done, since output rows are long then. kNearPanels: bytes of all panels up to which it is done: they stay in most
// machines' L2.
constexpr size_t kFewRows = 24, kNearPanels = size_t(1) << 20, kFewGroups = 4;

// Calls fetch(of, row) for each row of a product, which prefetches what the row's sums meet, spread over the product's
// pauses. A core waits for some dozens of lines from beyond L2 at a time, and Zen 3 drops a prefetch beyond these.
struct RowFetch {
  void (*fetch)(const void* of, size_t row);
  const void* of;
  size_t n_rows, pauses = 1, owed = 0, next = 0;
  QG_INLINE void pause() {
    for (owed += n_rows; owed >= pauses; owed -= pauses) fetch(of, next++);
  }
};

// The sums of MR rows over the gates [gate, end), NP of them side by side; those of later gates are added to what the
// earlier ones left, so that a row's sum is ((i + f) + g) + o whatever NP is. With one part of a panel of NV vectors in
// a line, and sums[r] begins at its first vector; or, with kBoth, both side by side, `part` elements from each other.
template <class Real, int NP, int MR, int NV, bool kBoth>
QG_OUTLINE void back_tile(Real (*sums)[NV][Vec<Real>::kWidth], const Real* const* dg, int gate, int end,
                          const Real* panel, const Slice& next, size_t gate_rows, size_t part, RowFetch& rows) {
  constexpr size_t W = Vec<Real>::kWidth;
  constexpr int P = kParts<Real, Real, NV>, N = NV / P, A = kBoth ? P : 1;
  static_assert(NP == 1 || A == 1, "gates or parts go side by side");
  Slice ahead = next;
#pragma GCC unroll 1
  for (; gate < end; gate += NP) {
    rows.pause();
    Vec<Real> a[NP * A][MR][N];
    const Real* from[MR];
    for (int r = 0; r < MR; ++r) {
      from[r] = dg[r] + gate * gate_rows;
      for (int p = 0; p < NP * A; ++p)
        for (int v = 0; v < N; ++v) a[p][r][v] = zero<Real>();
    }
    multiply<false, (A > 1)>(a, from, gate_rows, 1, panel + gate * gate_rows * N * W, A > 1 ? part : gate_rows * N * W,
                             gate_rows, ahead);
    ahead.begin += ahead.bytes_per_k * gate_rows;
    for (int r = 0; r < MR; ++r)
      for (int v = 0; v < A * N; ++v) {
        Vec<Real> sum = gate == 0 ? a[v / N][r][v % N] : load(sums[r][v]) + a[v / N][r][v % N];
        for (int p = 1; p < NP; ++p) sum = sum + a[p][r][v];
        store(sums[r][v], sum);
      }
  }
}

// The same sums from vector v on.
template <int NV, class Real, size_t W>
QG_INLINE Real (*from_vector(Real (*sums)[NV][W], int v))[NV][W] {
  return reinterpret_cast<Real(*)[NV][W]>(sums[0][v]);
}

// sums[r][v] = dg[r] @ a group's back panel, for at most kChunkRows rows. Of a large panel gate by gate for all rows,
// so that a gate's share of it stays in L2 meanwhile. `next` is the panel that follows this one, or null.
template <class Real, int NV>
QG_OUTLINE void back_sums(Real (*sums)[NV][Vec<Real>::kWidth], const Real* const* dg, size_t n_rows, const Real* panel,
                          const Real* next, size_t of_bytes, int gates, size_t gate_rows, RowFetch& rows) {
  constexpr size_t W = Vec<Real>::kWidth;
  constexpr int P = kParts<Real, Real, NV>, N = NV / P;
  const size_t part = gates * gate_rows * N * W;
  if constexpr (N <= kMaxRows)
    if (n_rows == 1 && gates == kGatesAbreast) {
      rows.pauses = P;
      for (int v = 0; v < NV; v += N)
        back_tile<Real, kGatesAbreast, 1, NV, false>(from_vector<NV>(sums, v), dg, 0, gates, panel + v / N * part, {},
                                                     gate_rows, 0, rows);
      return;
    }
  if constexpr (P == 1 && 2 * NV <= kMaxRows)
    if (n_rows == 2 && gates == kGatesAbreast)
      return back_tile<Real, kGatesAbreast, 2, NV, false>(sums, dg, 0, gates, panel, {}, gate_rows, 0, rows);
  constexpr int most = P > 1 ? kPartRows<Real, Real, NV> : kLargestTile<Real, NV>;
  const bool both = P == 1 || parts_abreast(n_rows);
  const Parts tiles(n_rows, n_rows == most || !both ? most : kMaxRows);
  const size_t of_gate = gate_rows * N * W;
  const int step = gates * gate_rows * NV * W * sizeof(Real) <= kSmallPanel ? gates : 1, width = both ? NV : N;
  const size_t bytes_ahead = ahead_bytes<Real>(width, tiles.count, of_bytes);
  rows.pauses = tiles.count * gates * (NV / width);
#pragma GCC unroll 1
  for (int gate = 0; gate < gates; gate += step)
#pragma GCC unroll 1
    for (int v = 0; v < NV; v += width) {
      const Real *here = panel + v / N * part + gate * of_gate,
                 *other = v + width < NV ? here + part : panel + (gate + step) * of_gate;
      const Ahead ahead(here, v + width < NV || gate + step < gates ? other : next, bytes_ahead, of_bytes);
      for (size_t t = 0; t < tiles.count; ++t)
        with_constant<most>(
            tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
              constexpr int MR = decltype(mr)::value;
              back_tile<Real, 1, MR, NV, (P > 1 && MR <= kMaxRows)>(
                  from_vector<NV>(sums + tiles.begin(t), v), dg + tiles.begin(t), gate, gate + step,
                  panel + v / N * part, ahead.slice(t, step * gate_rows), gate_rows, part, rows);
            });
    }
}

// For groups [begin, end) of output columns and all rows: finish(row, block, sums) for every vector of dg @ weight,
// whose sums lie in memory.
//
// The sums of a chunk of rows lie in `work`. `gate_rows` rows for each gate; row(r) gives the (gates * gate_rows)
// operand; if `absent`, there is none and the sums are zero. If `fetches`, prefetch(row, block, n) is called for every
// row and its n blocks during the product whose sums they get.
//
// A panel is used for all chunks of rows before the next panel. But where there are more than kFewGroups panels, each
// of at most kSmallPanel bytes and all together of at most kNearPanels, a chunk goes through all panels before the next
// chunk: output rows are written from end to end then, which memory beyond L2 takes faster.
template <class Real, class Row, class Prefetch, class Finish>
QG_INLINE void back_products(const Real* w_back, size_t gates, size_t gate_rows, size_t n_cols, size_t n_rows,
                             size_t begin, size_t end, bool descending, bool absent, Real* work, Row&& row,
                             bool fetches, Prefetch&& prefetch, Finish&& finish) {
  constexpr size_t W = Vec<Real>::kWidth;
  alignas(64) static constexpr Real kZeros[W] = {};
  const size_t n_groups = end - begin, panel_bytes = gates * gate_rows * kGroupBlocks * W * sizeof(Real);
  const bool by_rows = n_groups > kFewGroups && panel_bytes <= kSmallPanel && n_groups * panel_bytes <= kNearPanels;
  const Parts groups((n_cols + W - 1) / W, kGroupBlocks), chunks(n_rows, by_rows ? kFewRows : kChunkRows);
  auto panel_of = [&](size_t i) {
    return w_back + groups.begin(descending ? end - 1 - i : begin + i) * gates * gate_rows * W;
  };
  for (size_t at = 0; at < n_groups * chunks.count; ++at) {
    const size_t i = by_rows ? at % n_groups : at / chunks.count, c = by_rows ? at / n_groups : at % chunks.count;
    const size_t group = descending ? end - 1 - i : begin + i, block = groups.begin(group);
    const bool stays = !by_rows && c + 1 < chunks.count;
    const Real* next = stays ? panel_of(i) : i + 1 < n_groups ? panel_of(i + 1) : nullptr;
    const size_t first = chunks.begin(c), n = size_t(chunks.size(c));
    const int n_vectors = groups.size(group);
    const Real* dg[kChunkRows];
    for (size_t r = 0; r < n; ++r) dg[r] = row(first + r);
    auto fetch = [&](size_t r) __attribute__((always_inline)) {
      prefetch(first + r, block, n_vectors);
      asm volatile("");  // gcc leaves out calls of a function that does nothing but prefetch
    };
    RowFetch rows = {[](const void* of, size_t r) { (*static_cast<const decltype(fetch)*>(of))(r); }, &fetch,
                     fetches ? n : 0};
    if (!absent)
      with_constant<kGroupBlocks>(
          n_vectors, [&](auto nv) __attribute__((always_inline)) {
            constexpr int NV = decltype(nv)::value;
            back_sums<Real, NV>(reinterpret_cast<Real(*)[NV][W]>(work), dg, n, panel_of(i), next,
                                n_groups * panel_bytes, int(gates), gate_rows, rows);
          });
    const Real* sums = work;
#pragma GCC unroll 1  // finish is compiled once
    for (size_t r = 0; r < n; ++r)
#pragma GCC unroll 1
      for (int v = 0; v < n_vectors; ++v, sums += W) finish(first + r, block + v, absent ? kZeros : sums);
  }
}

template <class Real>
void back_product(const BackProduct<Real>& s) {
  back_products<Real>(
      s.w_back, s.n_gates, s.n_rows_of_gate, s.n_cols, s.n_rows, s.group_begin, s.group_end, false, false,
      s.work, [&](size_t r) __attribute__((always_inline)) { return s.dg[r]; }, false, [](size_t, size_t, int) {},
      [&](size_t r, size_t block, const Real* sums) __attribute__((always_inline)) {
        const Vec<Real> sum = load(sums);
        Real* out = s.out[r] + block * Vec<Real>::kWidth;
        int n = lanes_of<Real>(block, s.n_cols);
        store_upto(out, s.add ? load_upto(out, n) + sum : sum, n);
      });
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
