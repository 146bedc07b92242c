// Kernels on matrices without gates (Elman's, projections, highways), the step behind a projection, sums of columns,
// and the packing of matrices with any number of gates.
#include "cpu/dispatch.h"
#include "judge.h"
#include "memory/buffer.h"
#include "memory/packing.h"
#include "rnn/columns.h"

using namespace quadgate;
using namespace kernel_test;
using judge::Num;
using judge::Sum;
using judge::within;

namespace {

template <class Real>
std::vector<const Real*> pointers(const Rows<Real>& rows) {
  std::vector<const Real*> p;
  for (const auto& row : rows) p.push_back(row.data());
  return p;
}

// z = W x + b, x = z W and dW = z' x, of a matrix W (size, cols) without gates.
template <class Real>
void test_products(const Kernels<Real>& k, size_t rows, size_t size, size_t cols) {
  const size_t W = k.width;
  const PanelShape shape = {1, size, W, false, k.half_lines};
  const size_t blocks = shape.blocks(), line = shape.line();
  const auto w = uniform<Real>(size * cols, 0.5), bias = uniform<Real>(size);
  const Guarded<Real> panels(blocks * cols * line), back(size * n_blocks(cols, W) * W), p_bias(blocks * line);
  pack_panels(k.transpose, w.data(), shape, cols, panels.data());
  pack_back_panels(k.transpose, panels.data(), shape, cols, back.data());
  pack_bias(bias.data(), shape, p_bias.data());
  const auto x = random_rows<Real>(rows, cols), d = random_rows<Real>(rows, size);
  const auto inputs = pointers(x), gradients = pointers(d);

  for (const Real* b : {static_cast<const Real*>(nullptr), static_cast<const Real*>(p_bias.data())}) {
    const Guarded<Real> z(rows * blocks * line);
    k.project({panels.data(), b, cols, inputs.data(), z.data(), rows, blocks, 0, blocks / 2});
    k.project({panels.data(), b, cols, inputs.data(), z.data(), rows, blocks, blocks / 2, blocks});
    for (size_t r = 0; r < rows; ++r)
      for (size_t i = 0; i < blocks * line; ++i) {
        Sum<Real> sum;
        if (b && i < size) sum.add(Num<Real>(bias[i]));
        for (size_t j = 0; j < cols && i < size; ++j) sum.add(Num<Real>(w[i * cols + j]), Num<Real>(x[r][j]));
        CHECK(within(z[r * blocks * line + i], sum.total()));  // in the order of the rows, then zeros
      }
  }

  auto dx = empty_rows<Real>(rows, cols);
  std::vector<Real*> to;
  for (auto& row : dx) to.push_back(row.data());
  const size_t groups = n_groups(cols, W), half = groups / 2;
  Buffer<Real> work(kChunkRows * kGroupBlocks * W);
  for (bool add : {false, true}) {
    k.back_product({back.data(), 1, size, cols, gradients.data(), to.data(), rows, 0, half, add, work.data()});
    k.back_product({back.data(), 1, size, cols, gradients.data(), to.data(), rows, half, groups, add, work.data()});
  }
  for (size_t r = 0; r < rows; ++r)
    for (size_t j = 0; j < cols; ++j) {
      Sum<Real> sum;
      for (size_t i = 0; i < size; ++i) sum.add(Num<Real>(d[r][i]), Num<Real>(w[i * cols + j]));
      CHECK(within(dx[r][j], sum.total() + sum.total()));
    }

  // Columns from `first` on of a wider gradient, whose other columns stay as they are.
  const size_t before = 2, wide = cols + 3, xh_stride = cols + 1, stride = (rows + 1) * line;
  const Guarded<Real> xh((rows - 1) * xh_stride + cols), d_panels((blocks - 1) * stride + rows * line),
      dw(uniform<Real>(blocks * wide * line)), out(std::vector<Real>(size * cols, Real(1)));
  const std::vector<Real> dw_before = dw.copy();
  for (size_t r = 0; r < rows; ++r) {
    std::memcpy(xh.data() + r * xh_stride, x[r].data(), cols * sizeof(Real));
    for (size_t p = 0; p < blocks; ++p)
      for (size_t i = 0; i < line; ++i)
        d_panels[p * stride + r * line + i] = p * line + i < size ? d[r][p * line + i] : Real(0);
  }
  const size_t tiles = (cols + k.max_rows - 1) / k.max_rows;
  WeightGradient<Real> g = {
      xh.data(), xh_stride, cols, d_panels.data(), stride, rows, dw.data() + before * line, wide * line,
      0,         blocks,    0,    tiles / 2};
  k.weight_gradient(g);
  g.tile_begin = tiles / 2;
  g.tile_end = tiles;
  k.weight_gradient(g);
  unpack_panels(k.transpose, dw.data(), shape.wide(), wide, before, cols, 0, blocks, true, out.data());
  for (size_t p = 0; p < blocks; ++p)
    for (size_t j = 0; j < wide; ++j)
      for (size_t i = 0; i < line; ++i) {
        const size_t at = (p * wide + j) * line + i, row = p * line + i;
        if (j < before || j >= before + cols) {
          CHECK(dw[at] == dw_before[at]);
        } else if (row < size) {
          Sum<Real> sum;
          sum.add(Num<Real>(dw_before[at]));
          for (size_t r = 0; r < rows; ++r) sum.add(Num<Real>(d[r][row]), Num<Real>(x[r][j - before]));
          CHECK(within(dw[at], sum.total()));
          CHECK(out[row * cols + j - before] == Real(1) + dw[at]);
        }
      }
}

// dw = d' x with the factors' roles changed: panels of x, and lines as far apart as the rows of a wider matrix.
template <class Real>
void test_direct_gradient(const Kernels<Real>& k, size_t rows, size_t size, size_t cols) {
  const size_t line = 4 * k.width, panels = (cols + line - 1) / line, wide = panels * line + 3, d_stride = size + 1;
  const auto x = random_rows<Real>(rows, cols), d = random_rows<Real>(rows, size);
  const Guarded<Real> factors((rows - 1) * d_stride + size), x_panels(std::vector<Real>(panels * rows * line, Real(0)));
  for (size_t r = 0; r < rows; ++r) {
    std::memcpy(factors.data() + r * d_stride, d[r].data(), size * sizeof(Real));
    for (size_t j = 0; j < cols; ++j) x_panels[(j / line * rows + r) * line + j % line] = x[r][j];
  }
  const std::vector<Real> before = uniform<Real>(size * wide);
  std::vector<std::vector<Real>> results;
  for (GradientStart start : {GradientStart::from_zero, GradientStart::from_dw, GradientStart::add}) {
    const Guarded<Real> dw(before), columns(rows * size);
    WeightGradient<Real> g = {factors.data(), d_stride, size, x_panels.data(), rows * line, rows,
                              dw.data(),      line,     0,    panels,          0,           0};
    g.dw_line = wide;
    g.start = start;
    const size_t tiles = (size + k.max_rows - 1) / k.max_rows;
    g.tile_end = tiles / 2;
    k.weight_gradient(g);
    g.tile_begin = tiles / 2;
    g.tile_end = tiles;
    k.weight_gradient(g);
    results.push_back(dw.copy());
    // The same bits with columns that may be copied, from the second half's on and from the first's.
    const Guarded<Real> copied(before);
    g.dw = copied.data();
    g.columns = columns.data();
    k.weight_gradient(g);
    g.tile_begin = 0;
    g.tile_end = tiles / 2;
    k.weight_gradient(g);
    CHECK(copied.copy() == dw.copy());
    // The same again where rows are written from end to end, the columns behind whole panels among them.
    const size_t whole = cols / line, rest = cols % line;
    if (sizeof(Real) == sizeof(float) && rows <= kStoreBoundRows && whole >= kStoreBoundPanels && rest) {
      const Guarded<Real> by_rows(before);
      const size_t vectors = (rest + k.width - 1) / k.width, short_line = vectors * k.width;
      const Guarded<Real> last(rows * short_line);
      for (size_t r = 0; r < rows; ++r)
        std::memcpy(last.data() + r * short_line, x_panels.data() + (whole * rows + r) * line,
                    short_line * sizeof(Real));
      g.dw = by_rows.data();
      g.block_end = whole;
      g.rest = rest;
      g.rest_vectors = vectors;
      g.rest_panel = last.data();
      for (size_t half : {0, 1}) {
        g.tile_begin = half ? tiles / 2 : 0;
        g.tile_end = half ? tiles : tiles / 2;
        k.weight_gradient(g);
      }
      for (size_t i = 0; i < size; ++i)
        for (size_t j = 0; j < wide; ++j) {
          const size_t at = i * wide + j;
          CHECK(by_rows[at] == (j < cols ? dw[at] : before[at]));
        }
    }
    for (size_t i = 0; i < size; ++i)
      for (size_t j = 0; j < wide; ++j) {
        const size_t at = i * wide + j;
        if (j >= panels * line) {
          CHECK(dw[at] == before[at]);
        } else if (start == GradientStart::add) {
          CHECK(dw[at] == before[at] + results[0][at]);
        } else if (j < cols) {
          Sum<Real> sum;
          if (start == GradientStart::from_dw) sum.add(Num<Real>(before[at]));
          for (size_t r = 0; r < rows; ++r) sum.add(Num<Real>(d[r][i]), Num<Real>(x[r][j]));
          CHECK(within(dw[at], sum.total()));
        }
      }
  }
}

// h behind a projection and the gradient of the product that it is computed from.
template <class Real>
void test_projected(const Kernels<Real>& k, size_t rows, size_t R, Real clip, Real rate, bool masks, bool recurrent) {
  const size_t W = k.width, blocks = PanelShape{1, R, W}.blocks(), line = 4 * W, stride = (rows + 1) * line;
  const bool zoneout = masks || rate != 0, extras = zoneout || recurrent;
  const auto z = random_rows<Real>(rows, blocks * line), h_prev = random_rows<Real>(rows, R),
             h_mask = random_rows<Real>(rows, R);
  const auto keep = random_flags(rows, R);
  const auto y = empty_rows<Real>(rows, R), y_copy = empty_rows<Real>(rows, R), h_masked = empty_rows<Real>(rows, R);
  std::vector<ProjectedRow<Real>> args;
  std::vector<OutputExtra<Real>> extra;
  for (size_t r = 0; r < rows; ++r) {
    args.push_back({z[r].data(), y[r].data(), r % 2 ? y_copy[r].data() : nullptr});
    extra.push_back({zoneout ? h_prev[r].data() : nullptr, masks ? keep[r].data() : nullptr, nullptr,
                     recurrent ? h_mask[r].data() : nullptr, recurrent ? h_masked[r].data() : nullptr});
  }
  const size_t half = std::min(R, n_blocks(R, W) / 2 * W);
  k.projected({args.data(), rows, 0, half, clip, rate, extras ? extra.data() : nullptr});
  k.projected({args.data(), rows, half, R, clip, rate, extras ? extra.data() : nullptr});
  for (size_t r = 0; r < rows; ++r)
    for (size_t u = 0; u < R; ++u) {
      Num<Real> want = judge::clip(Num<Real>(z[r][u]), clip);
      if (zoneout) want = judge::kept(Num<Real>(h_prev[r][u]), want, masks ? keep[r].data() : nullptr, u, rate);
      CHECK(within(y[r][u], want));
      if (r % 2) CHECK(y_copy[r][u] == y[r][u]);
      if (recurrent) CHECK(h_masked[r][u] == y[r][u] * h_mask[r][u]);
    }
  if (rate != 0) return;  // training has masks

  for (bool last : {false, true}) {
    const auto through = random_rows<Real>(rows, R), dh = random_rows<Real>(rows, R), dy = random_rows<Real>(rows, R),
               carry_before = random_rows<Real>(rows, R);
    const auto carry = empty_rows<Real>(rows, R), dz = empty_rows<Real>(rows, R), total = empty_rows<Real>(rows, R);
    const Guarded<Real> dz_panels((blocks - 1) * stride + rows * line);
    std::vector<ProjectedBackwardRow<Real>> back;
    std::vector<BackwardExtra<Real>> back_extra;
    for (size_t r = 0; r < rows; ++r) {
      std::memcpy(carry[r].data(), carry_before[r].data(), R * sizeof(Real));
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
        Num<Real> d = last ? 0 : Num<Real>(through[r][u]);
        if (recurrent) d = d * Num<Real>(h_mask[r][u]);
        if (r % 2) d = d + Num<Real>(dh[r][u]);
        if (r % 3) d = d + Num<Real>(dy[r][u]);
        if (masks) d = d + Num<Real>(carry_before[r][u]);
        if (extras && r % 2) CHECK(within(total[r][u], d));
        if (masks) CHECK(within(carry[r][u], keep[r][u] ? d : Num<Real>(0)));
        if (masks && keep[r][u]) d = 0;
        CHECK(within(dz[r][u], std::fabs(z[r][u]) > clip ? Num<Real>(0) : d));
        if (rows > 1) CHECK(dz_panels[u / line * stride + r * line + u % line] == dz[r][u]);
      }
  }
}

template <class Real>
void test_sums(const Kernels<Real>& k, size_t rows, size_t begin, size_t end) {
  // Exactly `end` elements each: a read beyond them is an error.
  const auto a = random_rows<Real>(rows, end), b = random_rows<Real>(rows, end);
  const auto left = pointers(a), right = pointers(b);
  for (bool factors : {false, true}) {
    const Guarded<Real> out(uniform<Real>(end));
    const std::vector<Real> before = out.copy();
    k.column_sums({left.data(), factors ? right.data() : nullptr, out.data(), rows, begin, end});
    for (size_t u = 0; u < end; ++u) {
      Sum<Real> sum;
      sum.add(Num<Real>(before[u]));
      for (size_t r = 0; r < rows; ++r) sum.add(Num<Real>(a[r][u]), Num<Real>(factors ? b[r][u] : Real(1)));
      CHECK(u < begin ? out[u] == before[u] : within(out[u], sum.total()));
    }
  }
}

// Rows of exactly the promised sizes, and others farther apart, whose gaps stay as they are.
template <class Real>
void test_transpose(const Kernels<Real>& k, size_t rows, size_t cols, size_t gap, bool add) {
  const size_t from_stride = cols + gap, to_stride = rows + gap;
  const auto from = uniform<Real>((rows - 1) * from_stride + cols),
             before = uniform<Real>((cols - 1) * to_stride + rows);
  const Guarded<Real> a(from.size()), b(before.size());
  std::copy(from.begin(), from.end(), a.data());
  std::copy(before.begin(), before.end(), b.data());
  k.transpose(a.data(), from_stride, b.data(), to_stride, rows, cols, add);
  for (size_t c = 0; c < cols; ++c)
    for (size_t r = 0; r < to_stride && c * to_stride + r < before.size(); ++r) {
      const Real was = before[c * to_stride + r];
      CHECK(b[c * to_stride + r] == (r >= rows ? was
                                     : add     ? was + from[r * from_stride + c]
                                               : from[r * from_stride + c]));
    }
}

// Rows to places in panels of columns: the last panel's empty lanes are zero, other places stay as they are.
template <class Real>
void test_rows_to_panels(const Kernels<Real>& k, size_t rows, size_t cols, size_t gap) {
  const Columns columns = {cols, kLineVectors * k.width, k.width, size_t(least_vectors<Real>())};
  const size_t stride = cols + gap, panel_rows = rows + 3;
  const Guarded<Real> from(uniform<Real>((rows - 1) * stride + cols));
  const std::vector<Real> before = uniform<Real>(panel_rows * columns.row());
  const Guarded<Real> to(before);
  copy_to_panels(k, from.data(), stride, rows, {columns, to.data(), panel_rows, 1}, 1);  // from place 2 on
  size_t at = 0;
  for (size_t p = 0; p < columns.panels(); ++p)
    for (size_t r = 0; r < panel_rows; ++r)
      for (size_t column = p * columns.line, i = 0; i < columns.line_of(p); ++i, ++column, ++at)
        CHECK(to[at] == (r < 2 || r >= rows + 2 ? before[at]
                         : column < cols        ? from[(r - 2) * stride + column]
                                                : Real(0)));
}

// Panels and back, and the same weight read through the back panels.
template <class Real>
void test_pack(const Kernels<Real>& k, size_t gates, size_t rows, size_t cols, bool narrow) {
  const size_t W = k.width;
  const PanelShape shape = {gates, rows, W, narrow, k.half_lines};
  const size_t total = shape.total(), blocks = shape.blocks(), col_blocks = n_blocks(cols, W),
               groups = n_groups(cols, W);
  const auto w = uniform<Real>(total * cols);
  const Guarded<Real> panels(blocks * cols * shape.line()), back(total * col_blocks * W), out(total * cols);
  pack_panels(k.transpose, w.data(), shape, cols, panels.data());
  unpack_panels(k.transpose, panels.data(), shape, cols, 0, cols, 0, blocks, false, out.data());
  CHECK(out.copy() == w);
  double sum = 0, packed_sum = 0;  // all other elements are zero
  for (Real v : w) sum += std::fabs(v);
  for (size_t p = 0; p < blocks; ++p)
    for (size_t i = 0; i < cols * shape.line(p); ++i) packed_sum += std::fabs(panels[p * cols * shape.line() + i]);
  CHECK(std::fabs(sum - packed_sum) < 1e-3 * sum);
  const auto bias = uniform<Real>(total);
  const size_t vectors = gates > 1 ? gates : 4;  // gates side by side, or four blocks of rows
  CHECK(shape.line() == vectors * W && blocks == (gates > 1 ? n_blocks(rows, W) : n_blocks(rows, 4 * W)));
  const Guarded<Real> p_bias(blocks * shape.line()), p_zeros(blocks * shape.line());
  pack_bias(bias.data(), shape, p_bias.data());
  pack_bias(static_cast<const Real*>(nullptr), shape, p_zeros.data());
  for (size_t p = 0; p < blocks; ++p)
    for (size_t v = 0; v < vectors; ++v)
      for (size_t i = 0; i < shape.step(p); ++i) {
        const size_t at = p * vectors * W + v * shape.step(p) + i, unit = gates > 1 ? p * W + i : at;
        CHECK(p_bias[at] == (unit < rows ? bias[gates > 1 ? v * rows + unit : unit] : Real(0)));
        CHECK(p_zeros[at] == 0);
      }
  // Half of the last panel's lanes or less are filled: gates side by side in half as many vectors.
  CHECK(shape.narrow_last() == (narrow && gates == 4 && 2 * (rows - (blocks - 1) * W) <= W));
  pack_back_panels(k.transpose, panels.data(), shape, cols, back.data());
  for (size_t g = 0, first = 0, nv; g < groups; ++g, first += nv) {
    nv = col_blocks / groups + (g < col_blocks % groups);
    for (size_t i = 0; i < total; ++i)
      for (size_t c = 0; c < nv * W; ++c) {
        const size_t col = first * W + c, half = k.half_lines && nv == 4 ? nv * W / 2 : nv * W;
        CHECK(back[first * W * total + (c / half * total + i) * half + c % half] ==
              (col < cols ? w[i * cols + col] : Real(0)));
      }
  }
}

template <class Real>
void test_table(const Kernels<Real>& k) {
  const auto sizes = tails(k.width);
  const size_t batches[] = {1, 2, 3, k.max_rows, k.max_rows + 1, 2 * k.max_rows + 1, 100};
  const Real none = std::numeric_limits<Real>::infinity();
  size_t i = 0;
  // Of so many panels that columns are copied.
  for (size_t size : {size_t(1), k.max_rows + 1, 4 * k.max_rows + 2})
    for (size_t rows : {1, 100}) test_direct_gradient<Real>(k, rows, size, 48 * k.width + 1);
  // Around the numbers of rows and panels from which on rows of dw are written from end to end.
  for (size_t size : {size_t(1), k.max_rows + 1, 3 * k.max_rows})
    for (size_t rows : {1, 2, 7, 8})
      for (size_t panels : {3, 4, 5})
        for (size_t rest : {size_t(0), size_t(1), k.width + 3})
          test_direct_gradient<Real>(k, rows, size, panels * 4 * k.width + rest);
  for (size_t size : sizes)
    for (size_t cols : sizes) {
      test_products<Real>(k, batches[i % 6], size, cols);
      test_direct_gradient<Real>(k, batches[(i + 1) % 6], size, cols);
      test_sums<Real>(k, batches[i % 7], std::min(size, cols) - 1, std::max(size, cols));
      for (size_t gates : {1, 3, 4})
        for (bool narrow : {false, true}) test_pack<Real>(k, gates, size, cols, narrow);
      for (size_t gap : {0, 3})
        for (bool add : {false, true}) test_transpose<Real>(k, size, cols, gap, add);
      for (size_t gap : {0, 3}) test_rows_to_panels<Real>(k, batches[i % 7], cols, gap);
      ++i;
    }
  for (size_t rows : {1, 2, 5})
    for (size_t R : sizes)
      for (Real clip : {none, Real(0.4)})
        for (bool recurrent : {false, true}) {
          test_projected<Real>(k, rows, R, clip, 0, false, recurrent);
          test_projected<Real>(k, rows, R, clip, Real(0.3), false, recurrent);
          test_projected<Real>(k, rows, R, clip, 0, true, recurrent);
        }
  for (size_t vectors : {3, 4, 5, 9}) test_sums<Real>(k, 3, 1, vectors * k.width + 2);  // several vectors side by side
  test_products<Real>(k, 200, k.width + 1, 3);  // more rows than one chunk of a back product
  for (size_t rows : {1, 24, 50}) test_products<Real>(k, rows, 3, 44 * k.width + 3);  // long rows, a few at a time
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
