// Every kernel of every table that this machine runs, against plain loops in double, at sizes around every tail.
// All arrays have exactly the promised sizes, so that AddressSanitizer sees a lane too many.
#include <cmath>
#include <vector>

#include "check.h"
#include "cpu/dispatch.h"
#include "kernel_test.h"
#include "memory/buffer.h"
#include "memory/packing.h"

using namespace quadgate;
using kernel_test::by_gates;
using kernel_test::epsilon;
using kernel_test::uniform;

namespace {

// True if a sum of n terms of size at most 1 (and a few roundings more) may come out as `got`.
template <class Real>
bool close(Real got, double want, size_t n, double scale = 1) {
  return std::fabs(double(got) - want) <= double(n + 32) * epsilon<Real>() * scale * std::max(1.0, std::fabs(want));
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

template <class Real>
void test_forward(const Kernels<Real>& k, size_t rows, size_t input, size_t hidden, bool ahead, bool training,
                  bool narrow) {
  const size_t W = k.width, blocks = n_blocks(hidden, W);
  const auto w_ih = uniform<Real>(4 * hidden * input, 0.5), w_hh = uniform<Real>(4 * hidden * hidden, 0.5);
  const auto bias = uniform<Real>(4 * hidden);
  std::vector<Real> p_ih(blocks * input * 4 * W), p_hh(blocks * hidden * 4 * W), p_bias(blocks * 4 * W),
      pre(rows * blocks * 4 * W);
  const PanelShape shape = {4, hidden, W, narrow && sizeof(Real) == 4, k.half_lines};
  pack_panels(k.transpose, w_ih.data(), shape, input, p_ih.data());
  pack_panels(k.transpose, w_hh.data(), shape, hidden, p_hh.data());
  pack_bias(bias.data(), shape, p_bias.data());
  std::vector<std::vector<Real>> x, h, c, y(rows, std::vector<Real>(hidden)),
      y_copy = y, c_new = y, gates(rows, std::vector<Real>(4 * hidden));
  std::vector<ForwardRow<Real>> args;
  std::vector<const Real*> inputs;
  for (size_t r = 0; r < rows; ++r) {
    x.push_back(uniform<Real>(input));
    h.push_back(uniform<Real>(hidden));
    c.push_back(uniform<Real>(hidden));
  }
  for (size_t r = 0; r < rows; ++r) {
    inputs.push_back(x[r].data());
    args.push_back({x[r].data(), h[r].data(), pre.data() + r * blocks * 4 * W, c[r].data(), c_new[r].data(),
                    y[r].data(), training ? y_copy[r].data() : nullptr, training ? gates[r].data() : nullptr});
  }
  if (ahead)
    k.project({p_ih.data(), p_bias.data(), input, inputs.data(), pre.data(), rows, blocks, 0, blocks, 4,
               shape.narrow_last()});
  // In two pieces and both orders, as threads and alternating passes over the panels do.
  ForwardStep<Real> step = {};
  step.w_ih = p_ih.data();
  step.w_hh = p_hh.data();
  step.bias = p_bias.data();
  step.input_size = input;
  step.hidden_size = step.recurrent_size = hidden;
  step.rows = args.data();
  step.n_rows = rows;
  step.block_end = blocks / 2;
  step.use_pre = ahead;
  step.narrow_last = shape.narrow_last();
  step.descending = true;
  step.large_tape = input % 2 == 0;
  step.far_results = rows % 2 == 0;
  k.forward(step);
  step.block_begin = blocks / 2;
  step.block_end = blocks;
  step.descending = false;
  k.forward(step);
  step.block_begin = blocks;  // nothing
  k.forward(step);
  for (size_t r = 0; r < rows; ++r) {
    const auto taped = by_gates(gates[r], W, hidden);
    for (size_t u = 0; u < hidden; ++u) {
      double a[4];
      for (size_t g = 0; g < 4; ++g) {
        const size_t row = g * hidden + u;
        a[g] = bias[row];
        for (size_t j = 0; j < input; ++j) a[g] += double(w_ih[row * input + j]) * x[r][j];
        for (size_t j = 0; j < hidden; ++j) a[g] += double(w_hh[row * hidden + j]) * h[r][j];
      }
      const double i = sigmoid(a[0]), f = sigmoid(a[1]), g = std::tanh(a[2]), o = sigmoid(a[3]);
      const double cell = f * c[r][u] + i * g, out = o * std::tanh(cell);
      const size_t n = input + hidden;
      CHECK(close(c_new[r][u], cell, n));
      CHECK(close(y[r][u], out, n));
      if (!training) continue;
      CHECK(y_copy[r][u] == y[r][u]);
      const double want[4] = {i, f, g, o};
      for (size_t v = 0; v < 4; ++v) CHECK(close(taped[v * hidden + u], want[v], n));
    }
  }
}

template <class Real>
void test_backward(const Kernels<Real>& k, size_t rows, size_t cols, size_t hidden, bool first) {
  const size_t W = k.width, blocks = n_blocks(hidden, W);
  const auto w = uniform<Real>(4 * hidden * hidden, 0.5), w_in = uniform<Real>(4 * hidden * cols, 0.5);
  std::vector<Real> panels(blocks * hidden * 4 * W), back(4 * hidden * blocks * W);
  const PanelShape shape = {4, hidden, W, false, k.half_lines};
  pack_panels(k.transpose, w.data(), shape, hidden, panels.data());
  pack_back_panels(k.transpose, panels.data(), shape, hidden, back.data());
  std::vector<std::vector<Real>> dg_next, dh, dy, gates, c_prev, c, dc, dg(rows, std::vector<Real>(4 * hidden));
  for (size_t r = 0; r < rows; ++r) {
    dg_next.push_back(uniform<Real>(4 * hidden));
    for (auto* v : {&dh, &dy, &c_prev, &c, &dc}) v->push_back(uniform<Real>(hidden));
    gates.push_back(uniform<Real>(4 * hidden));
  }
  const auto dc_before = dc;
  std::vector<Real> dg_panels(blocks * rows * 4 * W);
  std::vector<BackwardRow<Real>> args;
  for (size_t r = 0; r < rows; ++r)
    args.push_back({first ? nullptr : dg_next[r].data(), r % 2 ? dh[r].data() : nullptr, r % 3 ? dy[r].data() : nullptr,
                    gates[r].data(), c_prev[r].data(), c[r].data(), dc[r].data(), dg[r].data(),
                    dg_panels.data() + r * 4 * W});
  Buffer<Real> work(kChunkRows * kGroupBlocks * W);
  k.backward({back.data(), 4, hidden, hidden, args.data(), rows, 0, n_groups(hidden, W), rows * 4 * W, rows % 2 == 0,
              nullptr, nullptr, nullptr, work.data()});
  for (size_t r = 0; r < rows; ++r) {
    const auto taped = by_gates(gates[r], W, hidden);
    for (size_t u = 0; u < hidden; ++u) {
      double d_h = (r % 2 ? double(dh[r][u]) : 0) + (r % 3 ? double(dy[r][u]) : 0);
      for (size_t j = 0; !first && j < 4 * hidden; ++j) d_h += double(dg_next[r][j]) * w[j * hidden + u];
      const double i = taped[u], f = taped[hidden + u], g = taped[2 * hidden + u], o = taped[3 * hidden + u];
      const double t = std::tanh(double(c[r][u])), d = dc_before[r][u] + d_h * o * (1 - t * t);
      const double want[4] = {d * g * i * (1 - i), d * c_prev[r][u] * f * (1 - f), d * i * (1 - g * g),
                              d_h * t * o * (1 - o)};
      const double scale = 4 * (1 + double(hidden));  // the terms of d_h are at most 1/2, gates drawn here reach -1
      CHECK(close(dc[r][u], d * f, 4 * hidden, scale));
      for (size_t v = 0; v < 4; ++v) {
        CHECK(close(dg[r][v * hidden + u], want[v], 4 * hidden, scale));
        CHECK(dg_panels[(u / W * rows + r) * 4 * W + v * W + u % W] == dg[r][v * hidden + u]);
      }
    }
  }

  // The two plain products, on the same gradients.
  std::vector<Real> in_panels(blocks * cols * 4 * W), in_back(4 * hidden * n_blocks(cols, W) * W);
  pack_panels(k.transpose, w_in.data(), shape, cols, in_panels.data());
  pack_back_panels(k.transpose, in_panels.data(), shape, cols, in_back.data());
  auto dx = std::vector<std::vector<Real>>(rows, std::vector<Real>(cols));
  std::vector<const Real*> from;
  std::vector<Real*> to;
  for (size_t r = 0; r < rows; ++r) {
    from.push_back(dg_next[r].data());
    to.push_back(dx[r].data());
  }
  for (bool add : {false, true})
    k.back_product(
        {in_back.data(), 4, hidden, cols, from.data(), to.data(), rows, 0, n_groups(cols, W), add, work.data()});
  for (size_t r = 0; r < rows; ++r)
    for (size_t j = 0; j < cols; ++j) {
      double sum = 0;
      for (size_t m = 0; m < 4 * hidden; ++m) sum += double(dg_next[r][m]) * w_in[m * cols + j];
      CHECK(close(dx[r][j], 2 * sum, 4 * hidden, 1 + double(hidden)));
    }

  const size_t stride = cols + 3;
  const auto xh = uniform<Real>((rows - 1) * stride + cols);
  std::vector<Real> dw(blocks * cols * 4 * W), out(4 * hidden * cols, Real(1));
  const size_t tiles = (cols + k.max_rows - 1) / k.max_rows;
  WeightGradient<Real> g = {xh.data(), stride, cols, dg_panels.data(), rows * 4 * W, rows, dw.data(), cols * 4 * W,
                            0,         blocks, 0,    tiles / 2};
  k.weight_gradient(g);
  g.tile_begin = tiles / 2;
  g.tile_end = tiles;
  k.weight_gradient(g);
  unpack_panels(k.transpose, dw.data(), shape.wide(), cols, 0, cols, 0, blocks, true, out.data());
  for (size_t m = 0; m < 4 * hidden; ++m)
    for (size_t j = 0; j < cols; ++j) {
      double sum = 1, size = 1;
      for (size_t r = 0; r < rows; ++r) {
        const double term = double(dg[r][m]) * xh[r * stride + j];
        sum += term;
        size += std::fabs(term);
      }
      CHECK(close(out[m * cols + j], sum, rows, size));
    }
}

template <class Real>
void test_table(const Kernels<Real>& k) {
  const size_t sizes[] = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 65};
  size_t i = 0;
  for (size_t hidden : sizes)
    for (size_t rows : {1, 2, 3, 4, 5, 6, 7, 11, 13}) {
      const size_t input = sizes[i++ % 13];
      for (bool narrow : {false, true}) test_forward<Real>(k, rows, input, hidden, i % 2, i % 3, narrow);
      test_backward<Real>(k, rows, input, hidden, i % 5 == 0);
    }
  // So many columns that tiles have the most rows.
  for (size_t hidden : {19, 32, 45})
    for (size_t rows = 1; rows <= 13; ++rows)
      for (bool narrow : {false, true}) test_forward<Real>(k, rows, 256, hidden, false, rows % 2, narrow);
}

}  // namespace

int main() {
  for (const char* name : supported_isas()) {
    const KernelTable* table = kernel_table(name);
    CHECK(table != nullptr);
    test_table(table->f32);
    test_table(table->f64);
  }
  return check::result();
}
