// Products with a matrix of a few rows: dot products, and sums of a few scaled rows. The panel products would use one
// lane of each vector there, and read rows in six streams that no hardware prefetch follows.
#pragma once

#include "kernels/tiles.h"
#include "kernels/train_steps.h"
#include "kernels/vec/vec.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// y = x W^T + b: for each row and output one chain of vectors, whose lanes are then summed. MR rows share the loads of
// W.
template <int NO, int MR, class Real>
QG_INLINE void narrow_tile(const NarrowRows<Real>& s, size_t row) {
  constexpr size_t W = Vec<Real>::kWidth;
  const size_t n = s.n_in;
  const Real* x = s.x + row * n;
  Vec<Real> sums[MR][NO];
  for (int r = 0; r < MR; ++r)
    for (int o = 0; o < NO; ++o) sums[r][o] = zero<Real>();
  for (size_t k = 0; k < n; k += W) {
    const int lanes = lanes_of<Real>(k / W, n);
    Vec<Real> w[NO];
    for (int o = 0; o < NO; ++o) w[o] = load_upto(s.w + size_t(o) * n + k, lanes);
    for (int r = 0; r < MR; ++r) {
      const Vec<Real> a = load_upto(x + size_t(r) * n + k, lanes);
      for (int o = 0; o < NO; ++o) sums[r][o] = fma(a, w[o], sums[r][o]);
    }
  }
  for (int r = 0; r < MR; ++r)
    for (int o = 0; o < NO; ++o)
      s.out[(row + size_t(r)) * NO + size_t(o)] = (s.bias ? s.bias[o] : Real(0)) + sum_of(sums[r][o]);
}

// Four rows at a time where their sums and operands fit the registers: with four outputs on AVX2 they took 1.1 to 1.7
// times as long as one row at a time. Of doubles for one output alone: few train with them, and code takes room.
template <class Real>
void narrow_forward(const NarrowRows<Real>& s) {
  with_constant<kNarrow>(
      int(s.n_out), [&](auto no) __attribute__((always_inline)) {
        constexpr int NO = decltype(no)::value;
        constexpr bool kFour = 4 * NO + 8 <= kRegisters && (sizeof(Real) == sizeof(float) || NO == 1);
        size_t row = 0;
        if constexpr (kFour)
          for (; row + 4 <= s.n_rows; row += 4) narrow_tile<NO, 4>(s, row);
        for (; row < s.n_rows; ++row) narrow_tile<NO, 1>(s, row);
      });
}

// dx = dz W.
template <class Real>
void narrow_input_gradient(const NarrowRows<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth;
  with_constant<kNarrow>(
      int(s.n_out), [&](auto no) __attribute__((always_inline)) {
        constexpr int NO = decltype(no)::value;
        const size_t n = s.n_in;
        for (size_t row = 0; row < s.n_rows; ++row) {
          Vec<Real> dz[NO];
          for (int o = 0; o < NO; ++o) dz[o] = set1(s.dz[row * NO + size_t(o)]);
          Real* out = s.out + row * n;
          for (size_t k = 0; k < n; k += W) {
            const int lanes = lanes_of<Real>(k / W, n);
            Vec<Real> sum = dz[0] * load_upto(s.w + k, lanes);
            for (int o = 1; o < NO; ++o) sum = fma(dz[o], load_upto(s.w + size_t(o) * n + k, lanes), sum);
            store_upto(out + k, sum, lanes);
          }
        }
      });
}

// dw = dz^T x: one chain over the rows, for a few vectors of columns at a time; of doubles fewer, for less code.
template <class Real>
void narrow_weight_gradient(const NarrowRows<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth;
  with_constant<kNarrow>(
      int(s.n_out), [&](auto no) __attribute__((always_inline)) {
        constexpr int NO = decltype(no)::value, NV = (sizeof(Real) == sizeof(float) ? 8 : 4) / NO;
        const size_t n = s.n_in;
        for (size_t k = 0; k < n; k += NV * W) {
          const size_t left = n - k;
          Vec<Real> sums[NO][NV];
          for (int o = 0; o < NO; ++o)
            for (int v = 0; v < NV; ++v) sums[o][v] = zero<Real>();
          if (left >= NV * W) {
            for (size_t row = 0; row < s.n_rows; ++row) {
              const Real* x = s.x + row * n + k;
              for (int o = 0; o < NO; ++o) {
                const Vec<Real> dz = set1(s.dz[row * NO + size_t(o)]);
                for (int v = 0; v < NV; ++v) sums[o][v] = fma(dz, load(x + size_t(v) * W), sums[o][v]);
              }
            }
          } else {
            for (size_t row = 0; row < s.n_rows; ++row) {
              const Real* x = s.x + row * n + k;
              for (int v = 0; v < NV && size_t(v) * W < left; ++v) {
                const Vec<Real> a = load_upto(x + size_t(v) * W, lanes_of<Real>(size_t(v), left));
                for (int o = 0; o < NO; ++o) sums[o][v] = fma(set1(s.dz[row * NO + size_t(o)]), a, sums[o][v]);
              }
            }
          }
          for (int o = 0; o < NO; ++o)
            for (int v = 0; v < NV && size_t(v) * W < left; ++v)
              store_upto(s.out + size_t(o) * n + k + size_t(v) * W, sums[o][v], lanes_of<Real>(size_t(v), left));
        }
      });
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
