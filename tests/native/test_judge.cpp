// The judge of the kernels, judged: its gradients are the differences of its forward pass. Needs no kernels.
#include "cell_cases.h"
#include "judge.h"

using namespace quadgate;
using namespace kernel_test;
using judge::Num;

namespace {

std::vector<Num<double>> numbers(const std::vector<double>& v) { return {v.begin(), v.end()}; }

// The judge's gradients are the differences of its forward pass.
void test_cell() {
  const size_t H = 5;
  for (const cell_cases::Case<double>& what : cell_cases::cases<double>()) {
    if (what.options.type == CellType::elman) continue;
    for (int norm = 0; norm < 3; ++norm) {
      auto a = numbers(uniform<double>(4 * H)), c_prev = numbers(uniform<double>(H));
      const auto dm = numbers(uniform<double>(H)), d_c = numbers(uniform<double>(H));
      const auto peephole = uniform<double>(3 * H);
      auto gain = uniform<double>(H), bias = uniform<double>(H);
      const auto keep = flags(H);
      const Norm<double> n = {nullptr, nullptr, gain.data(), bias.data(), 0.1, norm == 2};
      const judge::CellRow<double> cell = {H, what.options, what.peephole ? peephole.data() : nullptr,
                                           norm ? &n : nullptr};
      auto loss = [&] {
        judge::sides() = 0;
        const auto s = judge::forward(cell, a, c_prev);
        double sum = 0;
        for (size_t u = 0; u < H; ++u)
          sum += dm[u].v * s.m[u].v + d_c[u].v * judge::kept(c_prev[u], s.c_new[u], keep.data(), u, 0).v;
        return sum;
      };
      auto check = [&](double& at, double want) {
        constexpr double step = 1e-3;
        const double middle = at;
        (void)loss();
        const uint64_t sides = judge::sides();
        bool smooth = true;
        double sum = 0;
        for (int j : {-2, -1, 1, 2}) {
          at = middle + j * step;
          sum += (j * j == 1 ? 8 * j : -j / 2) * loss() / (12 * step);
          smooth = smooth && judge::sides() == sides;
        }
        at = middle;
        if (smooth) CHECK(std::fabs(sum - want) < 1e-7);  // step^4 times a fifth derivative, of some hundreds at most
      };
      const auto s = judge::forward(cell, a, c_prev);
      const auto d = judge::backward(cell, s, c_prev, dm, d_c, keep.data());
      for (size_t j = 0; j < 4 * H; ++j) check(a[j].v, d.da[j].v);
      for (size_t u = 0; u < H; ++u) {
        check(c_prev[u].v, d.dc_prev[u].v);
        if (!norm) continue;
        check(bias[u], d.dw[u].v);
        check(gain[u], d.dw[u].v * s.normal.v[u].v);
      }
    }
  }
}

// The judge's gradient through N is the difference of N.
void test_normal() {
  for (size_t n : {4, 5, 12}) {
    auto x = uniform<double>(n);
    const auto weights = uniform<double>(n);
    auto loss = [&] {
      const auto normal = judge::normal_of(numbers(x), 0.1);
      double sum = 0;
      for (size_t j = 0; j < n; ++j) sum += weights[j] * normal.v[j].v;
      return sum;
    };
    const auto d = judge::normal_backward(numbers(weights), judge::normal_of(numbers(x), 0.1));
    for (size_t j = 0; j < n; ++j) {
      constexpr double step = 1e-3;
      const double middle = x[j];
      double sum = 0;
      for (int i : {-2, -1, 1, 2}) {
        x[j] = middle + i * step;
        sum += (i * i == 1 ? 8 * i : -i / 2) * loss() / (12 * step);
      }
      x[j] = middle;
      CHECK(std::fabs(sum - d[j].v) < 1e-8);
    }
  }
}

}  // namespace

int main() {
  test_cell();
  test_normal();
  return check::result();
}
