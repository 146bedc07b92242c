// The sums of a tile of rows with a panel over one or two products, from memory to memory: what a step of many rows, a
// product of many rows and narrow panels have in common.
//
// A function of its own for each number of rows. Inlined in loops over panels and tiles, its loop over k kept some of
// their variables in vector registers, by moves that take the place of multiply-adds: steps took up to a tenth longer.
#pragma once

#include "kernels/multiply.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// Rows of the largest tile: that of narrow panels has as many as any other.
constexpr int kMostSumRows = larger(kMostRows, kPartRows<float, float, kLineVectors>);

// For sums that begin with zero.
template <class Real>
alignas(64) constexpr Real kZeroLine[kLineVectors * Vec<Real>::kWidth] = {};

template <class Real, class Storage>
struct TileProduct {
  const Real* rows[kMostSumRows];  // (n_k) each
  const Storage* w;                // (n_k,N,W) for each panel
  size_t w_stride, n_k;            // elements from a panel to the one at its side
  Slice ahead;

  // Sets the sizes, and the bytes that a tile prefetches for a k: the same for all tiles.
  QG_INLINE void set_sizes(size_t size, size_t stride, size_t bytes_ahead, size_t of_bytes) {
    n_k = size;
    w_stride = stride;
    ahead.bytes_per_k = bytes_ahead;
    ahead.of_bytes = of_bytes;
  }
  // The panels of a tile, which prefetches its share of `next`.
  template <class Next>
  QG_INLINE void set_panel(const Storage* panel, const Next* next, size_t tile) {
    w = panel;
    ahead.begin = reinterpret_cast<const char*>(next) + tile * n_k * ahead.bytes_per_k;
  }
};

// For NP panels side by side with N vectors in a line; all arrays of rows have as many elements as the tile has rows.
template <class Real, class Storage>
struct TileSums {
  const Real* from[kMostSumRows];  // `from_at` elements further, (NP,N,W) each: what the sums begin with; may be `to`
  size_t from_at;
  Real* to;  // (N,W) of each panel and row; panels are to_panel elements apart, rows to_stride
  size_t to_panel, to_stride;
  int n_products;
  TileProduct<Real, Storage> products[2];
};

template <int NP, int MR, int N, class Real, class Storage>
QG_INLINE void add_tile_product(Vec<Real> (&a)[NP][MR][N], const TileProduct<Real, Storage>& product) {
  const Real* rows[MR];
  for (int r = 0; r < MR; ++r) rows[r] = product.rows[r];
  multiply<false, (NP > 1)>(a, rows, 0, 1, product.w, product.w_stride, product.n_k, product.ahead);
}

// The loops that load and store sums must be unrolled early: else GCC keeps a second copy of all sums on the stack.
template <int NP, int MR, int N, class Real, class Storage>
QG_OUTLINE void sum_products(const TileSums<Real, Storage>& s) {
  constexpr int W = Vec<Real>::kWidth;
  Real* const to = s.to;
  const size_t to_panel = s.to_panel, to_stride = s.to_stride;
  const TileProduct<Real, Storage>*product = s.products, *const end = product + s.n_products;
  Vec<Real> a[NP][MR][N];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) a[p][r][v] = load(s.from[r] + s.from_at + (p * N + v) * W);
  do {
    add_tile_product(a, *product);
  } while (++product < end);
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) store(to + p * to_panel + r * to_stride + v * W, a[p][r][v]);
}

// The same for n_rows rows, Most at most; `Abreast` panels are side by side for up to kMaxRows rows, else one.
template <int Most, int Abreast, int N, class Real, class Storage>
QG_INLINE void sum_products_of(const TileSums<Real, Storage>& s, int n_rows) {
  with_constant<Most>(
      n_rows, [&](auto mr) __attribute__((always_inline)) {
        constexpr int MR = decltype(mr)::value;
        sum_products<(MR > kMaxRows ? 1 : Abreast), MR, N>(s);
      });
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
