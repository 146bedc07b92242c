// sigmoid and tanh of every table this machine can run: at most 2 ULP, exact limits, NaN, tails, in place.
//
// The judge is double for float and long double for double. Where long double is no wider than double (MSVC, macOS on
// ARM), nothing can judge double's last bits, and only its exact properties are tested.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "dispatch.h"

namespace {

constexpr double kAllowed = 2.0;

template <class T>
struct Wider;
template <>
struct Wider<float> {
  using Real = double;
  using Bits = uint32_t;
};
template <>
struct Wider<double> {
  using Real = long double;
  using Bits = uint64_t;
};

template <class T>
T from_bits(typename Wider<T>::Bits bits) {
  T x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <class Real>
Real exact_sigmoid(Real x) {
  Real z = std::exp(-std::fabs(x));
  return (x < 0 ? z : 1) / (1 + z);
}

template <class Real>
Real exact_tanh(Real x) {
  return std::tanh(x);
}

// Distance in units of the last place that T has at the size of `exact`.
template <class T, class Real>
double ulps(T got, Real exact) {
  if (std::isnan(exact) || std::isnan(got)) return std::isnan(exact) && std::isnan(got) ? 0 : HUGE_VAL;
  if (got == exact) return 0;
  using Limits = std::numeric_limits<T>;
  int exponent = Limits::min_exponent;
  if (std::fabs(exact) >= Limits::min()) std::frexp(exact, &exponent);
  return static_cast<double>(std::fabs(std::ldexp(static_cast<Real>(got) - exact, Limits::digits - exponent)));
}

// Where something happens: clamps, saturation, the first and last denormal result, changes of k, and zero.
template <class T>
void add_special(std::vector<T>& x) {
  using Limits = std::numeric_limits<T>;
  const T inf = Limits::infinity(), ln2 = static_cast<T>(0.69314718055994530942);
  std::vector<T> at = {0, Limits::denorm_min(), Limits::min(), Limits::epsilon(), 1, Limits::max()};
  for (T edge : {T(8.317), T(9.011), T(10), T(16.635), T(17.329), T(20), T(36.737), T(40), T(87.337), T(88.723),
                 T(103.972), T(106), T(708.396), T(709.783), T(745.133), T(748)})
    at.push_back(edge);
  for (int k = 0; k < 2200; ++k) at.push_back((T(k) + T(0.5)) * ln2 / 2);
  for (T centre : at) {
    T up = centre, down = centre;
    for (int i = 0; i < 20; ++i) {
      for (T v : {up, down, -up, -down}) x.push_back(v);
      up = std::nextafter(up, inf);
      down = std::nextafter(down, -inf);
    }
  }
  for (T v : {inf, -inf, Limits::quiet_NaN(), -Limits::quiet_NaN(), Limits::signaling_NaN()}) x.push_back(v);
}

std::vector<float> samples(float) {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 2503) x.push_back(from_bits<float>(uint32_t(bits)));
  // nearly all of those are huge, tiny or NaN; here is where the work is done
  for (uint32_t bits = 0x3a000000; bits < 0x43000000; bits += 401)
    for (uint32_t sign : {0u, 0x80000000u}) x.push_back(from_bits<float>(bits | sign));
  add_special(x);
  return x;
}

std::vector<double> samples(double) {
  std::vector<double> x;
  std::mt19937_64 random(20240517);
  std::uniform_real_distribution<double> wide(-40, 40), middle(-1, 1), low(-750, 0), power(-80, 6);
  for (int i = 0; i < 350000; ++i) {
    x.push_back(from_bits<double>(random()));
    for (int j = 0; j < 2; ++j) x.push_back(wide(random));
    x.push_back(middle(random));
    x.push_back(low(random));
    double size = std::exp2(power(random));
    x.push_back(i % 2 ? size : -size);
  }
  add_special(x);
  return x;
}

template <class T>
using Function = void (*)(const T*, T*, size_t);

// The largest error, over all samples; NaN must stay NaN and nothing else become one.
template <class T, class Real>
void check_error(const char* isa, const char* name, Function<T> f, const std::vector<T>& x,
                 const std::vector<Real>& exact) {
  std::vector<T> y(x.size());
  f(x.data(), y.data(), x.size());
  double worst = 0;
  T where = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    double error = ulps(y[i], exact[i]);
    if (error > worst) {
      worst = error;
      where = x[i];
    }
  }
  std::printf("%-8s %-7s %-6s %.4f ULP at %.17g\n", isa, name, sizeof(T) == 4 ? "float" : "double", worst,
              static_cast<double>(where));
  CHECK(worst <= kAllowed);
}

template <class T>
T one(Function<T> f, T x) {
  T y = -1;
  f(&x, &y, 1);
  return y;
}

template <class T>
void check_exact(const fourgate::Kernels<T>& k) {
  using Limits = std::numeric_limits<T>;
  const T inf = Limits::infinity();
  for (T x : {inf, Limits::max(), T(1000)}) {
    CHECK(one(k.sigmoid, x) == 1 && one(k.tanh, x) == 1 && one(k.tanh, -x) == -1);
    CHECK(one(k.sigmoid, -x) == 0 && !std::signbit(one(k.sigmoid, -x)));
  }
  CHECK(one(k.sigmoid, T(0)) == T(0.5) && one(k.sigmoid, T(-0.0)) == T(0.5));
  CHECK(one(k.tanh, T(0)) == 0 && !std::signbit(one(k.tanh, T(0))));
  CHECK(one(k.tanh, T(-0.0)) == 0 && std::signbit(one(k.tanh, T(-0.0))));
  for (T x : {Limits::denorm_min(), Limits::min() / 2, Limits::min(), Limits::min() * 3})
    CHECK(one(k.tanh, x) == x && one(k.tanh, -x) == -x);
  CHECK(std::isnan(one(k.sigmoid, Limits::quiet_NaN())) && std::isnan(one(k.tanh, Limits::quiet_NaN())));
  T tiny = one(k.sigmoid, sizeof(T) == 4 ? T(-100) : T(-740));
  CHECK(tiny > 0 && tiny < Limits::min());
}

// Any n, in place or not, gives every lane's own value and touches nothing beyond.
template <class T>
void check_tails(const fourgate::Kernels<T>& k) {
  const T guard = T(77);
  for (Function<T> f : {k.sigmoid, k.tanh}) {
    for (size_t n = 0; n <= 3 * k.width + 1; ++n) {
      std::vector<T> x(n), y(n + 40, guard), in_place(n + 40, guard);
      for (size_t i = 0; i < n; ++i) in_place[i] = x[i] = T(0.37) * T(i) - T(3);
      f(x.data(), y.data(), n);
      f(in_place.data(), in_place.data(), n);
      bool same = true, kept = true;
      for (size_t i = 0; i < n; ++i) same = same && y[i] == one(f, x[i]) && in_place[i] == y[i];
      for (size_t i = n; i < n + 40; ++i) kept = kept && y[i] == guard && in_place[i] == guard;
      CHECK(same);
      CHECK(kept);
    }
  }
}

template <class T>
void check_all(const std::vector<const fourgate::KernelTable*>& tables,
               const fourgate::Kernels<T> fourgate::KernelTable::*part) {
  using Real = typename Wider<T>::Real;
  const bool judge = std::numeric_limits<Real>::digits > std::numeric_limits<T>::digits;
  std::vector<T> x;
  std::vector<Real> sigmoid, tanh;
  if (judge) {
    x = samples(T());
    for (T v : x) {
      sigmoid.push_back(exact_sigmoid(static_cast<Real>(v)));
      tanh.push_back(exact_tanh(static_cast<Real>(v)));
    }
  }
  for (const fourgate::KernelTable* table : tables) {
    const fourgate::Kernels<T>& k = table->*part;
    check_exact(k);
    check_tails(k);
    if (!judge) continue;
    check_error(table->name, "sigmoid", k.sigmoid, x, sigmoid);
    check_error(table->name, "tanh", k.tanh, x, tanh);
  }
}

}  // namespace

int main() {
  std::vector<const fourgate::KernelTable*> tables;
  for (const char* name : {"baseline", "avx2", "avx512", "neon"})
    if (const fourgate::KernelTable* table = fourgate::kernel_table(name)) tables.push_back(table);
  CHECK(!tables.empty());
  check_all<float>(tables, &fourgate::KernelTable::f32);
  check_all<double>(tables, &fourgate::KernelTable::f64);
  return check::result();
}
