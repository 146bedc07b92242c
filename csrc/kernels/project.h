// The product of many rows with a packed matrix: the input's, ahead of the time loop, and a projection's, with the h
// that is made of it.
#pragma once

#include "cells/dispatch.h"
#include "kernels/multiply.h"

namespace quadgate {
namespace QG_ISA {
namespace {

template <int NV, int NP, int MR, class Real, class Storage>
QG_INLINE void project_tile(const Project<Real, Storage>& s, size_t row, size_t panel, size_t next, size_t tile,
                            size_t n_tiles, size_t of_bytes) {
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
  multiply(a, x, 0, 1, ahead.panel, I * line, I, ahead.slice(tile, I, NV));
  for (int r = 0; r < MR; ++r)
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < NV; ++v) store(s.pre + (((row + r) * s.n_blocks + panel + p) * NV + v) * W, a[p][r][v]);
}

// The same for n_rows rows of a narrow panel, with half as many vectors in a line.
template <int NV, class Real>
QG_OUTLINE void project_narrow_tile(const Project<Real>& s, size_t row, int n_rows, size_t panel) {
  constexpr size_t W = Vec<Real>::kWidth, line = NV * W;
  constexpr int N = NV / 2;
  const size_t I = s.input_size;
  alignas(64) Real half[kMaxRows][N][W];
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
  const bool narrow = s.narrow_last && s.block_end == s.n_blocks && s.block_begin < s.block_end;
  const size_t whole_end = s.block_end - narrow;
  const Parts tiles(s.n_rows, kMaxRows);
  const size_t of_bytes = (s.block_end - s.block_begin) * s.input_size * NV * Vec<Real>::kWidth * sizeof(Storage);
  size_t panel = s.block_begin;
  if (s.n_rows == 1) {
    for (; panel + 1 < whole_end; panel += 2) project_tile<NV, 2, 1>(s, 0, panel, panel, 0, 1, 0);
    if (panel < whole_end) project_tile<NV, 1, 1>(s, 0, panel, panel, 0, 1, 0);
    panel = whole_end;
  }
  for (; panel < whole_end; ++panel) {
    const size_t next = panel + 1 < s.block_end ? panel + 1 : panel;
    for (size_t t = 0; t < tiles.count; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            project_tile<NV, 1, decltype(mr)::value>(s, tiles.begin(t), panel, next, t, tiles.count, of_bytes);
          });
  }
  if constexpr (kNarrowLast<Real, Storage, NV>)
    for (size_t t = 0; narrow && t < tiles.count; ++t) project_narrow_tile<NV>(s, tiles.begin(t), tiles.size(t), panel);
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
