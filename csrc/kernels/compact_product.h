// The products of rows with compact weights that are widened to float, a group of rows at a time: the one thing that
// each compact type has of its own. Those of int8 are in int8_product.h.
//
// Sums wait in memory between calls, so that cells and time loop need no copy for each type.
#pragma once

#include "cells/dispatch.h"
#include "kernels/compact_steps.h"
#include "kernels/tile_sums.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// One row with two panels.
template <class Storage, int NV>
QG_INLINE void near_tile(const CompactProduct& s) {
  constexpr size_t W = VF::kWidth;
  const float* const rows[1] = {static_cast<const float*>(s.rows[0])};
  VF a[2][1][NV];
#pragma GCC unroll 16
  for (int v = 0; v < 2 * NV; ++v) a[v / NV][0][v % NV] = load(s.from + v * W);
  multiply(a, rows, 0, 1, static_cast<const Storage*>(s.panels), s.panel_bytes / sizeof(Storage), s.n_k, {});
#pragma GCC unroll 16
  for (int v = 0; v < 2 * NV; ++v) store(s.lines + v * W, a[v / NV][0][v % NV]);
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
#pragma GCC unroll 2
  for (int p = 0; p < 2; ++p)
#pragma GCC unroll 8
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
#pragma GCC unroll 2
  for (int p = 0; p < 2; ++p)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) store(s.lines + (p * NV + v) * W, a[p][0][v]);
}

// Rows of the largest tile of whole lines: of 16 bits one of 7 rows, too, since 7 rows take as long as 8 by half a
// line. GCC 12 spills a sum of one of bfloat16 where there are 16 registers, which takes twice as long; half a line at
// a time takes 1.3 times as long.
template <class Storage>
constexpr size_t kWholeTileRows = sizeof(Storage) < sizeof(float) ? kMostRows : kMaxRows;
#if defined(QG_ISA_AVX2)
template <>
constexpr size_t kWholeTileRows<BFloat16> = kMaxRows - 1;
#endif
// CompactFunctions::few_rows
template <class Storage>
constexpr size_t kFewTileRows = kWholeTileRows<Storage> < size_t(kMaxRows) ? kWholeTileRows<Storage> : kMaxRows;

// All rows with one panel, for n_k of their k, whose weights begin at `w`. next: the weights to prefetch meanwhile.
template <class Storage, int NV, class Next>
QG_INLINE void compact_tiles(const CompactProduct& s, const Storage* w, size_t first_k, size_t n_k, const Next* next) {
  constexpr size_t kRows = kWholeTileRows<Storage>;
  const Parts tiles(s.n_rows, kRows);
  TileSums<float, Storage> tile;
  TileProduct<float, Storage>& product = tile.products[0];
  tile.from_at = 0;
  tile.to_panel = 0;
  tile.to_stride = s.row_stride;
  tile.n_products = 1;
  product.set_sizes(n_k, 0, ahead_bytes<float, Next>(NV, tiles.count, s.of_bytes), s.of_bytes);
  for (size_t t = 0; t < tiles.count; ++t) {
    const size_t first = tiles.begin(t);
    const int n_rows = tiles.size(t);
    for (int r = 0; r < n_rows; ++r) {
      tile.from[r] = s.from + (first + r) * s.from_stride;
      product.rows[r] = static_cast<const float*>(s.rows[first + r]) + first_k;
    }
    tile.to = s.lines + first * s.row_stride;
    product.set_panel(w, next, t);
    sum_products_of<int(kRows), 1, NV>(tile, n_rows);
  }
}

// The same for weights that have been widened. Compiled once for all types.
template <int NV>
QG_OUTLINE void wide_tiles(const CompactProduct& s, size_t first_k, size_t n_k, const void* next) {
  compact_tiles<float, NV>(s, s.wide, first_k, n_k, static_cast<const uint16_t*>(next));
}

// Panels in float. The upper half of a vector of a narrow one is overwritten by the next vector; the last one's lies
// behind the panel (PanelShape::elements).
template <class Storage>
void widen(const void* from, size_t n_panels, size_t n_k, int n_vectors, bool narrow_last, float* to) {
  const auto* w = static_cast<const Storage*>(from);
  const int parts = n_vectors == kLineVectors ? kParts<float, float, kLineVectors> : 1;
  const size_t line = n_vectors * size_t(VF::kWidth);
  for (size_t p = 0; p < n_panels; ++p, to += n_k * line) {
    const bool narrow = narrow_last && p + 1 == n_panels;
    const int n = narrow ? n_vectors : n_vectors / parts, step = narrow ? VF::kWidth / 2 : VF::kWidth;
    for (size_t k = 0; k < n_k; ++k, w += line)
      for (int v = 0; v < n_vectors; ++v) store(to + ((v / n * n_k + k) * n + v % n) * step, load_widened<float>(w, v));
  }
}

// Up to MR rows, too many for a tile of whole lines, with one panel: half of its lines at a time, so that all rows
// share what is widened. Missing rows repeat the last one.
template <class Storage, int MR, int NV>
QG_OUTLINE void half_tiles(const CompactProduct& s) {
  constexpr size_t W = VF::kWidth;
  const uintptr_t next = reinterpret_cast<uintptr_t>(s.next) - reinterpret_cast<uintptr_t>(s.panels);
  for (int half = 0; half < 2; ++half) {
    const float* from = s.from + half * (NV / 2) * W;
    float* lines = s.lines + half * (NV / 2) * W;
    const auto* w = static_cast<const Storage*>(s.panels);
    VF a[MR][NV / 2];
    const float* rows[MR];
    float* to[MR];
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      const size_t row = size_t(r) < s.n_rows ? r : s.n_rows - 1;
      rows[r] = static_cast<const float*>(s.rows[row]);
      to[r] = lines + row * s.row_stride;
#pragma GCC unroll 4
      for (int v = 0; v < NV / 2; ++v) a[r][v] = load(from + row * s.from_stride + v * W);
    }
#pragma GCC unroll 2
    for (size_t k = 0; k < s.n_k; ++k, w += NV * W) {
      __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(w + half * (NV / 2) * W) + next), 0,
                         2);
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
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV / 2; ++v) store(to[r] + v * W, a[r][v]);
  }
}

// From a half tile's rows to the next larger one's.
constexpr int kHalfTileStep = kMaxRows % 2 ? 1 : 2;

// Up to two tiles of rows widen the weights as they read them; more of them share what is widened once.
template <class Storage, int NV>
QG_INLINE void product_of_floats(const CompactProduct& s) {
  constexpr size_t line = NV * VF::kWidth;
  const auto* w = static_cast<const Storage*>(s.panels);
  if (s.n_panels == 2) {
    if (s.far) return far_tile<Storage, NV>(s);
    return near_tile<Storage, NV>(s);
  }
  if (s.n_rows <= kWholeTileRows<Storage>)
    return compact_tiles<Storage, NV>(s, w, 0, s.n_k, static_cast<const Storage*>(s.next));
  if (s.n_rows <= 2 * size_t(kMaxRows))
    return with_constant<kMaxRows / kHalfTileStep>(
        s.n_rows <= size_t(kMaxRows) ? 1 : (int(s.n_rows) - kMaxRows + kHalfTileStep - 1) / kHalfTileStep,
        [&](auto steps) __attribute__((always_inline)) {
          half_tiles<Storage, kMaxRows + kHalfTileStep* decltype(steps)::value, NV>(s);
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

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
