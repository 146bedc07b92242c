// The product of many rows with a packed matrix: the input's, ahead of the time loop, and a projection's, with the h
// that is made of it.
#pragma once

#include "cells/dispatch.h"
#include "kernels/tile_sums.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// One row of NP neighbouring panels, or parts of panels, with N vectors in a line.
template <int N, int NP, class Real, class Storage>
QG_INLINE void project_row(const Project<Real, Storage>& s, size_t panel) {
  constexpr size_t W = Vec<Real>::kWidth, line = N * W;
  Vec<Real> a[NP][1][N];
  for (int p = 0; p < NP; ++p)
    for (int v = 0; v < N; ++v) a[p][0][v] = s.bias ? load(s.bias + (panel + p) * line + v * W) : zero<Real>();
  const Real* const x[1] = {s.x[0]};
  const size_t size = s.input_size * line;
  multiply<false, (NP > 1 && N < kLineVectors)>(a, x, 0, 1, s.w_ih + panel * size, size, s.input_size, {});
  for (int p = 0; p < NP; ++p)
    for (int v = 0; v < N; ++v) store(s.pre + (panel + p) * line + v * W, a[p][0][v]);
}

template <int NV, class Real, class Storage>
QG_INLINE void project_line(const Project<Real, Storage>& s) {
  constexpr size_t W = Vec<Real>::kWidth;
  constexpr int P = kParts<Real, Storage, NV>, N = NV / P, most = kPartRows<Real, Storage, NV>;
  const size_t I = s.input_size, size = I * N * W;
  const bool narrow = s.narrow_last && s.block_end == s.n_blocks && s.block_begin < s.block_end;
  const size_t whole_end = s.block_end - narrow;
  const bool both = P == 1 || parts_abreast(s.n_rows);
  const Parts tiles(s.n_rows, both ? kMaxRows : most);
  TileSums<Real, Storage> tile;
  TileProduct<Real, Storage>& product = tile.products[0];
  tile.n_products = 1;
  tile.to_panel = N * W;
  tile.to_stride = s.n_blocks * NV * W;
  for (const Real*& from : tile.from) from = s.bias ? s.bias : kZeroLine<Real>;
  auto set_rows = [&](size_t t, size_t at) {
    const size_t first = tiles.begin(t);
    tile.from_at = s.bias ? at : 0;
    tile.to = s.pre + first * tile.to_stride + at;
#pragma GCC unroll 1
    for (int r = 0, n = tiles.size(t); r < n; ++r) product.rows[r] = s.x[first + r];
  };
  if (s.n_rows == 1) {
    size_t panel = s.block_begin;
    for (; panel + 1 < whole_end; panel += 2) project_row<N, 2 * P>(s, P * panel);
    if (panel < whole_end) project_row<N, P>(s, P * panel);
  } else {
    const size_t step = both ? P : 1;
    const size_t of_bytes = (s.block_end - s.block_begin) * I * NV * W * sizeof(Storage);
    product.set_sizes(I, size, ahead_bytes<Real, Storage>(N, tiles.count, of_bytes), of_bytes);
    for (size_t part = P * s.block_begin; part < P * whole_end; part += step) {
      const size_t next = part + step < P * s.block_end ? part + step : part;
      for (size_t t = 0; t < tiles.count; ++t) {
        set_rows(t, part * N * W);
        product.set_panel(s.w_ih + part * size, s.w_ih + next * size, t);
        sum_products_of<most, P, N>(tile, tiles.size(t));
      }
    }
  }
  if constexpr (kNarrowLast<Real, Storage, NV>) {
    const Storage* last = s.w_ih + whole_end * I * NV * W;
    product.set_sizes(I, 0, 0, 0);
    for (size_t t = 0; narrow && t < tiles.count; ++t) {
      set_rows(t, whole_end * NV * W);
      product.set_panel(last, last, 0);
      sum_products_of<kMostSumRows, 1, NV / 2>(tile, tiles.size(t));
    }
  }
}

template <class Real, class Storage>
void project(const Project<Real, Storage>& s) {
  with_line(
      s.n_vectors, [&](auto nv) __attribute__((always_inline)) { project_line<decltype(nv)::value>(s); });
}

// h from the products of a projection.
template <class Real>
void projected(const ProjectedStep<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth;
  for (size_t r = 0; r < s.n_rows; ++r)
    for (size_t u = s.begin; u < s.end; u += W) {
      const int n = int(s.end - u < W ? s.end - u : W);
      Vec<Real> z = clip(load_upto(s.rows[r].z + u, n), s.clip);
      store_h(s.rows[r].y, s.rows[r].y_copy, z, s.zoneout_h, s.extra ? s.extra + r : nullptr, u, n);
    }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
