// The product of many rows with a packed matrix: the input's, ahead of the time loop, and a projection's, with the h
// that is made of it.
#pragma once

#include "cells/dispatch.h"
#include "kernels/multiply.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// MR rows of NP neighbouring panels, or parts of panels, with NV vectors in a line; n_panels is their number in a row.
template <int NV, int NP, int MR, class Real, class Storage>
QG_INLINE void project_tile(const Project<Real, Storage>& s, size_t n_panels, size_t row, size_t panel, size_t next,
                            size_t tile, size_t n_tiles, size_t of_bytes) {
  constexpr size_t W = Vec<Real>::kWidth, line = NV * W;
  const size_t I = s.input_size;
  Vec<Real> a[NP][MR][NV];
  const Real* x[MR];
  for (int r = 0; r < MR; ++r) {
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < NV; ++v) a[p][r][v] = s.bias ? load(s.bias + ((panel + p) * NV + v) * W) : zero<Real>();
    x[r] = s.x[row + r];
  }
  const Ahead<Real, Storage> ahead = {s.w_ih + panel * I * line, s.w_ih + next * I * line, n_tiles, of_bytes};
  multiply<false, (NP > 1 && NV < kLineVectors)>(a, x, 0, 1, ahead.panel, I * line, I, ahead.slice(tile, I, NV));
  for (int r = 0; r < MR; ++r)
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < NV; ++v) store(s.pre + (((row + r) * n_panels + panel + p) * NV + v) * W, a[p][r][v]);
}

// The same for n_rows rows of a narrow panel, with half as many vectors in a line.
template <int NV, class Real>
QG_OUTLINE void project_narrow_tile(const Project<Real>& s, size_t row, int n_rows, size_t panel) {
  constexpr size_t W = Vec<Real>::kWidth, line = NV * W;
  constexpr int N = NV / 2;
  const size_t I = s.input_size;
  alignas(64) Real half[kNarrowRows][N][W];
#pragma GCC unroll 1
  for (int r = 0; r < n_rows; ++r)
    for (int v = 0; v < N; ++v) store(half[r][v], s.bias ? load(s.bias + panel * line + v * W) : zero<Real>());
  narrow_product(half, s.x + row, n_rows, s.w_ih + panel * I * line, I);
#pragma GCC unroll 1
  for (int r = 0; r < n_rows; ++r)
    for (int v = 0; v < N; ++v) store(s.pre + ((row + r) * s.n_blocks + panel) * line + v * W, load(half[r][v]));
}

template <int NV, class Real, class Storage>
QG_INLINE void project_line(const Project<Real, Storage>& s) {
  constexpr int P = kParts<Real, Storage, NV>, N = NV / P, most = kPartRows<Real, Storage, NV>;
  const bool narrow = s.narrow_last && s.block_end == s.n_blocks && s.block_begin < s.block_end;
  const size_t whole_end = s.block_end - narrow, n = P * s.n_blocks;
  const bool both = P == 1 || parts_abreast(s.n_rows);
  const Parts tiles(s.n_rows, both ? kMaxRows : most);
  const size_t of_bytes = (s.block_end - s.block_begin) * s.input_size * NV * Vec<Real>::kWidth * sizeof(Storage);
  if (s.n_rows == 1) {
    size_t panel = s.block_begin;
    for (; panel + 1 < whole_end; panel += 2) project_tile<N, 2 * P, 1>(s, n, 0, P * panel, P * panel, 0, 1, 0);
    if (panel < whole_end) project_tile<N, P, 1>(s, n, 0, P * panel, P * panel, 0, 1, 0);
  } else {
    const size_t step = both ? P : 1;
    for (size_t part = P * s.block_begin; part < P * whole_end; part += step) {
      const size_t next = part + step < P * s.block_end ? part + step : part;
      for (size_t t = 0; t < tiles.count; ++t)
        with_constant<most>(
            tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
              constexpr int MR = decltype(mr)::value;
              constexpr int A = MR > kMaxRows ? 1 : P;
              project_tile<N, A, MR>(s, n, tiles.begin(t), part, next, t, tiles.count, of_bytes);
            });
    }
  }
  if constexpr (kNarrowLast<Real, Storage, NV>)
    for (size_t t = 0; narrow && t < tiles.count; ++t)
      project_narrow_tile<NV>(s, tiles.begin(t), tiles.size(t), s.n_blocks - 1);
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
