// sigmoid and tanh on vectors: at most 2 ULP everywhere; no branch, no table, one exponential and one division each.
// After them the other activations, and the derivatives.
//
// With x = k ln2 + r, |r| <= ln2 / 2, and s = 2^k:
//
//   sigmoid(x) = s / (s + p)                     p = exp(-r) = 1 - r h(r)
//   tanh(|x|)  = (1 - s (1 + 2g)) / (1 + s (1 + 2g))    for -2|x| = k ln2 + 2r; g = (exp(2r) - 1) / 2 = r + r^2 h(r)
//
// No case depends on size or sign. tanh's numerator, (1 - s) - 2 s g, is g alone for small x (k = 0), where g keeps its
// relative accuracy; both terms are halved below. Its denominator is at most 1 then, which rounds finer than above 1.
//
// One shift makes s: adding 1.5 * 2^(mantissa bits) + bias to x / ln2 leaves k + bias in the low bits, which then
// move to the exponent. sigmoid's fraction is scaled by 2^kScale above and below, so that s stays normal where the
// result is denormal and the division rounds it, once. Beyond the clamps the results are constant; the order of their
// arguments lets NaN through. The polynomials come from bench/fit_activations.py.
#pragma once

#include "kernels/steps.h"
#include "kernels/vec/vec.h"

namespace quadgate {
namespace QG_ISA {

template <class Real>
struct Constants;

template <>
struct Constants<float> {
  static constexpr float kInvLn2 = 1.442695041f;
  static constexpr float kLn2Hi = 0.693145751953125f, kLn2Lo = 1.42860682e-6f;  // hi: 16 bits, k * hi is exact
  static constexpr float kLn2 = 0.6931471806f;
  static constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23
  static constexpr int kBias = 127, kScale = 32;
  static constexpr float kTwoToScale = 4294967296.0f;
  static constexpr float kMax = 3.402823466e38f;
  static constexpr float kSigmoidMin = -106.0f, kSigmoidMax = 20.0f, kTanhMax = 10.0f;
};

template <>
struct Constants<double> {
  static constexpr double kInvLn2 = 1.442695040888963407;
  static constexpr double kLn2Hi = 0.69314718055966295651, kLn2Lo = 2.823529056303157712e-13;  // hi: 41 bits
  static constexpr double kLn2 = 0.6931471805599453094;
  static constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kBias = 1023, kScale = 64;
  static constexpr double kTwoToScale = 18446744073709551616.0;
  static constexpr double kMax = 1.797693134862315708e308;
  static constexpr double kSigmoidMin = -748.0, kSigmoidMax = 40.0, kTanhMax = 20.0;
};

// a + b x
template <class Real>
QG_INLINE Vec<Real> pair(Real a, Real b, Vec<Real> x) {
  return fma(set1(b), x, set1(a));
}

// h with 1 - r h(r) = exp(-r), times 2^kScale; pairs first, then powers of r^2: short chains, no more operations
QG_INLINE VF sigmoid_h(VF r) {
  constexpr float m = Constants<float>::kTwoToScale;
  VF r2 = r * r;
  VF h = pair(m * 0.008374155397f, m * -0.00138436544f, r);
  h = fma(h, r2, pair(m * 0.1666643126f, m * -0.04166800202f, r));
  return fma(h, r2, pair(m * 1.000000032f, m * -0.4999999421f, r));
}
QG_INLINE VD sigmoid_h(VD r) {
  constexpr double m = Constants<double>::kTwoToScale;
  VD r2 = r * r, r4 = r2 * r2;
  VD a = fma(pair(m * 0.1666666666666621723, m * -0.04166666666651782876, r), r2,
             pair(m * 1.000000000000000024, m * -0.5000000000000012494, r));
  VD b = fma(pair(m * 0.0001984126943679602575, m * -0.00002480149063654650434, r), r2,
             pair(m * 0.008333333333549690955, m * -0.001388888894635265079, r));
  VD c = fma(set1(m * 2.499143172526879533e-8), r2, pair(m * 2.755762669945023967e-6, m * -2.763103402276590879e-7, r));
  return fma(fma(c, r4, b), r4, a);
}

// g(r) = (exp(2 r) - 1) / 2 = r + r^2 h(r), at r - k * (the rounding error of the constant ln2 / 2)
QG_INLINE VF tanh_g(VF r, VF) {
  VF r2 = r * r, h = fma(set1(0.04389473873f), r2, pair(0.3333629955f, 0.1339043358f, r));
  return fma(r2, fma(h, r2, pair(0.9999996743f, 0.6666606992f, r)), r);  // 1e-9 k is too little to matter
}
QG_INLINE VD tanh_g(VD r, VD k) {
  VD r2 = r * r, r4 = r2 * r2;
  VD a = fma(pair(0.3333333333333233886, 0.1333333333331148283, r), r2, set1(0.66666666666666715) * r);
  VD b = fma(pair(0.003174603076080540503, 0.0007054653229396543457, r), r2,
             pair(0.04444444444596714178, 0.01269841273035324399, r));
  VD c = fma(set1(4.249828916600008852e-6), r2, pair(0.0001410962671635976845, 0.00002571340984061855596, r));
  VD h = fma(fma(c, r4, b), r4, a);  // less its leading 1, whose share in g is then exact
  return r + fma(r2, h, fnma(k, set1(1.159523406923149778e-17), r2));
}

// A function's value before its division.
template <class Real>
struct Quotient {
  Vec<Real> above, below;
  QG_INLINE Vec<Real> value() const { return above / below; }
  // The value of the product of two, from one division. Rounds as often as the product of both values.
  QG_INLINE Vec<Real> times(const Quotient& other) const { return (above * other.above) / (below * other.below); }
};

template <class Real>
QG_INLINE Quotient<Real> sigmoid_quotient(Vec<Real> x) {
  using C = Constants<Real>;
  x = max(set1(C::kSigmoidMin), min(set1(C::kSigmoidMax), x));
  const Vec<Real> magic = set1(C::kMagic + (C::kBias + C::kScale));
  Vec<Real> t = fma(x, set1(C::kInvLn2), magic), k = t - magic;
  Vec<Real> r = fnma(k, set1(C::kLn2Lo), fnma(k, set1(C::kLn2Hi), x));
  Vec<Real> s = to_exponent(t);
  return {s, set1(C::kTwoToScale) + fnma(r, sigmoid_h(r), s)};  // folding p into the fma saves one rounding
}
template <class Real>
QG_INLINE Vec<Real> sigmoid(Vec<Real> x) {
  return sigmoid_quotient(x).value();
}

// Of tanh(|x|).
template <class Real>
QG_INLINE Quotient<Real> tanh_quotient(Vec<Real> x) {
  using C = Constants<Real>;
  Vec<Real> z = max(set1(-C::kTanhMax), negative_abs(x));
  const Vec<Real> magic = set1(C::kMagic + C::kBias), half = set1(Real(0.5));
  Vec<Real> t = fma(z, set1(2 * C::kInvLn2), magic), k = t - magic;
  Vec<Real> r = fnma(k, set1(C::kLn2 / 2), z);
  Vec<Real> s = to_exponent(t), g = tanh_g(r, k);
  return {fnma(s, g, fnma(s, half, half)), fma(s, g, fma(s, half, half))};
}
template <class Real>
QG_INLINE Vec<Real> tanh(Vec<Real> x) {
  return with_sign(tanh_quotient(x).value(), x);
}

// exp(x) - 1 for x <= 0, from tanh's parts: exp(x) = s (1 + 2g).
template <class Real>
QG_INLINE Vec<Real> expm1_negative(Vec<Real> x) {
  using C = Constants<Real>;
  const Vec<Real> half = set1(Real(0.5)), one = set1(Real(1));
  Vec<Real> z = max(set1(-C::kTanhMax), half * x);
  const Vec<Real> magic = set1(C::kMagic + C::kBias);
  Vec<Real> t = fma(z, set1(2 * C::kInvLn2), magic), k = t - magic;
  Vec<Real> r = fnma(k, set1(C::kLn2 / 2), z);
  Vec<Real> s = to_exponent(t), g = tanh_g(r, k);
  return fma(s, g + g, s - one);
}

// exp(x) = s / p for x <= 0, of sigmoid's parts.
template <class Real>
struct Exponential {
  Vec<Real> s, p;
};
template <class Real>
QG_INLINE Exponential<Real> exp_negative(Vec<Real> x) {
  using C = Constants<Real>;
  Vec<Real> z = max(set1(C::kSigmoidMin), x);
  const Vec<Real> magic = set1(C::kMagic + (C::kBias + C::kScale));
  Vec<Real> t = fma(z, set1(C::kInvLn2), magic), k = t - magic;
  Vec<Real> r = fnma(k, set1(C::kLn2Lo), fnma(k, set1(C::kLn2Hi), z));
  return {to_exponent(t), fnma(r, sigmoid_h(r), set1(C::kTwoToScale))};
}

// artanh(q) / q - 1 by y = q^2, for q <= 1/3; without its 1, so that the product with q rounds only once
QG_INLINE VF artanh_h(VF y) {
  VF h = fma(set1(0.1408916753f), y, set1(0.1398030138f));
  h = fma(h, y, set1(0.2001245514f));
  return fma(h, y, set1(0.3333315734f)) * y;
}
QG_INLINE VD artanh_h(VD y) {
  VD y2 = y * y, y4 = y2 * y2;
  VD a = fma(pair(0.1428571427246257793, 0.1111111205588574925, y), y2,
             pair(0.3333333333333306712, 0.200000000000951626, y));
  VD b = fma(pair(0.06650051267385091558, 0.06056124397234144328, y), y2,
             pair(0.09090869893897222467, 0.07693317726274969557, y));
  VD c = pair(0.04157842536574461, 0.08530030569081094347, y);
  return fma(fma(c, y4, b), y4, a) * y;
}

// log(1 + exp(x)) = max(x, 0) + log1p(e), e = exp(-|x|) = s / p; log1p(e) = 2 artanh(q), q = e / (2 + e) = s / (s +
// 2p).
template <class Real>
QG_INLINE Vec<Real> softplus(Vec<Real> x) {
  const Exponential<Real> e = exp_negative(negative_abs(x));
  Vec<Real> q = e.s / (e.s + (e.p + e.p)), twice = q + q;
  return max(zero<Real>(), x) + fma(twice, artanh_h(q * q), twice);
}

// f(x) for every function that ONNX names; steps.h lists them.
template <class Real>
QG_OUTLINE Vec<Real> activate_other(const Activation<Real>& f, Vec<Real> x) {
  const Vec<Real> alpha = set1(f.alpha), beta = set1(f.beta), none = zero<Real>(), one = set1(Real(1));
  switch (f.function) {
    case kRelu:
      return max(none, x);
    case kHardSigmoid:
      return max(none, min(one, fma(alpha, x, beta)));
    case kAffine:
      return fma(alpha, x, beta);
    case kLeakyRelu:
      return where_less(x, none, alpha * x, x);
    case kThresholdedRelu:
      return where_less(alpha, x, x, none);
    case kScaledTanh:
      return alpha * tanh(beta * x);
    case kElu:
      return where_less(x, none, alpha * expm1_negative(min(none, x)), x);
    case kSoftsign:  // takes inf for the largest number, so that the limit is 1 and not NaN
      x = max(set1(-Constants<Real>::kMax), min(set1(Constants<Real>::kMax), x));
      return x / (one - negative_abs(x));
    default:
      return softplus(x);
  }
}

template <class Real>
QG_INLINE Vec<Real> activate_inline(const Activation<Real>& f, Vec<Real> x) {
  return f.function == kSigmoid ? sigmoid(x) : f.function == kTanh ? tanh(x) : activate_other(f, x);
}
template <class Real>
QG_OUTLINE Vec<Real> activate_by_call(const Activation<Real>& f, Vec<Real> x) {
  return activate_inline(f, x);
}

// A call rather than inline code for doubles, whose options few use, and in the baseline set: ten copies of sigmoid and
// tanh would take much memory.
#if defined(__AVX2__) || defined(__aarch64__)
template <class Real>
constexpr bool kActivateByCall = sizeof(Real) > sizeof(float);
#else
template <class Real>
constexpr bool kActivateByCall = true;
#endif
template <class Real>
QG_INLINE Vec<Real> activate(const Activation<Real>& f, Vec<Real> x) {
  if constexpr (kActivateByCall<Real>) return activate_by_call(f, x);
  return activate_inline(f, x);
}

// f'(x), given y = f(x); at a kink the slope of the side below, and 0 at both of hard_sigmoid's, as PyTorch has it.
template <class Real>
QG_OUTLINE Vec<Real> slope_other(const Activation<Real>& f, Vec<Real> x, Vec<Real> y) {
  const Vec<Real> alpha = set1(f.alpha), none = zero<Real>(), one = set1(Real(1));
  switch (f.function) {
    case kRelu:
      return where_less(none, x, one, none);
    case kHardSigmoid:
      return where_less(none, y, where_less(y, one, alpha, none), none);
    case kAffine:
      return alpha;
    case kLeakyRelu:
      return where_less(none, x, one, alpha);
    case kThresholdedRelu:
      return where_less(alpha, x, one, none);
    case kScaledTanh: {
      Vec<Real> t = tanh(set1(f.beta) * x);
      return set1(f.alpha * f.beta) * fnma(t, t, one);
    }
    case kElu: {  // y + alpha would cancel
      const Exponential<Real> e = exp_negative(min(none, x));
      return where_less(none, x, one, alpha * (e.s / e.p));
    }
    case kSoftsign: {
      Vec<Real> d = one / (one - negative_abs(x));
      return d * d;
    }
    default:
      return sigmoid(x);
  }
}

template <class Real>
QG_INLINE Vec<Real> slope(const Activation<Real>& f, Vec<Real> x, Vec<Real> y) {
  if (f.function == kSigmoid) return fnma(y, y, y);
  if (f.function == kTanh) return fnma(y, y, set1(Real(1)));
  return slope_other(f, x, y);
}

}  // namespace QG_ISA
}  // namespace quadgate
