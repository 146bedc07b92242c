// sigmoid and tanh on vectors: at most 2 ULP everywhere, no branch, no table, one quotient each.
//
// With x = k ln2 + r, |r| <= ln2 / 2, s = 2^k and p = exp(-r), and no case distinction for sign or size:
//
//   sigmoid(x) = s / (s + p)             p = 1 - r h(r)
//   tanh(x)    = (s - p) / (s + p)       for 2x = k ln2 + r; 1 - p = r - r^2 h(r) keeps its relative accuracy at k = 0
//
// s is made by one shift: adding 1.5 * 2^(mantissa bits) + bias to x / ln2 leaves k + bias in the low bits, which then
// move to the exponent. sigmoid's fraction is scaled by 2^kScale above and below, so that s stays normal where the
// result is denormal and the division rounds it, once. tanh's fraction is scaled by 1/2, so that r is half as long and
// x needs no doubling. Beyond the clamps the results are constant; the order of their arguments lets NaN through.
// The polynomials come from bench/fit_activations.py.
#pragma once

#include "vec.h"

namespace fourgate {
namespace FG_ISA {

template <class T>
struct Constants;

template <>
struct Constants<float> {
  static constexpr float kInvLn2 = 1.442695041f;
  static constexpr float kLn2Hi = 0.693145751953125f, kLn2Lo = 1.42860682e-6f;  // hi: 16 bits, k * hi is exact
  static constexpr float kLn2 = 0.6931471806f, kLn2Rest = 0;  // the rest, 2e-9, does not matter to tanh
  static constexpr float kMagic = 12582912.0f;                                   // 1.5 * 2^23
  static constexpr int kBias = 127, kScale = 32;
  static constexpr float kTwoToScale = 4294967296.0f;
  static constexpr float kSigmoidMin = -106.0f, kSigmoidMax = 20.0f, kTanhMax = 10.0f;
};

template <>
struct Constants<double> {
  static constexpr double kInvLn2 = 1.442695040888963407;
  static constexpr double kLn2Hi = 0.69314718055966295651, kLn2Lo = 2.823529056303157712e-13;  // hi: 41 bits
  static constexpr double kLn2 = 0.6931471805599453094, kLn2Rest = 2.319046813846299556e-17;
  static constexpr double kMagic = 6755399441055744.0;                                         // 1.5 * 2^52
  static constexpr int kBias = 1023, kScale = 64;
  static constexpr double kTwoToScale = 18446744073709551616.0;
  static constexpr double kSigmoidMin = -748.0, kSigmoidMax = 40.0, kTanhMax = 20.0;
};

// a + b x
template <class T>
FG_INLINE Vec<T> pair(T a, T b, Vec<T> x) {
  return fma(set1(b), x, set1(a));
}

// h with 1 - r h(r) = exp(-r), times 2^kScale; pairs first, then powers of r^2: short chains, no more operations
FG_INLINE VF sigmoid_h(VF r) {
  constexpr float m = Constants<float>::kTwoToScale;
  VF r2 = r * r;
  VF h = pair(m * 0.008374155397f, m * -0.00138436544f, r);
  h = fma(h, r2, pair(m * 0.1666643126f, m * -0.04166800202f, r));
  return fma(h, r2, pair(m * 1.000000032f, m * -0.4999999421f, r));
}
FG_INLINE VD sigmoid_h(VD r) {
  constexpr double m = Constants<double>::kTwoToScale;
  VD r2 = r * r, r4 = r2 * r2;
  VD a = fma(pair(m * 0.1666666666666621723, m * -0.04166666666651782876, r), r2,
             pair(m * 1.000000000000000024, m * -0.5000000000000012494, r));
  VD b = fma(pair(m * 0.0001984126943679602575, m * -0.00002480149063654650434, r), r2,
             pair(m * 0.008333333333549690955, m * -0.001388888894635265079, r));
  VD c = fma(set1(m * 2.499143172526879533e-8), r2, pair(m * 2.755762669945023967e-6, m * -2.763103402276590879e-7, r));
  return fma(fma(c, r4, b), r4, a);
}

// h with r + r^2 h(r) = (exp(2 r) - 1) / 2
FG_INLINE VF tanh_h(VF r, VF r2) {
  VF h = fma(set1(0.04389473873f), r2, pair(0.3333629955f, 0.1339043358f, r));
  return fma(h, r2, pair(0.9999996743f, 0.6666606992f, r));
}
FG_INLINE VD tanh_h(VD r, VD r2) {
  VD r4 = r2 * r2;
  VD a = fma(pair(0.3333333333327583652, 0.133333333339651747, r), r2,
             pair(1.000000000000000218, 0.6666666666666405246, r));
  VD b = fma(pair(0.003174592799899939464, 0.0007054842358547378965, r), r2,
             pair(0.04444444457338915158, 0.01269841218430079888, r));
  VD c = pair(0.0001414453053081938038, 0.00002548028436406376254, r);
  return fma(fma(c, r4, b), r4, a);
}

template <class T>
FG_INLINE Vec<T> sigmoid(Vec<T> x) {
  using C = Constants<T>;
  x = max(set1(C::kSigmoidMin), min(set1(C::kSigmoidMax), x));
  const Vec<T> magic = set1(C::kMagic + (C::kBias + C::kScale));
  Vec<T> t = fma(x, set1(C::kInvLn2), magic), k = t - magic;
  Vec<T> r = fnma(k, set1(C::kLn2Lo), fnma(k, set1(C::kLn2Hi), x));
  Vec<T> s = to_exponent(t);
  return s / (set1(C::kTwoToScale) + fnma(r, sigmoid_h(r), s));  // p is never rounded by itself
}

template <class T>
FG_INLINE Vec<T> tanh(Vec<T> x) {
  using C = Constants<T>;
  Vec<T> z = max(set1(-C::kTanhMax), negative_abs(x));
  const Vec<T> magic = set1(C::kMagic + C::kBias), half = set1(T(0.5));
  Vec<T> t = fma(z, set1(2 * C::kInvLn2), magic), k = t - magic;
  Vec<T> r = fnma(k, set1(C::kLn2 / 2), z);
  Vec<T> s = to_exponent(t), r2 = r * r, h = tanh_h(r, r2), g;
  if constexpr (C::kLn2Rest == 0)
    g = fma(r2, h, r);
  else  // the rest of ln2 would be rounded away in r itself; here times 1.2, the slope of g about where it matters
    g = r + fma(r2, h, k * set1(C::kLn2Rest / 2 * T(-1.2)));
  return with_sign(fnma(s, g, fnma(s, half, half)) / fma(s, g, fma(s, half, half)), x);
}

}  // namespace FG_ISA
}  // namespace fourgate
