// The activations of every table this machine can run: sigmoid and tanh to 2 ULP, the others and their slopes to 4;
// exact limits, NaN, kinks, tails, in place.
//
// The judge is double for float and long double for double. Where long double is no wider than double (MSVC, macOS on
// ARM), nothing can judge double's last bits, and only its exact properties are tested.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/dispatch.h"

namespace {

using namespace quadgate;

template <class Real>
struct Wider;
template <>
struct Wider<float> {
  using Wide = double;
  using Bits = uint32_t;
};
template <>
struct Wider<double> {
  using Wide = long double;
  using Bits = uint64_t;
};

template <class Real>
Real from_bits(typename Wider<Real>::Bits bits) {
  Real x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// An argument with e^-|x|, which most functions need: an emulator takes seconds to compute a million of them.
template <class Wide>
struct Argument {
  Wide x, e;
  explicit Argument(Wide value) : x(value), e(std::exp(-std::fabs(value))) {}
};

template <class Wide>
Wide exact_sigmoid(const Argument<Wide>& a) {
  return (a.x < 0 ? a.e : 1) / (1 + a.e);
}

// From e^-2|x| where that loses at most 16 of more than 100 bits.
template <class Wide>
Wide exact_tanh(const Argument<Wide>& a) {
  if (std::numeric_limits<Wide>::digits < 100 || std::fabs(a.x) < Wide(1) / (1 << 16)) return std::tanh(a.x);
  return std::copysign((1 - a.e * a.e) / (1 + a.e * a.e), a.x);
}

template <class Wide, class Real>
Wide value_of_line(const Activation<Real>& f, Wide x) {
  return std::fma(static_cast<Wide>(f.alpha), x, static_cast<Wide>(f.beta));
}

template <class Wide, class Real>
Wide exact_value(const Activation<Real>& f, const Argument<Wide>& a) {
  const Wide x = a.x, alpha = f.alpha, beta = f.beta;
  switch (f.function) {
    case kSigmoid:
      return exact_sigmoid(a);
    case kTanh:
      return exact_tanh(a);
    case kRelu:
      return x < 0 ? 0 : x;
    case kHardSigmoid:
      return value_of_line(f, x) < 0 ? 0 : value_of_line(f, x) > 1 ? 1 : value_of_line(f, x);
    case kAffine:
      return value_of_line(f, x);
    case kLeakyRelu:
      return x < 0 ? alpha * x : x;
    case kThresholdedRelu:
      return x > alpha ? x : 0;  // so is NaN
    case kScaledTanh:
      return alpha * (beta == 1 ? exact_tanh(a) : std::tanh(beta * x));
    case kElu:
      return x < 0 ? alpha * std::expm1(x) : x;
    case kSoftsign:
      return std::isinf(x) ? std::copysign(Wide(1), x) : x / (1 + std::fabs(x));
    default:
      return (x > 0 ? x : x < 0 ? 0 : x - x) + std::log1p(a.e);
  }
}

template <class Wide, class Real>
Wide exact_slope(const Activation<Real>& f, const Argument<Wide>& a) {
  const Wide x = a.x, alpha = f.alpha, beta = f.beta;
  switch (f.function) {
    case kSigmoid:
      return a.e / ((1 + a.e) * (1 + a.e));
    case kTanh:
    case kScaledTanh: {
      const Wide t = f.function == kTanh || beta == 1 ? exact_tanh(a) : std::tanh(beta * x);
      return (f.function == kTanh ? 1 : alpha * beta) * (1 - t) * (1 + t);
    }
    case kRelu:
      return x > 0 ? 1 : 0;
    case kHardSigmoid:
      return value_of_line(f, x) > 0 && value_of_line(f, x) < 1 ? alpha : 0;
    case kAffine:
      return alpha;
    case kLeakyRelu:
      return x > 0 ? 1 : alpha;
    case kThresholdedRelu:
      return x > alpha ? 1 : 0;
    case kElu:
      return x > 0 ? 1 : alpha * a.e;
    case kSoftsign:
      return 1 / ((1 + std::fabs(x)) * (1 + std::fabs(x)));
    default:
      return exact_sigmoid(a);
  }
}

// Distance in units of the last place that T has at `size`, by default the size of `exact`.
template <class Real, class Wide>
double ulps(Real got, Wide exact, Wide size = 0) {
  if (std::isnan(exact) || std::isnan(got)) return std::isnan(exact) && std::isnan(got) ? 0 : HUGE_VAL;
  if (got == exact) return 0;
  using Limits = std::numeric_limits<Real>;
  if (std::isinf(got)) return std::fabs(exact) >= Limits::max() && (got > 0) == (exact > 0) ? 0 : HUGE_VAL;
  size = std::max(size, std::fabs(exact));
  int exponent = Limits::min_exponent;
  if (size >= Limits::min()) std::frexp(size, &exponent);
  return static_cast<double>(std::fabs(std::ldexp(static_cast<Wide>(got) - exact, Limits::digits - exponent)));
}

// Arguments at which a formula changes: clamps, saturation, the first and last denormal result, changes of k, and zero.
template <class Real>
void add_special(std::vector<Real>& x, int neighbours) {
  using Limits = std::numeric_limits<Real>;
  const Real inf = Limits::infinity(), ln2 = static_cast<Real>(0.69314718055994530942);
  std::vector<Real> at = {0, Limits::denorm_min(), Limits::min(), Limits::epsilon(), 1, Limits::max()};
  for (Real edge :
       {Real(8.317), Real(9.011), Real(10), Real(16.635), Real(17.329), Real(20), Real(36.737), Real(40), Real(87.337),
        Real(88.723), Real(103.972), Real(106), Real(708.396), Real(709.783), Real(745.133), Real(748)})
    at.push_back(edge);
  for (int k = 0; k < 2200; ++k) at.push_back((Real(k) + Real(0.5)) * ln2 / 2);
  for (Real centre : at) {
    Real up = centre, down = centre;
    for (int i = 0; i < neighbours; ++i) {
      for (Real v : {up, down, -up, -down}) x.push_back(v);
      up = std::nextafter(up, inf);
      down = std::nextafter(down, -inf);
    }
  }
  for (Real v : {inf, -inf, Limits::quiet_NaN(), -Limits::quiet_NaN(), Limits::signaling_NaN()}) x.push_back(v);
}

// One in `thin` of the arguments of the closest test.
std::vector<float> samples(float, unsigned thin) {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 2503 * thin)
    x.push_back(from_bits<float>(uint32_t(bits)));
  // nearly all of those are huge, tiny or NaN; these are the arguments of ordinary networks
  for (uint32_t bits = 0x3a000000; bits < 0x43000000; bits += 401 * thin)
    for (uint32_t sign : {0u, 0x80000000u}) x.push_back(from_bits<float>(bits | sign));
  add_special(x, thin > 1 ? 4 : 20);
  return x;
}

std::vector<double> samples(double, unsigned thin) {
  std::vector<double> x;
  std::mt19937_64 random(20240517);
  std::uniform_real_distribution<double> wide(-40, 40), middle(-1, 1), low(-750, 0), power(-80, 6);
  for (unsigned i = 0; i < 350000 / thin; ++i) {
    x.push_back(from_bits<double>(random()));
    for (int j = 0; j < 2; ++j) x.push_back(wide(random));
    x.push_back(middle(random));
    x.push_back(low(random));
    double size = std::exp2(power(random));
    x.push_back(i % 2 ? size : -size);
  }
  add_special(x, thin > 1 ? 4 : 20);
  return x;
}

template <class Real>
struct Named {
  const char* name;
  Activation<Real> f;
  double allowed;  // ULP of the value
  double slope;    // ULP of the slope; below 0: of 1 rather, as 1 - y^2 and y - y^2 are rests where y saturates
};

// The roundings: where alpha is not 1, an ULP of the unscaled function may weigh two of the result's; and beta x
// rounds. 1 - t^2, in ULP of 1: 2 t times two halves, and the roundings of the square and of the rest. y - y^2: less.
template <class Real>
std::vector<Named<Real>> functions() {
  return {{"sigmoid", {kSigmoid, 1, 0}, 2, -2},
          {"tanh", {kTanh, 1, 0}, 2, -3},
          {"relu", {kRelu, 1, 0}, 0, 0},
          {"hard_sigmoid", {kHardSigmoid, Real(0.2), Real(0.5)}, 0.5, 0},
          {"hard_sigmoid", {kHardSigmoid, Real(1) / 6, Real(0.5)}, 0.5, 0},
          {"affine", {kAffine, 1, 0}, 0, 0},
          {"affine", {kAffine, Real(2.7), Real(-0.6)}, 0.5, 0},
          {"leaky_relu", {kLeakyRelu, Real(0.01), 0}, 0.5, 0},
          {"thresholded_relu", {kThresholdedRelu, 1, 0}, 0, 0},
          {"scaled_tanh", {kScaledTanh, 1, 1}, 2, -3},
          {"scaled_tanh", {kScaledTanh, Real(1.7159), Real(0.6666667)}, 6, -5},
          {"elu", {kElu, 1, 0}, 4, 4},
          {"elu", {kElu, Real(1.6732632), 0}, 8, 8},
          {"softsign", {kSoftsign, 1, 0}, 4, 4},
          {"softplus", {kSoftplus, 1, 0}, 4, 4}};
}

// The cell's own derivative of its candidate, where i = f = o = 1 and the gradient of c is 1.
template <class Real>
std::vector<Real> slopes(const Kernels<Real>& k, const Activation<Real>& f, const std::vector<Real>& x) {
  const Real none = std::numeric_limits<Real>::infinity();
  const CellOptions<Real> options = {{kAffine, 0, 1}, f, {kTanh, 1, 0}, none, none, 0, 0, false, CellType::lstm};
  std::vector<Real> y(x.size());
  for (size_t first = 0; first < x.size(); first += 4096) {
    const size_t n = std::min(x.size() - first, size_t(4096)), blocks = (n + k.width - 1) / k.width;
    std::vector<Real> gates(4 * n), c(n), dc(n, Real(1)), dg(4 * n), panel(blocks * 4 * k.width);
    for (size_t u = 0; u < n; u += k.width) {  // the tape lies in blocks of units
      const size_t units = std::min(n - u, k.width);
      std::copy_n(&x[first + u], units, &gates[4 * u + 2 * units]);
    }
    const BackwardRow<Real> row = {nullptr,  nullptr,   nullptr,   gates.data(), c.data(),
                                   c.data(), dc.data(), dg.data(), panel.data()};
    k.backward({nullptr, 4, n, n, &row, 1, 0, (blocks + 3) / 4, 4 * k.width, false, &options, nullptr, nullptr,
                nullptr});  // no sums: there is no next step
    std::copy_n(dg.begin() + 2 * n, n, y.begin() + first);
  }
  return y;
}

// The largest error, over all samples; NaN must stay NaN and nothing else become one. size(x): see `ulps`.
template <class Real, class Wide, class Size>
void check_error(const char* isa, const char* name, const char* what, double allowed, const std::vector<Real>& x,
                 const std::vector<Real>& y, const std::vector<Wide>& exact, Size&& size) {
  double worst = 0;
  Real where = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    double error = ulps(y[i], exact[i], size(static_cast<Wide>(x[i])));
    if (error > worst) {
      worst = error;
      where = x[i];
    }
  }
  std::printf("%-8s %-16s %-5s %-6s %.4f ULP at %.17g\n", isa, name, what, sizeof(Real) == 4 ? "float" : "double",
              worst, static_cast<double>(where));
  CHECK(worst <= allowed);
}

template <class Real>
Real one(const Kernels<Real>& k, int function, Real x, Real alpha = 1, Real beta = 0) {
  Real y = -1;
  k.activate({function, alpha, beta}, &x, &y, 1);
  return y;
}

template <class Real>
void check_exact(const Kernels<Real>& k) {
  using Limits = std::numeric_limits<Real>;
  const Real inf = Limits::infinity(), nan = Limits::quiet_NaN();
  for (Real x : {inf, Limits::max(), Real(1000)}) {
    CHECK(one(k, kSigmoid, x) == 1 && one(k, kTanh, x) == 1 && one(k, kTanh, -x) == -1);
    CHECK(one(k, kSigmoid, -x) == 0 && !std::signbit(one(k, kSigmoid, -x)));
    CHECK(one(k, kRelu, x) == x && one(k, kRelu, -x) == 0);
    CHECK(one(k, kHardSigmoid, x, Real(0.2), Real(0.5)) == 1 && one(k, kHardSigmoid, -x, Real(0.2), Real(0.5)) == 0);
    CHECK(one(k, kAffine, x) == x && one(k, kAffine, -x) == -x);
    CHECK(one(k, kLeakyRelu, x, Real(0.25)) == x && one(k, kLeakyRelu, -x, Real(0.25)) == -x / 4);
    CHECK(one(k, kThresholdedRelu, x) == x && one(k, kThresholdedRelu, -x) == 0);
    CHECK(one(k, kScaledTanh, x, Real(3), Real(2)) == 3 && one(k, kScaledTanh, -x, Real(3), Real(2)) == -3);
    CHECK(one(k, kElu, x) == x && one(k, kElu, -x) == -1 && one(k, kElu, -x, Real(3)) == -3);
    CHECK(one(k, kSoftplus, x) == x && one(k, kSoftplus, -x) == 0 && !std::signbit(one(k, kSoftplus, -x)));
    if (x == 1000) continue;
    CHECK(one(k, kSoftsign, x) == 1 && one(k, kSoftsign, -x) == -1);
  }
  CHECK(one(k, kSigmoid, Real(0)) == Real(0.5) && one(k, kSigmoid, Real(-0.0)) == Real(0.5));
  for (int f : {int(kTanh), int(kScaledTanh), int(kElu), int(kSoftsign), int(kLeakyRelu)}) {
    CHECK(one(k, f, Real(0), Real(1), Real(1)) == 0 && !std::signbit(one(k, f, Real(0), Real(1), Real(1))));
    CHECK(one(k, f, Real(-0.0), Real(1), Real(1)) == 0 && std::signbit(one(k, f, Real(-0.0), Real(1), Real(1))));
  }
  for (Real x : {Limits::denorm_min(), Limits::min() / 2, Limits::min(), Limits::min() * 3}) {
    CHECK(one(k, kTanh, x) == x && one(k, kTanh, -x) == -x);
    CHECK(one(k, kSoftsign, x) == x && one(k, kSoftsign, -x) == -x);
    CHECK(one(k, kRelu, x) == x && one(k, kRelu, -x) == 0 && one(k, kElu, x) == x);
  }
  for (int f = 0; f < 11; ++f) CHECK(f == kThresholdedRelu ? one(k, f, nan) == 0 : std::isnan(one(k, f, nan)));
  CHECK(one(k, kThresholdedRelu, Real(1)) == 0 && one(k, kThresholdedRelu, std::nextafter(Real(1), inf)) > 1);
  Real tiny = one(k, kSigmoid, sizeof(Real) == 4 ? Real(-100) : Real(-740));
  CHECK(tiny > 0 && tiny < Limits::min());
  tiny = one(k, kSoftplus, sizeof(Real) == 4 ? Real(-100) : Real(-740));
  CHECK(tiny > 0 && tiny < Limits::min());
}

// Slopes at kinks: that of the side below; hard_sigmoid has none at either end. And far away.
template <class Real>
void check_slopes(const Kernels<Real>& k) {
  const Real inf = std::numeric_limits<Real>::infinity(), nan = std::numeric_limits<Real>::quiet_NaN(), least = -inf;
  auto is = [&](int function, Real alpha, Real beta, const std::vector<Real>& x, const std::vector<Real>& want) {
    CHECK(slopes(k, {function, alpha, beta}, x) == want);
  };
  is(kRelu, 1, 0, {Real(-0.0), 0, std::nextafter(Real(0), inf), inf, least}, {0, 0, 1, 1, 0});
  is(kLeakyRelu, Real(0.1), 0, {Real(-0.0), 0, std::nextafter(Real(0), inf), inf, least},
     {Real(0.1), Real(0.1), 1, 1, Real(0.1)});
  is(kElu, Real(0.7), 0, {Real(-0.0), 0, std::nextafter(Real(0), inf), inf, least}, {Real(0.7), Real(0.7), 1, 1, 0});
  is(kThresholdedRelu, Real(0.5), 0, {Real(0.5), std::nextafter(Real(0.5), inf), inf, least}, {0, 1, 1, 0});
  is(kHardSigmoid, Real(0.25), Real(0.5), {-2, 2, Real(-1.9), Real(1.9), inf, least},
     {0, 0, Real(0.25), Real(0.25), 0, 0});
  is(kSoftsign, 1, 0, {Real(-0.0), 0, inf, least}, {1, 1, 0, 0});
  is(kSoftplus, 1, 0, {0, inf, least}, {Real(0.5), 1, 0});
  is(kScaledTanh, 3, 2, {0, inf, least}, {6, 0, 0});
  is(kAffine, 3, 2, {0, 1, Real(-7)}, {3, 3, 3});
  for (int f : {int(kSigmoid), int(kTanh), int(kScaledTanh), int(kElu), int(kSoftsign), int(kSoftplus)})
    CHECK(std::isnan(slopes(k, {f, 1, 1}, {nan})[0]));
}

// Any n, in place or not, gives every lane's own value and touches nothing beyond.
template <class Real>
void check_tails(const Kernels<Real>& k) {
  const Real guard = Real(77);
  for (int f = 0; f < 11; ++f) {
    for (size_t n = 0; n <= 3 * k.width + 1; ++n) {
      std::vector<Real> x(n), y(n + 40, guard), in_place(n + 40, guard);
      for (size_t i = 0; i < n; ++i) in_place[i] = x[i] = Real(0.37) * Real(i) - Real(3);
      const Activation<Real> function = {f, Real(0.3), Real(0.4)};
      k.activate(function, x.data(), y.data(), n);
      k.activate(function, in_place.data(), in_place.data(), n);
      bool same = true, kept = true;
      for (size_t i = 0; i < n; ++i)
        same = same && y[i] == one(k, f, x[i], function.alpha, function.beta) && in_place[i] == y[i];
      for (size_t i = n; i < n + 40; ++i) kept = kept && y[i] == guard && in_place[i] == guard;
      CHECK(same);
      CHECK(kept);
    }
  }
}

template <class Real>
void check_all(const std::vector<const KernelTable*>& tables, const Kernels<Real> KernelTable::*part) {
  using Wide = typename Wider<Real>::Wide;
  for (const KernelTable* table : tables) {
    check_exact(table->*part);
    check_slopes(table->*part);
    check_tails(table->*part);
  }
  if (std::numeric_limits<Wide>::digits <= std::numeric_limits<Real>::digits) return;
  // An emulator, which gets few rounds, computes long double by software of its own.
  const unsigned thin = check::rounds() < 10000 ? 4 : 1;
  const std::vector<Real> densely = samples(Real(), thin), thinly = samples(Real(), 16);
  auto arguments = [](const std::vector<Real>& x) {
    std::vector<Argument<Wide>> a;
    a.reserve(x.size());
    for (Real v : x) a.emplace_back(static_cast<Wide>(v));
    return a;
  };
  const std::vector<Argument<Wide>> dense_arguments = arguments(densely), thin_arguments = arguments(thinly);
  auto none = [](Wide) { return Wide(0); };
  for (const Named<Real>& one : functions<Real>()) {
    const bool by_two = one.allowed == 2 && one.f.function != kScaledTanh;
    const bool line = one.f.function == kAffine || one.f.function == kHardSigmoid;
    const std::vector<Real>& x = by_two ? densely : thinly;
    std::vector<Wide> value, slope;
    for (const Argument<Wide>& a : by_two ? dense_arguments : thin_arguments) value.push_back(exact_value(one.f, a));
    std::vector<Real> at, y(x.size());  // where there is a slope, and rounding does not decide on which side of a kink
    for (const Argument<Wide>& a : thin_arguments) {
      const Wide end = value_of_line(one.f, a.x), edge = 2 * std::numeric_limits<Real>::epsilon();
      const bool close = std::min(std::fabs(end), std::fabs(end - 1)) < edge;
      if (std::isnan(a.x) || (one.f.function == kHardSigmoid && close)) continue;
      at.push_back(static_cast<Real>(a.x));
      slope.push_back(exact_slope(one.f, a));
    }
    const Wide most = one.f.function == kScaledTanh ? one.f.alpha * one.f.beta : 1;
    for (const KernelTable* table : tables) {
      const Kernels<Real>& k = table->*part;
      k.activate(one.f, x.data(), y.data(), x.size());
      // Without a fused multiply-add the product rounds for itself, and may be larger than what beta leaves of it.
      if (line && std::strcmp(table->name, "baseline") == 0)
        check_error(table->name, one.name, "", one.allowed * 2, x, y, value,
                    [&](Wide v) { return std::fabs(v * static_cast<Wide>(one.f.alpha)); });
      else
        check_error(table->name, one.name, "", one.allowed, x, y, value, none);
      check_error(table->name, one.name, "slope", std::fabs(one.slope), at, slopes(k, one.f, at), slope,
                  [&](Wide) { return one.slope < 0 ? most : Wide(0); });
    }
  }
}

}  // namespace

int main() {
  std::vector<const KernelTable*> tables;
  for (const char* name : {"baseline", "avx2", "avx512", "neon"})
    if (const KernelTable* table = kernel_table(name)) tables.push_back(table);
  CHECK(!tables.empty());
  check_all<float>(tables, &KernelTable::f32);
  check_all<double>(tables, &KernelTable::f64);
  return check::result();
}
