// Elementwise kernels of training.
#pragma once

#include "kernels/math.h"
#include "kernels/train_steps.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// exp(x) for x <= 0; NaN passes.
template <class Real>
QG_INLINE Vec<Real> exp_of_negative(Vec<Real> x) {
  const Exponential<Real> e = exp_negative(x);
  return e.s / e.p;
}

template <class Real>
QG_INLINE void softmax_row(const Real* z, int64_t target, Real scale, Real* gradient, Real& sum, Real& shifted,
                           size_t n) {
  constexpr size_t W = Vec<Real>::kWidth;
  const size_t whole = n / W * W;
  const int rest = int(n - whole);
  Real largest = z[0];
  if (whole) {
    Vec<Real> top = load(z);
    for (size_t i = W; i < whole; i += W) top = max(load(z + i), top);
    Real lanes[W];
    store(lanes, top);
    for (size_t i = 0; i < W; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  }
  for (size_t i = whole; i < n; ++i) largest = z[i] > largest ? z[i] : largest;
  const Vec<Real> shift = set1(largest);
  Vec<Real> total = zero<Real>();
  for (size_t i = 0; i < whole; i += W) {
    const Vec<Real> e = exp_of_negative(load(z + i) - shift);
    if (gradient) store(gradient + i, e);
    total = total + e;
  }
  sum = whole ? sum_of(total) : Real(0);
  if (rest) {
    Real lanes[W];
    store(lanes, exp_of_negative(load_n(z + whole, rest) - shift));
    for (int i = 0; i < rest; ++i) {
      if (gradient) gradient[whole + size_t(i)] = lanes[i];
      sum += lanes[i];
    }
  }
  shifted = z[target] - largest;
  if (!gradient) return;
  const Vec<Real> factor = set1(scale / sum);
  for (size_t i = 0; i < whole; i += W) store(gradient + i, load(gradient + i) * factor);
  for (size_t i = whole; i < n; ++i) gradient[i] *= scale / sum;
  gradient[target] -= scale;
}

template <class Real>
void softmax_rows(const SoftmaxRows<Real>& s) {
  for (size_t r = 0; r < s.n_rows; ++r) {
    Real* gradient = s.gradient ? s.gradient + r * s.n_classes : nullptr;
    if (s.targets[r] >= 0)
      softmax_row(s.logits + r * s.n_classes, s.targets[r], s.scales[r], gradient, s.sums[r], s.shifted[r],
                  s.n_classes);
    else if (gradient)
      for (size_t i = 0; i < s.n_classes; ++i) gradient[i] = Real(0);
  }
}

// The gradient as it is used. The order of arguments lets NaN through.
template <class Real>
QG_INLINE Vec<Real> bounded(Vec<Real> g, Real scale, Real bound) {
  return max(set1(-bound), min(set1(bound), g * set1(scale)));
}

// f(element, lanes) for every vector of an optimizer's step. If `large`, results go past the caches in whole aligned
// vectors: the first call has only the elements before the first aligned address.
template <class Real, class F>
QG_INLINE void each_vector(const Real* results, size_t n, bool large, F&& f) {
  constexpr size_t W = Vec<Real>::kWidth;
  const size_t before = (W - reinterpret_cast<uintptr_t>(results) / sizeof(Real) % W) % W;
  for (size_t i = 0, next = large && before ? before : W; i < n; i = next, next += W)
    f(i, int((next < n ? next : n) - i));
  if (large) stream_end();
}

template <class Real>
QG_INLINE void put_result(Real* to, Vec<Real> value, int n, bool large) {
  if (large)
    stream_upto(to, value, n);
  else
    store_upto(to, value, n);
}

template <class Real>
void adam(const AdamStep<Real>& step) {
  const AdamStep<Real> s = step;                  // a copy, which stores cannot change
  constexpr size_t kAhead = 1024 / sizeof(Real);  // out of L2, where hardware prefetch starts anew on every page
  each_vector(
      s.p_out, s.n, s.large, [&](size_t i, int n) __attribute__((always_inline)) {
        __builtin_prefetch(s.p + i + kAhead);
        __builtin_prefetch(s.g + i + kAhead);
        __builtin_prefetch(s.m + i + kAhead);
        __builtin_prefetch(s.v + i + kAhead);
        if (!s.large) {
          __builtin_prefetch(s.p_out + i + kAhead, 1);
          __builtin_prefetch(s.m_out + i + kAhead, 1);
          __builtin_prefetch(s.v_out + i + kAhead, 1);
        }
        const Vec<Real> g = bounded(load_upto(s.g + i, n), s.scale, s.bound), p = load_upto(s.p + i, n);
        const Vec<Real> m = fma(set1(s.beta_1), load_upto(s.m + i, n), set1(s.less_1) * g);
        const Vec<Real> v = fma(set1(s.beta_2), load_upto(s.v + i, n), set1(s.less_2) * g * g);
        const Vec<Real> move = set1(s.rate) * m / fma(root(v), set1(s.root_scale), set1(s.epsilon));
        put_result(s.p_out + i, fma(p, set1(s.keep), zero<Real>() - move), n, s.large);
        put_result(s.m_out + i, m, n, s.large);
        put_result(s.v_out + i, v, n, s.large);
      });
}

template <class Real>
void sgd(const SgdStep<Real>& step) {
  const SgdStep<Real> s = step;
  each_vector(
      s.p_out, s.n, s.large, [&](size_t i, int n) __attribute__((always_inline)) {
        Vec<Real> g = bounded(load_upto(s.g + i, n), s.scale, s.bound);
        if (s.u) {
          const Vec<Real> u = fma(set1(s.momentum), load_upto(s.u + i, n), g);
          put_result(s.u_out + i, u, n, s.large);
          g = s.nesterov ? fma(set1(s.momentum), u, g) : u;
        }
        put_result(s.p_out + i, fnma(set1(s.rate), g, load_upto(s.p + i, n)), n, s.large);
      });
}

// The sum of squares, in four chains of vectors.
template <class Real>
Real squares(const Real* x, size_t n) {
  constexpr size_t W = Vec<Real>::kWidth;
  Vec<Real> sums[4] = {zero<Real>(), zero<Real>(), zero<Real>(), zero<Real>()};
  size_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (size_t k = 0; k < 4; ++k) {
      const Vec<Real> a = load(x + i + k * W);
      sums[k] = fma(a, a, sums[k]);
    }
  for (; i < n; i += W) {
    const Vec<Real> a = load_upto(x + i, int(n - i < W ? n - i : W));
    sums[0] = fma(a, a, sums[0]);
  }
  return sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// dz = dy * f'(z), y = f(z). `z` may be y where the slope follows from y.
template <class Real>
void slopes(const Activation<Real>& f, const Real* z, const Real* y, const Real* dy, Real* dz, size_t n) {
  constexpr size_t W = Vec<Real>::kWidth;
  for (size_t i = 0; i < n; i += W) {
    const int lanes = lanes_of<Real>(i / W, n);
    store_upto(dz + i, load_upto(dy + i, lanes) * slope(f, load_upto(z + i, lanes), load_upto(y + i, lanes)), lanes);
  }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
