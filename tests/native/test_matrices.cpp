// What the kernels do with matrices that have no gates (Elman's, projections, highways), the step behind a projection,
// sums of columns, and the packing of both kinds of matrix.
#include "dispatch.h"
#include "judge.h"
#include "pack.h"

using namespace quadgate;
using namespace kernel_test;
using judge::Num;
using judge::Sum;
using judge::within;

namespace {

template <class T>
std::vector<const T*> pointers(const Rows<T>& rows) {
  std::vector<const T*> p;
  for (const auto& row : rows) p.push_back(row.data());
  return p;
}

// z = W x + b, x = z W and dW = z' x, of a matrix W (size, cols) without gates.
template <class T>
void test_products(const Kernels<T>& k, size_t rows, size_t size, size_t cols) {
  const size_t W = k.width;
  const PanelShape shape = {1, size, W};
  const size_t P = shape.blocks(), line = shape.line();
  const auto w = uniform<T>(size * cols, 0.5), bias = uniform<T>(size);
  const Guarded<T> panels(P * cols * line), back(size * n_blocks(cols, W) * W), p_bias(P * line);
  pack_panels(w.data(), shape, cols, panels.data());
  pack_back_panels(panels.data(), shape, cols, back.data());
  pack_bias(bias.data(), shape, p_bias.data());
  const auto x = random_rows<T>(rows, cols), d = random_rows<T>(rows, size);
  const auto inputs = pointers(x), gradients = pointers(d);

  for (const T* b : {static_cast<const T*>(nullptr), static_cast<const T*>(p_bias.data())}) {
    const Guarded<T> z(rows * P * line);
    k.project({panels.data(), b, cols, inputs.data(), z.data(), rows, P, 0, P / 2});
    k.project({panels.data(), b, cols, inputs.data(), z.data(), rows, P, P / 2, P});
    for (size_t r = 0; r < rows; ++r)
      for (size_t i = 0; i < P * line; ++i) {
        Sum<T> sum;
        if (b && i < size) sum.add(Num<T>(bias[i]));
        for (size_t j = 0; j < cols && i < size; ++j) sum.add(Num<T>(w[i * cols + j]), Num<T>(x[r][j]));
        CHECK(within(z[r * P * line + i], sum.total()));  // in the order of the rows, then zeros
      }
  }

  auto dx = empty_rows<T>(rows, cols);
  std::vector<T*> to;
  for (auto& row : dx) to.push_back(row.data());
  const size_t groups = n_groups(cols, W), half = groups / 2;
  for (bool add : {false, true}) {
    k.back_product({back.data(), 1, size, cols, gradients.data(), to.data(), rows, 0, half, add});
    k.back_product({back.data(), 1, size, cols, gradients.data(), to.data(), rows, half, groups, add});
  }
  for (size_t r = 0; r < rows; ++r)
    for (size_t j = 0; j < cols; ++j) {
      Sum<T> sum;
      for (size_t i = 0; i < size; ++i) sum.add(Num<T>(d[r][i]), Num<T>(w[i * cols + j]));
      CHECK(within(dx[r][j], sum.total() + sum.total()));
    }

  // Columns `first` and on of a gradient that is wider, whose others stay as they are.
  const size_t before = 2, wide = cols + 3, xh_stride = cols + 1, stride = (rows + 1) * line;
  const Guarded<T> xh((rows - 1) * xh_stride + cols), d_panels((P - 1) * stride + rows * line),
      dw(uniform<T>(P * wide * line)), out(std::vector<T>(size * cols, T(1)));
  const std::vector<T> dw_before = dw.copy();
  for (size_t r = 0; r < rows; ++r) {
    std::memcpy(xh.data() + r * xh_stride, x[r].data(), cols * sizeof(T));
    for (size_t p = 0; p < P; ++p)
      for (size_t i = 0; i < line; ++i)
        d_panels[p * stride + r * line + i] = p * line + i < size ? d[r][p * line + i] : T(0);
  }
  const size_t tiles = (cols + k.max_rows - 1) / k.max_rows;
  WeightGradient<T> g = {
      xh.data(), xh_stride, cols, d_panels.data(), stride, rows, dw.data() + before * line, wide * line,
      0,         P,         0,    tiles / 2};
  k.weight_gradient(g);
  g.tile_begin = tiles / 2;
  g.tile_end = tiles;
  k.weight_gradient(g);
  unpack_panels(dw.data(), shape, wide, before, cols, 0, P, true, out.data());
  for (size_t p = 0; p < P; ++p)
    for (size_t j = 0; j < wide; ++j)
      for (size_t i = 0; i < line; ++i) {
        const size_t at = (p * wide + j) * line + i, row = p * line + i;
        if (j < before || j >= before + cols) {
          CHECK(dw[at] == dw_before[at]);
        } else if (row < size) {
          Sum<T> sum;
          sum.add(Num<T>(dw_before[at]));
          for (size_t r = 0; r < rows; ++r) sum.add(Num<T>(d[r][row]), Num<T>(x[r][j - before]));
          CHECK(within(dw[at], sum.total()));
          CHECK(out[row * cols + j - before] == T(1) + dw[at]);
        }
      }
}

// h behind a projection and the gradient of what it was made of.
template <class T>
void test_projected(const Kernels<T>& k, size_t rows, size_t R, T clip, T rate, bool masks, bool recurrent) {
  const size_t W = k.width, P = PanelShape{1, R, W}.blocks(), line = 4 * W, stride = (rows + 1) * line;
  const bool zoneout = masks || rate != 0, extras = zoneout || recurrent;
  const auto z = random_rows<T>(rows, P * line), h_prev = random_rows<T>(rows, R), h_mask = random_rows<T>(rows, R);
  const auto keep = random_flags(rows, R);
  const auto y = empty_rows<T>(rows, R), y2 = empty_rows<T>(rows, R), h_masked = empty_rows<T>(rows, R);
  std::vector<ProjectedRow<T>> args;
  std::vector<OutputExtra<T>> extra;
  for (size_t r = 0; r < rows; ++r) {
    args.push_back({z[r].data(), y[r].data(), r % 2 ? y2[r].data() : nullptr});
    extra.push_back({zoneout ? h_prev[r].data() : nullptr, masks ? keep[r].data() : nullptr, nullptr,
                     recurrent ? h_mask[r].data() : nullptr, recurrent ? h_masked[r].data() : nullptr});
  }
  const size_t half = std::min(R, n_blocks(R, W) / 2 * W);
  k.projected({args.data(), rows, 0, half, clip, rate, extras ? extra.data() : nullptr});
  k.projected({args.data(), rows, half, R, clip, rate, extras ? extra.data() : nullptr});
  for (size_t r = 0; r < rows; ++r)
    for (size_t u = 0; u < R; ++u) {
      Num<T> want = judge::clip(Num<T>(z[r][u]), clip);
      if (zoneout) want = judge::kept(Num<T>(h_prev[r][u]), want, masks ? keep[r].data() : nullptr, u, rate);
      CHECK(within(y[r][u], want));
      if (r % 2) CHECK(y2[r][u] == y[r][u]);
      if (recurrent) CHECK(h_masked[r][u] == y[r][u] * h_mask[r][u]);
    }
  if (rate != 0) return;  // training has masks

  for (bool last : {false, true}) {
    const auto through = random_rows<T>(rows, R), dh = random_rows<T>(rows, R), dy = random_rows<T>(rows, R),
               carry_before = random_rows<T>(rows, R);
    const auto carry = empty_rows<T>(rows, R), dz = empty_rows<T>(rows, R), total = empty_rows<T>(rows, R);
    const Guarded<T> dz_panels((P - 1) * stride + rows * line);
    std::vector<ProjectedBackwardRow<T>> back;
    std::vector<BackwardExtra<T>> back_extra;
    for (size_t r = 0; r < rows; ++r) {
      std::memcpy(carry[r].data(), carry_before[r].data(), R * sizeof(T));
      back.push_back({last ? nullptr : through[r].data(), r % 2 ? dh[r].data() : nullptr,
                      r % 3 ? dy[r].data() : nullptr, y[r].data(), dz[r].data(),
                      rows > 1 ? dz_panels.data() + r * line : nullptr});
      back_extra.push_back({nullptr, masks ? keep[r].data() : nullptr, nullptr, recurrent ? h_mask[r].data() : nullptr,
                            masks ? carry[r].data() : nullptr, r % 2 ? total[r].data() : nullptr, nullptr, nullptr});
    }
    k.projected_backward({back.data(), rows, R, 0, half, stride, clip, extras ? back_extra.data() : nullptr});
    k.projected_backward({back.data(), rows, R, half, R, stride, clip, extras ? back_extra.data() : nullptr});
    for (size_t r = 0; r < rows; ++r)
      for (size_t u = 0; u < R; ++u) {
        Num<T> d = last ? 0 : Num<T>(through[r][u]);
        if (recurrent) d = d * Num<T>(h_mask[r][u]);
        if (r % 2) d = d + Num<T>(dh[r][u]);
        if (r % 3) d = d + Num<T>(dy[r][u]);
        if (masks) d = d + Num<T>(carry_before[r][u]);
        if (extras && r % 2) CHECK(within(total[r][u], d));
        if (masks) CHECK(within(carry[r][u], keep[r][u] ? d : Num<T>(0)));
        if (masks && keep[r][u]) d = 0;
        CHECK(within(dz[r][u], std::fabs(z[r][u]) > clip ? Num<T>(0) : d));
        if (rows > 1) CHECK(dz_panels[u / line * stride + r * line + u % line] == dz[r][u]);
      }
  }
}

template <class T>
void test_sums(const Kernels<T>& k, size_t rows, size_t begin, size_t end) {
  // Exactly `end` elements each: what lies behind is nobody's.
  const auto a = random_rows<T>(rows, end), b = random_rows<T>(rows, end);
  const auto left = pointers(a), right = pointers(b);
  for (bool factors : {false, true}) {
    const Guarded<T> out(uniform<T>(end));
    const std::vector<T> before = out.copy();
    k.column_sums({left.data(), factors ? right.data() : nullptr, out.data(), rows, begin, end});
    for (size_t u = 0; u < end; ++u) {
      Sum<T> sum;
      sum.add(Num<T>(before[u]));
      for (size_t r = 0; r < rows; ++r) sum.add(Num<T>(a[r][u]), Num<T>(factors ? b[r][u] : T(1)));
      CHECK(u < begin ? out[u] == before[u] : within(out[u], sum.total()));
    }
  }
}

// Panels and back, and the same weight read through the back panels.
template <class T>
void test_pack(size_t W, size_t gates, size_t rows, size_t cols) {
  const PanelShape shape = {gates, rows, W};
  const size_t total = shape.total(), P = shape.blocks(), col_blocks = n_blocks(cols, W), groups = n_groups(cols, W);
  const auto w = uniform<T>(total * cols);
  const Guarded<T> panels(P * cols * shape.line()), back(total * col_blocks * W), out(total * cols);
  pack_panels(w.data(), shape, cols, panels.data());
  unpack_panels(panels.data(), shape, cols, 0, cols, 0, P, false, out.data());
  CHECK(out.copy() == w);
  double sum = 0, packed_sum = 0;  // what is not a weight is zero
  for (T v : w) sum += std::fabs(v);
  for (T v : panels.copy()) packed_sum += std::fabs(v);
  CHECK(std::fabs(sum - packed_sum) < 1e-3 * sum);
  const auto bias = uniform<T>(total);
  const Guarded<T> p_bias(P * shape.line()), p_zeros(P * shape.line());
  pack_bias(bias.data(), shape, p_bias.data());
  pack_bias(static_cast<const T*>(nullptr), shape, p_zeros.data());
  for (size_t p = 0; p < P; ++p)
    for (size_t v = 0; v < 4; ++v)
      for (size_t i = 0; i < W; ++i) {
        const size_t unit = gates == 4 ? p * W + i : (p * 4 + v) * W + i, at = (p * 4 + v) * W + i;
        CHECK(p_bias[at] == (unit < rows ? bias[gates == 4 ? v * rows + unit : unit] : T(0)));
        CHECK(p_zeros[at] == 0);
      }
  pack_back_panels(panels.data(), shape, cols, back.data());
  for (size_t g = 0, first = 0, nv; g < groups; ++g, first += nv) {
    nv = col_blocks / groups + (g < col_blocks % groups);
    for (size_t i = 0; i < total; ++i)
      for (size_t c = 0; c < nv * W; ++c) {
        const size_t col = first * W + c;
        CHECK(back[first * W * total + i * nv * W + c] == (col < cols ? w[i * cols + col] : T(0)));
      }
  }
}

template <class T>
void test_table(const Kernels<T>& k) {
  const auto sizes = tails(k.width);
  const size_t batches[] = {1, 2, 3, k.max_rows, k.max_rows + 1, 2 * k.max_rows + 1, 100};
  const T none = std::numeric_limits<T>::infinity();
  size_t i = 0;
  for (size_t size : sizes)
    for (size_t cols : sizes) {
      test_products<T>(k, batches[i % 6], size, cols);
      test_sums<T>(k, batches[i % 7], std::min(size, cols) - 1, std::max(size, cols));
      for (size_t gates : {1, 4}) test_pack<T>(k.width, gates, size, cols);
      ++i;
    }
  for (size_t rows : {1, 2, 5})
    for (size_t R : sizes)
      for (T clip : {none, T(0.4)})
        for (bool recurrent : {false, true}) {
          test_projected<T>(k, rows, R, clip, 0, false, recurrent);
          test_projected<T>(k, rows, R, clip, T(0.3), false, recurrent);
          test_projected<T>(k, rows, R, clip, 0, true, recurrent);
        }
  test_products<T>(k, 200, k.width + 1, 3);  // more rows than one chunk of a back product
}

}  // namespace

int main() {
  for (const char* name : supported_isas()) {
    const KernelTable* table = kernel_table(name);
    test_table(table->f32);
    test_table(table->f64);
  }
  return check::result();
}
