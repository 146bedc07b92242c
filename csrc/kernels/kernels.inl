// The source of every instruction set: an isa_*.cpp names the set and includes this file.
//
// forward.inl and backward.inl are mirrors: a product over k into a register tile, then the pointwise part on the sums.
// See kernels.h for shapes and for the order of summation that all tile shapes share.
#include "cells/lstm.h"
#include "kernels/multiply.h"
#include "kernels/table.h"

namespace quadgate {
namespace QG_ISA {
namespace {

template <class Real>
QG_INLINE int lanes_of(size_t block, size_t n) {
  constexpr size_t W = Vec<Real>::kWidth;
  size_t left = n - block * W;
  return int(left < W ? left : W);
}

// Each uses the one before:
// clang-format off
#include "kernels/forward.inl"
#include "kernels/backward.inl"
#include "kernels/norm.inl"
// clang-format on

// ---- weights ----

// The product of the forward pass with other operands: k runs over rows, and the panel is the gates' gradient.
template <class Real>
void weight_gradient(const WeightGradient<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth;
  const Tiles tiles(s.n_k, kMaxRows);
  for (size_t block = s.block_begin; block < s.block_end; ++block)
    for (size_t t = s.tile_begin; t < s.tile_end; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            constexpr int MR = decltype(mr)::value;
            Real* dw = s.dw + block * s.dw_stride + tiles.begin(t) * 4 * W;
            Vec<Real> a[1][MR][4];
            const Real* x[MR];
            for (int r = 0; r < MR; ++r) {
              for (int v = 0; v < 4; ++v) a[0][r][v] = load(dw + (r * 4 + v) * W);
              x[r] = s.xh + tiles.begin(t) + r;
            }
            const Real* panel = s.dg_panels + block * s.panel_stride;
            const Ahead<Real> ahead = {panel, block + 1 < s.block_end ? panel + s.panel_stride : nullptr,
                                       s.tile_end - s.tile_begin};
            multiply(a, x, 0, s.xh_stride, panel, 0, s.n_rows, ahead.slice(t - s.tile_begin, s.n_rows, 4));
            for (int r = 0; r < MR; ++r)
              for (int v = 0; v < 4; ++v) store(dw + (r * 4 + v) * W, a[0][r][v]);
          });
}

template <class Real>
void column_sums(const ColumnSums<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth;
  for (size_t u = s.begin; u < s.end; u += W) {
    const int n = int(s.end - u < W ? s.end - u : W);
    Vec<Real> sum = load_upto(s.out + u, n);
    for (size_t r = 0; r < s.n_rows; ++r) {
      Vec<Real> a = load_upto(s.a[r] + u, n);
      sum = s.b ? fma(a, load_upto(s.b[r] + u, n), sum) : sum + a;
    }
    store_upto(s.out + u, sum, n);
  }
}

// ---- the activations by themselves ----

template <class Real>
void activate_all(const Activation<Real>& f, const Real* x, Real* y, size_t n) {
  constexpr size_t W = Vec<Real>::kWidth;
  for (size_t i = 0; i < n; i += W) {
    int lanes = lanes_of<Real>(i / W, n);
    store_upto(y + i, activate(f, load_upto(x + i, lanes)), lanes);
  }
}

template <class Real>
constexpr Kernels<Real> functions() {
  return {
      size_t(Vec<Real>::kWidth), size_t(kMaxRows),      forward<Real>,     advance<Real>,      project<Real>,
      projected<Real>,           normalised<Real>,      backward<Real>,    back_product<Real>, projected_backward<Real>,
      normalised_backward<Real>, weight_gradient<Real>, column_sums<Real>, activate_all<Real>};
}

}  // namespace

extern const KernelTable table;
const KernelTable table = {QG_ISA_NAME, functions<float>(), functions<double>()};

}  // namespace QG_ISA
}  // namespace quadgate
