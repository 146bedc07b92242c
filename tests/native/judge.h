// The judge of the kernels: the cell's mathematics in plain double loops, each number with a bound of the distance
// that roundings may put between it and a correct kernel (running error analysis; Higham, Accuracy and Stability of
// Numerical Algorithms).
//
// One rounding counts eps, twice its cost: the other half is for the judge's own. Activations count the 4 ULP that
// test_math.cpp holds them to, plus their argument's error times the steepest slope. At a kink both sides are right.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernel_test.h"
#include "kernels/table.h"

namespace judge {

using namespace quadgate;

template <class Real>
struct Num {
  double v, e;
  Num(double value = 0, double error = 0) : v(value), e(error) {}
};

template <class Real>
Num<Real> rounded(double v, double e) {
  return {v, e + kernel_test::epsilon<Real>() * (std::fabs(v) + e) + double(std::numeric_limits<Real>::min())};
}
template <class Real>
Num<Real> operator+(Num<Real> a, Num<Real> b) {
  return rounded<Real>(a.v + b.v, a.e + b.e);
}
template <class Real>
Num<Real> operator-(Num<Real> a, Num<Real> b) {
  return rounded<Real>(a.v - b.v, a.e + b.e);
}
template <class Real>
Num<Real> operator*(Num<Real> a, Num<Real> b) {
  return rounded<Real>(a.v * b.v, std::fabs(a.v) * b.e + std::fabs(b.v) * a.e + a.e * b.e);
}
template <class Real>
Num<Real> inverse_root(Num<Real> a) {  // of a > 0
  const double v = 1 / std::sqrt(a.v), most = 1 / std::sqrt(std::max(a.v - a.e, 1e-300));
  return rounded<Real>(v, most - v + kernel_test::epsilon<Real>() * v);
}

// A sum of products in any order.
template <class Real>
struct Sum {
  double v = 0, e = 0, size = 0;
  size_t n = 2;
  void add(Num<Real> a, Num<Real> b = Num<Real>(1)) {
    v += a.v * b.v;
    e += std::fabs(a.v) * b.e + std::fabs(b.v) * a.e + a.e * b.e;
    size += (std::fabs(a.v) + a.e) * (std::fabs(b.v) + b.e);
    ++n;
  }
  Num<Real> total() const {
    return {v, e + double(n) * (kernel_test::epsilon<Real>() * size + std::numeric_limits<Real>::min())};
  }
};

template <class Real>
bool within(Real got, Num<Real> want) {
  return std::fabs(double(got) - want.v) <= want.e;
}

// Which sides of kinks the mathematics took: differences across a kink are no derivatives.
inline uint64_t& sides() {
  static uint64_t hash = 0;
  return hash;
}
inline bool side(bool yes) {
  sides() = sides() * 1099511628211u + 1 + yes;
  return yes;
}

// ---- activations ----

template <class Real>
double value(const Activation<Real>& f, double x) {
  const double alpha = f.alpha, beta = f.beta;
  switch (f.function) {
    case kSigmoid:
      return 1 / (1 + std::exp(-x));
    case kTanh:
      return std::tanh(x);
    case kRelu:
      return side(x > 0) ? x : 0;
    case kHardSigmoid:
      return side(alpha * x + beta > 1) ? 1 : side(alpha * x + beta > 0) ? alpha * x + beta : 0;
    case kAffine:
      return alpha * x + beta;
    case kLeakyRelu:
      return side(x < 0) ? alpha * x : x;
    case kThresholdedRelu:
      return side(x > alpha) ? x : 0;
    case kScaledTanh:
      return alpha * std::tanh(beta * x);
    case kElu:
      return side(x < 0) ? alpha * std::expm1(x) : x;
    case kSoftsign:
      return x / (1 + (side(x > 0) ? x : -x));  // its curvature jumps
    default:
      return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x)));
  }
}

// The slope, the largest slope, and the largest change of it beside kinks.
struct Slope {
  double at, most, curve;
};
template <class Real>
Slope slope(const Activation<Real>& f, double x) {
  const double alpha = f.alpha, beta = f.beta, size = std::fabs(alpha);
  switch (f.function) {
    case kSigmoid: {
      const double s = value(f, x);
      return {s * (1 - s), 0.25, 0.1};
    }
    case kTanh:
      return {1 - std::tanh(x) * std::tanh(x), 1, 0.77};
    case kRelu:
      return {x > 0 ? 1.0 : 0.0, 1, 0};
    case kHardSigmoid:
      return {alpha * x + beta > 0 && alpha * x + beta < 1 ? alpha : 0, size, 0};
    case kAffine:
      return {alpha, size, 0};
    case kLeakyRelu:
      return {x > 0 ? 1 : alpha, std::max(1.0, size), 0};
    case kThresholdedRelu:
      return {x > alpha ? 1.0 : 0.0, 1, 0};
    case kScaledTanh: {
      const double t = std::tanh(beta * x), most = std::fabs(alpha * beta);
      return {alpha * beta * (1 - t * t), most, 0.77 * most * std::fabs(beta)};
    }
    case kElu:
      return {x > 0 ? 1 : alpha * std::exp(x), std::max(1.0, size), size};
    case kSoftsign:
      return {1 / ((1 + std::fabs(x)) * (1 + std::fabs(x))), 1, 2};
    default:
      return {1 / (1 + std::exp(-x)), 1, 0.25};
  }
}

// True if x may lie on either side of one of f's kinks.
template <class Real>
bool at_kink(const Activation<Real>& f, Num<Real> x) {
  switch (f.function) {
    case kRelu:
    case kLeakyRelu:
    case kElu:
      return std::fabs(x.v) <= x.e;
    case kThresholdedRelu:
      return std::fabs(x.v - f.alpha) <= x.e;
    case kHardSigmoid: {
      const double y = double(f.alpha) * x.v + f.beta, size = std::fabs(double(f.alpha) * x.v) + std::fabs(f.beta);
      const double e = std::fabs(f.alpha) * x.e + 4 * kernel_test::epsilon<Real>() * size;
      return std::fabs(y) <= e || std::fabs(y - 1) <= e;
    }
    default:
      return false;
  }
}

template <class Real>
Num<Real> apply(const Activation<Real>& f, Num<Real> x) {
  const double y = value(f, x.v), terms = std::fabs(double(f.alpha) * x.v) + std::fabs(double(f.beta));
  const double size = f.function == kAffine || f.function == kHardSigmoid ? terms : std::fabs(y);
  const double jump = f.function == kThresholdedRelu && at_kink(f, x) ? std::fabs(x.v) : 0;
  return rounded<Real>(y, slope(f, x.v).most * x.e + 4 * kernel_test::epsilon<Real>() * size + jump);
}

// By way of 1 - y^2 and the like: good to eps of the largest slope, where saturation leaves only a small difference.
template <class Real>
Num<Real> slope_at(const Activation<Real>& f, Num<Real> x) {
  const Slope s = slope(f, x.v);
  const double jump = at_kink(f, x) ? 1 + std::fabs(double(f.alpha)) : 0;
  return rounded<Real>(s.at, s.curve * x.e + 8 * kernel_test::epsilon<Real>() * s.most + jump);
}

template <class Real>
Num<Real> clip(Num<Real> x, double most) {
  side(std::fabs(x.v) > most);
  return {std::max(-most, std::min(most, x.v)), x.e};
}

// The gradient before a clip, of the gradient d behind it.
template <class Real>
Num<Real> unclip(Num<Real> d, Num<Real> x, double most) {
  if (std::fabs(std::fabs(x.v) - most) <= x.e) return {0, std::fabs(d.v) + d.e};  // either
  return std::fabs(x.v) > most ? Num<Real>(0) : d;
}

// ---- normalisation ----

template <class Real>
struct Normal {
  std::vector<Num<Real>> v;
  Num<Real> inverse;
};

template <class Real>
Normal<Real> normal_of(const std::vector<Num<Real>>& x, double epsilon) {
  Sum<Real> sum, squares;
  for (Num<Real> a : x) sum.add(a);
  const Num<Real> share(1 / double(x.size()), 2 * kernel_test::epsilon<Real>() / double(x.size())),
      mean = sum.total() * share;
  Normal<Real> out;
  for (Num<Real> a : x) {
    out.v.push_back(a - mean);
    squares.add(out.v.back(), out.v.back());
  }
  out.inverse = inverse_root(squares.total() * share + Num<Real>(epsilon));
  for (Num<Real>& a : out.v) a = a * out.inverse;
  return out;
}

// The gradient of x from d, that of N(x).
template <class Real>
std::vector<Num<Real>> normal_backward(const std::vector<Num<Real>>& d, const Normal<Real>& normal) {
  const Num<Real> share(1 / double(d.size()), 2 * kernel_test::epsilon<Real>() / double(d.size()));
  Sum<Real> sum, weighted;
  for (size_t u = 0; u < d.size(); ++u) {
    sum.add(d[u]);
    weighted.add(d[u], normal.v[u]);
  }
  const Num<Real> mean = sum.total() * share, weight = weighted.total() * share;
  std::vector<Num<Real>> out;
  for (size_t u = 0; u < d.size(); ++u) out.push_back((d[u] - normal.v[u] * weight - mean) * normal.inverse);
  return out;
}

// ---- the cell ----

template <class Real>
CellOptions<Real> plain_options() {
  const Real none = std::numeric_limits<Real>::infinity();
  return {{kSigmoid, 1, 0}, {kTanh, 1, 0}, {kTanh, 1, 0}, none, none, 0, 0, false, CellType::lstm};
}

template <class Real>
struct CellRow {
  size_t hidden;
  CellOptions<Real> options;
  const Real* peephole = nullptr;    // (3,H)
  const Norm<Real>* norm = nullptr;  // of c alone
};

// Everything of one row, by units. The gates' arguments `a` (4H) get their peepholes.
template <class Real>
struct CellValues {
  std::vector<Num<Real>> a, i, f, g, o;
  std::vector<Num<Real>> raw, c_new, v, m;  // raw: c_new before clip and norm; v: the argument of u
  Normal<Real> normal;
};

template <class Real>
CellValues<Real> forward(const CellRow<Real>& cell, std::vector<Num<Real>> a, const std::vector<Num<Real>>& c_prev) {
  const size_t H = cell.hidden;
  const CellOptions<Real>& k = cell.options;
  auto p = [&](size_t gate, size_t u) { return Num<Real>(cell.peephole ? cell.peephole[gate * H + u] : Real(0)); };
  CellValues<Real> s;
  for (size_t u = 0; u < H; ++u) {
    a[u] = a[u] + p(0, u) * c_prev[u];
    a[H + u] = a[H + u] + p(1, u) * c_prev[u];
    s.i.push_back(apply(k.gate, clip(a[u], k.gate_clip)));
    s.f.push_back(k.coupled ? Num<Real>(1) - s.i[u] : apply(k.gate, clip(a[H + u], k.gate_clip)));
    s.g.push_back(apply(k.cell, clip(a[2 * H + u], k.gate_clip)));
    s.raw.push_back(s.f[u] * c_prev[u] + s.i[u] * s.g[u]);
    s.c_new.push_back(clip(s.raw[u], k.cell_clip));
  }
  s.v = s.c_new;
  if (cell.norm) {
    s.normal = normal_of(s.c_new, cell.norm->epsilon);
    for (size_t u = 0; u < H; ++u)
      s.v[u] = Num<Real>(cell.norm->gain_c[u]) * s.normal.v[u] + Num<Real>(cell.norm->bias_c[u]);
    if (cell.norm->replaces_cell) s.c_new = s.v;
  }
  for (size_t u = 0; u < H; ++u) {
    a[3 * H + u] = a[3 * H + u] + p(2, u) * s.c_new[u];
    s.o.push_back(apply(k.gate, clip(a[3 * H + u], k.gate_clip)));
    s.m.push_back(s.o[u] * apply(k.output, clip(s.v[u], k.gate_clip)));
  }
  s.a = std::move(a);
  return s;
}

// `old` if it is kept: by mask, by expectation, or not at all.
template <class Real>
Num<Real> kept(Num<Real> old, Num<Real> computed, const unsigned char* keep, size_t u, double rate) {
  if (keep) return keep[u] ? old : computed;
  return rate == 0 ? computed : Num<Real>(rate) * old + (Num<Real>(1) - Num<Real>(rate)) * computed;
}

template <class Real>
struct CellGradients {
  std::vector<Num<Real>> da, dc_prev, dc_total, dw;
};

// From dm and d_c (of c after zoneout) to all other gradients. With `activated` slopes are those of activated gates.
template <class Real>
CellGradients<Real> backward(const CellRow<Real>& cell, const CellValues<Real>& s, const std::vector<Num<Real>>& c_prev,
                             const std::vector<Num<Real>>& dm, const std::vector<Num<Real>>& d_c,
                             const unsigned char* keep_c, bool activated = false) {
  const size_t H = cell.hidden;
  const CellOptions<Real>& k = cell.options;
  auto p = [&](size_t gate, size_t u) { return Num<Real>(cell.peephole ? cell.peephole[gate * H + u] : Real(0)); };
  auto gate = [&](size_t g, size_t u, Num<Real> d, Num<Real> y) {
    if (activated) return g == 2 ? d * (Num<Real>(1) - y * y) : d * (y - y * y);
    const Num<Real> a = s.a[g * H + u];
    return unclip(d * slope_at(g == 2 ? k.cell : k.gate, clip(a, k.gate_clip)), a, k.gate_clip);
  };
  CellGradients<Real> d;
  d.da.resize(4 * H);
  std::vector<Num<Real>> d_c_new(H), direct(H);
  for (size_t u = 0; u < H; ++u) {
    (keep_c && keep_c[u] ? direct : d_c_new)[u] = d_c[u];
    const Num<Real> v = clip(s.v[u], k.gate_clip);
    Num<Real> d_v = unclip(dm[u] * s.o[u] * slope_at(k.output, v), s.v[u], k.gate_clip);
    d.da[3 * H + u] = gate(3, u, dm[u] * apply(k.output, v), s.o[u]);
    d_c_new[u] = d_c_new[u] + p(2, u) * d.da[3 * H + u];
    if (!cell.norm || cell.norm->replaces_cell) {
      d_v = d_v + d_c_new[u];
      d_c_new[u] = 0;
    }
    d.dw.push_back(d_v);
  }
  std::vector<Num<Real>> whole = d.dw;
  if (cell.norm) {
    for (size_t u = 0; u < H; ++u) whole[u] = Num<Real>(cell.norm->gain_c[u]) * d.dw[u];
    whole = normal_backward(whole, s.normal);
    for (size_t u = 0; u < H; ++u) whole[u] = whole[u] + d_c_new[u];
  }
  for (size_t u = 0; u < H; ++u) {
    d.dc_total.push_back((cell.norm && cell.norm->replaces_cell ? d.dw[u] : whole[u]) + direct[u]);
    const Num<Real> dn = unclip(whole[u], s.raw[u], k.cell_clip);
    d.da[u] = gate(0, u, dn * (k.coupled ? s.g[u] - c_prev[u] : s.g[u]), s.i[u]);
    d.da[H + u] = k.coupled ? Num<Real>(0) : gate(1, u, dn * c_prev[u], s.f[u]);
    d.da[2 * H + u] = gate(2, u, dn * s.i[u], s.g[u]);
    d.dc_prev.push_back(dn * s.f[u] + p(0, u) * d.da[u] + p(1, u) * d.da[H + u] + direct[u]);
  }
  return d;
}

}  // namespace judge
