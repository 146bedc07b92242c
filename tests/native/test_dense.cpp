// The flat work of training between guards: dense layers, embeddings' gradients, and optimizers' large steps. Expected
// values are sums in double.
#include <cmath>

#include "kernel_test.h"
#include "parallel/pool.h"
#include "train/dense.h"
#include "train/embedding.h"
#include "train/optimizers.h"

using namespace quadgate;
using namespace kernel_test;

namespace {

// got = the sum of n products a(k) b(k), within Higham's n u / (1 - n u) times the sum of their sizes.
template <class Real, class A, class B>
bool is_sum(Real got, size_t n, A&& a, B&& b) {
  double sum = 0, size = 0;
  for (size_t k = 0; k < n; ++k) {
    const double product = double(a(k)) * double(b(k));
    sum += product;
    size += std::fabs(product);
  }
  const double nu = double(n + 4) * (epsilon<Real>() / 2 + 0x1p-53);
  return std::fabs(double(got) - sum) <= nu / (1 - nu) * size;
}

template <class Real>
void test_dense(size_t rows, size_t n_in, size_t n_out, int threads) {
  set_num_threads(threads);
  const Guarded<Real> x(uniform<Real>(rows * n_in)), w(uniform<Real>(n_out * n_in)), b(uniform<Real>(n_out));
  const Guarded<Real> dy(uniform<Real>(rows * n_out));
  const Guarded<Real> y(rows * n_out), dx(rows * n_in), dw(n_out * n_in), db(n_out);
  const DenseLayer<Real> layer(w.data(), b.data(), n_in, n_out, nullptr);
  CHECK(layer.forward(x.data(), rows, nullptr, y.data(), nullptr));
  CHECK(layer.backward({x.data(), nullptr, nullptr, dy.data(), rows, dx.data(), dw.data(), db.data()}, nullptr));
  // Of large results every 97th element, and 100 at both ends.
  auto each = [](size_t n, auto&& f) {
    const size_t few = n < 5000 ? n : 100;
    for (size_t i = 0; i < few; ++i) f(i);
    for (size_t i = few; i + 100 < n; i += 97) f(i);
    for (size_t i = n - std::min(n - few, size_t(100)); i < n; ++i) f(i);
  };
  auto one = [](size_t) { return 1.0; };
  each(rows * n_out, [&](size_t i) {
    const size_t r = i / n_out, o = i % n_out;
    CHECK(is_sum(
        y[i], n_in + 1, [&](size_t k) { return k < n_in ? x[r * n_in + k] : b[o]; },
        [&](size_t k) { return k < n_in ? w[o * n_in + k] : Real(1); }));
  });
  each(rows * n_in, [&](size_t i) {
    CHECK(is_sum(
        dx[i], n_out, [&](size_t k) { return dy[i / n_in * n_out + k]; },
        [&](size_t k) { return w[k * n_in + i % n_in]; }));
  });
  each(n_out * n_in, [&](size_t i) {
    CHECK(is_sum(
        dw[i], rows, [&](size_t k) { return dy[k * n_out + i / n_in]; },
        [&](size_t k) { return x[k * n_in + i % n_in]; }));
  });
  each(n_out, [&](size_t i) {
    CHECK(is_sum(
        db[i], rows, [&](size_t k) { return dy[k * n_out + i]; }, one));
  });
}

template <class Real>
void test_embedding(size_t rows, size_t columns, size_t n) {
  const Guarded<Real> dy(uniform<Real>(n * columns)), dw(rows * columns);
  std::vector<int64_t> ids(n);
  for (int64_t& id : ids) id = int64_t(engine()() % rows);
  CHECK(sum_rows<Real>(dy.data(), columns, ids.data(), n, rows, dw.data(), nullptr));
  std::vector<double> sum(rows * columns), size(rows * columns);
  for (size_t i = 0; i < n; ++i)
    for (size_t c = 0; c < columns; ++c) {
      sum[size_t(ids[i]) * columns + c] += double(dy[i * columns + c]);
      size[size_t(ids[i]) * columns + c] += std::fabs(double(dy[i * columns + c]));
    }
  bool right = true;
  for (size_t i = 0; i < rows * columns; ++i)
    right = right && std::fabs(double(dw[i]) - sum[i]) <= double(n) * epsilon<Real>() * size[i];
  CHECK(right);
}

// Steps whose results go past the caches have the bits of others, and begin at any element.
template <class Real>
void test_large_steps() {
  const size_t sizes[] = {5, (size_t(16) << 20) / sizeof(Real), 3};  // SGD has one mean, so 32 MB of results
  size_t n = 0;
  for (size_t part : sizes) n += part;
  const Guarded<Real> p(uniform<Real>(n)), g(uniform<Real>(n)), m(uniform<Real>(n));
  Guarded<Real> v(uniform<Real>(n));
  for (size_t i = 0; i < n; ++i) v[i] = std::fabs(v[i]);
  const AdamNumbers adam = {1.0, 0.9, 0.99, 1e-8, 0.1, 1.0, 0.1, 0.01};
  const SgdNumbers sgd = {1.0, 0.9, 0.1, true};
  auto segment = [&](size_t at, size_t size, bool second) {
    return Segment<Real>{p.data() + at, g.data() + at, m.data() + at, second ? v.data() + at : nullptr, size, 0.5};
  };
  for (bool is_adam : {true, false}) {
    const Guarded<Real> large_p(n), large_m(n), large_v(n), small_p(n), small_m(n), small_v(n);
    auto step = [&](const std::vector<Segment<Real>>& segments, const Targets<Real>& to) {
      CHECK(is_adam ? adam_step(segments, adam, to, nullptr) : sgd_step(segments, sgd, to, nullptr));
    };
    std::vector<Segment<Real>> all;
    size_t at = 0;
    for (size_t part : sizes) {
      all.push_back(segment(at, part, is_adam));
      at += part;
    }
    step(all, {large_p.data(), large_m.data(), large_v.data()});
    for (at = 0; at < n;) {
      const size_t some = std::min(n - at, n / 3 + 1);
      step({segment(at, some, is_adam)}, {small_p.data() + at, small_m.data() + at, small_v.data() + at});
      at += some;
    }
    CHECK(std::memcmp(large_p.data(), small_p.data(), n * sizeof(Real)) == 0);
    CHECK(std::memcmp(large_m.data(), small_m.data(), n * sizeof(Real)) == 0);
    if (is_adam) CHECK(std::memcmp(large_v.data(), small_v.data(), n * sizeof(Real)) == 0);
  }
}

template <class Real>
void test_all() {
  for (int threads : {1, 3}) {
    // Few outputs; panels of each piece, in blocks; of dz; shared panels, also copied together; rows of dz that are
    // copied; several slices of k.
    for (size_t rows : {size_t(0), size_t(1), size_t(13)})
      for (size_t n_in : {size_t(1), size_t(17), size_t(130)})
        for (size_t n_out : {size_t(3), size_t(20), size_t(201)}) test_dense<Real>(rows, n_in, n_out, threads);
    test_dense<Real>(515, 70, 40, threads);
    test_dense<Real>(300, 5, 300, threads);
    test_dense<Real>(1027, 140, 220, threads);
    test_dense<Real>(1027, 9, 700, threads);
    test_dense<Real>(30, 20, 1300, threads);
  }
  test_embedding<Real>(7, 5, 40);
  test_embedding<Real>(4100, 130, 300);
  test_large_steps<Real>();
}

}  // namespace

int main() {
  test_all<float>();
  test_all<double>();
  return check::result();
}
