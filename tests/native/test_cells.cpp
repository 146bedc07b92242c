// Steps of every kind of cell, forward and backward, against the judge: each activation, clips, peepholes, coupled
// gates, zoneout, masks of h, projections' backward products, and Elman's cell, at sizes around every tail.
#include "cell_cases.h"
#include "cpu/dispatch.h"
#include "judge.h"
#include "memory/buffer.h"
#include "memory/packing.h"

using namespace quadgate;
using namespace kernel_test;
using cell_cases::Case;
using judge::Num;
using judge::within;

namespace {

template <class Real, class Row>
std::vector<Num<Real>> exact(const Row& from, size_t first, size_t n) {
  std::vector<Num<Real>> v;
  for (size_t u = 0; u < n; ++u) v.emplace_back(double(from[first + u]));
  return v;
}

// A matrix with gates or without, its panels and back panels.
template <class Real>
struct Matrix {
  PanelShape shape;
  size_t cols;
  std::vector<Real> w;
  Guarded<Real> panels, back;
  Matrix(const Kernels<Real>& k, PanelShape s, size_t n_k)
      : shape(s),
        cols(n_k),
        w(uniform<Real>(s.total() * n_k, 0.5)),
        panels(s.blocks() * n_k * s.line()),
        back(s.total() * n_blocks(n_k, s.width) * s.width) {
    shape.half_lines = k.half_lines;
    pack_panels(k.transpose, w.data(), shape, n_k, panels.data());
    pack_back_panels(k.transpose, panels.data(), shape, n_k, back.data());
  }
};

template <class Real>
void test_forward(const Kernels<Real>& k, const Case<Real>& what, size_t rows, size_t I, size_t H, size_t R,
                  bool ahead) {
  const bool elman = what.options.type == CellType::elman,
             by_extra = what.zoneout_h || what.masks || what.mask_c || what.recurrent;
  const size_t W = k.width, G = elman ? 1 : 4, C = elman ? 0 : H;
  const bool narrow = sizeof(Real) == 4 && (rows + I + ahead) % 2;
  const Matrix<Real> ih(k, {G, H, W, narrow}, I), hh(k, {G, H, W, narrow}, R);
  const PanelShape shape = ih.shape;
  const size_t blocks = shape.blocks(), line = shape.line();
  const auto bias = uniform<Real>(G * H);
  const Guarded<Real> peephole(uniform<Real>(3 * H)), p_bias(blocks * line), pre(rows * blocks * line);
  pack_bias(bias.data(), shape, p_bias.data());
  const auto x = random_rows<Real>(rows, I), h = random_rows<Real>(rows, R), c = random_rows<Real>(rows, C, 2),
             h_prev = random_rows<Real>(rows, H), h_mask = random_rows<Real>(rows, H);
  const auto keep_h = random_flags(rows, H), keep_c = random_flags(rows, H);

  auto run = [&](size_t first, size_t n, bool in_place) {
    struct Out {
      Rows<Real> c, y, y_copy, gates, h_masked;
    } out = {empty_rows<Real>(n, C), empty_rows<Real>(n, H), empty_rows<Real>(n, H), empty_rows<Real>(n, 4 * C),
             empty_rows<Real>(n, H)};
    std::vector<ForwardRow<Real>> args;
    std::vector<OutputExtra<Real>> extra;
    std::vector<const Real*> inputs;
    for (size_t r = 0; r < n; ++r) {
      const size_t at = first + r;
      if (in_place) std::memcpy(out.c[r].data(), c[at].data(), C * sizeof(Real));
      inputs.push_back(x[at].data());
      args.push_back({x[at].data(), h[at].data(), pre.data() + at * blocks * line,
                      in_place ? out.c[r].data() : c[at].data(), out.c[r].data(), out.y[r].data(),
                      r % 2 ? out.y_copy[r].data() : nullptr, elman ? nullptr : out.gates[r].data()});
      extra.push_back({what.zoneout_h ? h_prev[at].data() : nullptr, what.masks ? keep_h[at].data() : nullptr,
                       what.masks || what.mask_c ? keep_c[at].data() : nullptr,
                       what.recurrent ? h_mask[at].data() : nullptr,
                       what.recurrent ? out.h_masked[r].data() : nullptr});
    }
    if (ahead)
      k.project({ih.panels.data(), p_bias.data(), I, inputs.data(), pre.data() + first * blocks * line, n, blocks, 0,
                 blocks, 4, shape.narrow_last()});
    ForwardStep<Real> step = {};
    step.w_ih = ih.panels.data();
    step.w_hh = hh.panels.data();
    step.bias = p_bias.data();
    step.input_size = I;
    step.hidden_size = H;
    step.recurrent_size = R;
    step.rows = args.data();
    step.n_rows = n;
    step.block_end = blocks / 2;
    step.use_pre = ahead;
    step.narrow_last = shape.narrow_last();
    step.descending = true;
    step.large_tape = what.large_tape;
    step.far_results = what.large_tape && !elman;
    step.options = what.plain ? nullptr : &what.options;
    step.peephole = what.peephole ? peephole.data() : nullptr;
    step.extra = by_extra ? extra.data() : nullptr;
    k.forward(step);
    step.block_begin = blocks / 2;
    step.block_end = blocks;
    step.descending = false;
    k.forward(step);
    return out;
  };

  const auto got = run(0, rows, false);
  const judge::CellRow<Real> cell = {H, what.options, what.peephole ? peephole.data() : nullptr};
  for (size_t r = 0; r < rows; ++r) {
    std::vector<Num<Real>> a;
    for (size_t row = 0; row < G * H; ++row) {
      judge::Sum<Real> sum;
      sum.add(double(bias[row]));
      for (size_t j = 0; j < I; ++j) sum.add(double(ih.w[row * I + j]), double(x[r][j]));
      for (size_t j = 0; j < R; ++j) sum.add(double(hh.w[row * R + j]), double(h[r][j]));
      a.push_back(sum.total());
    }
    const auto c_prev = exact<Real>(c[r], 0, C);
    const auto taped = elman ? std::vector<Real>() : by_gates(got.gates[r], W, H);
    judge::CellValues<Real> s;
    if (elman)
      for (Num<Real> v : a) s.m.push_back(apply(what.options.gate, v));
    else
      s = judge::forward(cell, a, c_prev);
    for (size_t u = 0; u < C; ++u) {
      const unsigned char* keep = what.masks || what.mask_c ? keep_c[r].data() : nullptr;
      CHECK(within(got.c[r][u],
                   judge::kept(c_prev[u], s.c_new[u], keep, u, what.plain ? 0 : double(what.options.zoneout_c))));
      const Num<Real> tape[4] = {s.i[u], s.f[u], s.g[u], s.o[u]};
      for (size_t g = 0; g < 4; ++g) CHECK(within(taped[g * H + u], what.plain ? tape[g] : s.a[g * H + u]));
    }
    for (size_t u = 0; u < H; ++u) {
      Num<Real> want = s.m[u];
      if (what.zoneout_h)
        want = judge::kept(Num<Real>(h_prev[r][u]), want, what.masks ? keep_h[r].data() : nullptr, u,
                           what.options.zoneout_h);
      CHECK(within(got.y[r][u], want));
      if (r % 2) CHECK(got.y_copy[r][u] == got.y[r][u]);
      if (what.recurrent) CHECK(got.h_masked[r][u] == got.y[r][u] * h_mask[r][u]);
    }
  }
  // A row by itself, c in place, comes out the same to the last bit.
  const auto alone = run(rows - 1, 1, true);
  CHECK(same_bits(alone.y[0].data(), got.y[rows - 1].data(), H));
  CHECK(same_bits(alone.c[0].data(), got.c[rows - 1].data(), C));
  CHECK(same_bits(alone.gates[0].data(), got.gates[rows - 1].data(), 4 * C));
}

// f' by the h = f(a) of the tape.
template <class Real>
Num<Real> elman_slope(const Activation<Real>& f, Real h) {
  if (f.function == kRelu) return h > 0 ? 1 : 0;
  return Num<Real>(1) - Num<Real>(h) * Num<Real>(h);
}

template <class Real>
void test_backward(const Kernels<Real>& k, const Case<Real>& what, size_t rows, size_t H, size_t R, bool first) {
  const bool elman = what.options.type == CellType::elman, keep_any = what.masks || what.mask_c;
  const bool by_extra = keep_any || what.recurrent || rows % 2;
  const size_t W = k.width, G = elman ? 1 : 4, C = elman ? 0 : H;
  const Matrix<Real> w(k, what.projection ? PanelShape{1, R, W} : PanelShape{G, H, W}, H);
  const size_t n = w.shape.total(), blocks = PanelShape{G, H, W}.blocks(), stride = (rows + 1) * 4 * W;
  const Guarded<Real> peephole(uniform<Real>(3 * H));
  const auto dg_next = random_rows<Real>(rows, n), dh = random_rows<Real>(rows, H), dy = random_rows<Real>(rows, H),
             gates = random_rows<Real>(rows, elman ? H : 4 * H, what.plain || elman ? 1 : 3),
             c_prev = random_rows<Real>(rows, C, 2), c = random_rows<Real>(rows, C), dc = random_rows<Real>(rows, C),
             dcell = random_rows<Real>(rows, C), h_mask = random_rows<Real>(rows, H),
             carry = random_rows<Real>(rows, H);
  const auto keep_h = random_flags(rows, H), keep_c = random_flags(rows, H);

  auto run = [&](size_t from, size_t count) {
    struct Out {
      Rows<Real> dc, dg, carry, dh_total, dc_total, c_new;
      Guarded<Real> panels;
    } out = {empty_rows<Real>(count, C),
             empty_rows<Real>(count, G * H),
             empty_rows<Real>(count, H),
             empty_rows<Real>(count, H),
             empty_rows<Real>(count, C),
             empty_rows<Real>(count, C),
             Guarded<Real>((blocks - 1) * stride + count * 4 * W)};
    std::vector<BackwardRow<Real>> args;
    std::vector<BackwardExtra<Real>> extra;
    for (size_t r = 0; r < count; ++r) {
      const size_t at = from + r;
      std::memcpy(out.dc[r].data(), dc[at].data(), C * sizeof(Real));
      std::memcpy(out.carry[r].data(), carry[at].data(), H * sizeof(Real));
      args.push_back({first ? nullptr : dg_next[at].data(), at % 2 ? dh[at].data() : nullptr,
                      at % 3 ? dy[at].data() : nullptr, gates[at].data(), c_prev[at].data(), c[at].data(),
                      out.dc[r].data(), out.dg[r].data(), out.panels.data() + r * 4 * W});
      extra.push_back({at % 2 ? dcell[at].data() : nullptr, what.masks ? keep_h[at].data() : nullptr,
                       keep_any ? keep_c[at].data() : nullptr, what.recurrent ? h_mask[at].data() : nullptr,
                       what.masks ? out.carry[r].data() : nullptr, at % 2 ? out.dh_total[r].data() : nullptr,
                       at % 2 ? out.dc_total[r].data() : nullptr, at % 3 ? out.c_new[r].data() : nullptr});
    }
    const size_t groups = n_groups(H, W), half = groups / 2;
    Buffer<Real> work(kChunkRows * kGroupBlocks * W);
    BackwardStep<Real> step = {w.back.data(),
                               w.shape.gates,
                               w.shape.rows,
                               H,
                               args.data(),
                               count,
                               0,
                               half,
                               stride,
                               true,
                               what.plain ? nullptr : &what.options,
                               what.peephole ? peephole.data() : nullptr,
                               by_extra ? extra.data() : nullptr,
                               work.data()};
    k.backward(step);
    step.group_begin = half;
    step.group_end = groups;
    step.descending = false;
    k.backward(step);
    return out;
  };

  const auto got = run(0, rows);
  const judge::CellRow<Real> cell = {H, what.options, what.peephole ? peephole.data() : nullptr},
                             taped = {H, what.options};
  for (size_t r = 0; r < rows; ++r) {
    std::vector<Num<Real>> dm, d_c;
    for (size_t u = 0; u < H; ++u) {
      judge::Sum<Real> sum;
      for (size_t j = 0; j < n; ++j) sum.add(double(dg_next[r][j]), double(w.w[j * H + u]));
      Num<Real> d = first ? Num<Real>(0) : sum.total();
      if (what.recurrent) d = d * Num<Real>(h_mask[r][u]);
      if (r % 2) d = d + Num<Real>(dh[r][u]);
      if (r % 3) d = d + Num<Real>(dy[r][u]);
      if (what.masks) d = d + Num<Real>(carry[r][u]);
      if (by_extra && r % 2) CHECK(within(got.dh_total[r][u], d));
      if (what.masks) {
        const bool keeps = keep_h[r][u];
        CHECK(within(got.carry[r][u], keeps ? d : Num<Real>(0)));
        if (keeps) d = 0;
      }
      dm.push_back(d);
      if (!elman) d_c.push_back(by_extra && r % 2 ? Num<Real>(dc[r][u]) + Num<Real>(dcell[r][u]) : Num<Real>(dc[r][u]));
    }
    auto in_panel = [&](size_t v, size_t u) {  // of gate v
      const size_t block = elman ? u / (4 * W) : u / W, at = elman ? u % (4 * W) : v * W + u % W;
      return got.panels[block * stride + r * 4 * W + at];
    };
    if (elman) {
      for (size_t u = 0; u < H; ++u) {
        CHECK(within(got.dg[r][u], dm[u] * elman_slope(what.options.gate, gates[r][u])));
        CHECK(in_panel(0, u) == got.dg[r][u]);
      }
      continue;
    }
    const auto before = exact<Real>(c_prev[r], 0, H);
    const auto of_gates = exact<Real>(by_gates(gates[r], W, H), 0, 4 * H);
    auto gate = [&](size_t g) { return std::vector<Num<Real>>(&of_gates[g * H], &of_gates[g * H] + H); };
    judge::CellValues<Real> s;
    if (what.plain) {
      s.i = gate(0), s.f = gate(1), s.g = gate(2), s.o = gate(3);
      s.raw = s.c_new = s.v = exact<Real>(c[r], 0, H);
    } else {
      s = judge::forward(taped, of_gates, before);
    }
    const auto want = judge::backward(cell, s, before, dm, d_c, keep_any ? keep_c[r].data() : nullptr, what.plain);
    for (size_t u = 0; u < H; ++u) {
      CHECK(within(got.dc[r][u], want.dc_prev[u]));
      if (by_extra && r % 2) CHECK(within(got.dc_total[r][u], want.dc_total[u]));
      if (by_extra && r % 3) CHECK(within(got.c_new[r][u], s.c_new[u]));
      for (size_t v = 0; v < 4; ++v) {
        CHECK(within(got.dg[r][v * H + u], want.da[v * H + u]));
        CHECK(in_panel(v, u) == got.dg[r][v * H + u]);
      }
    }
  }
  const auto alone = run(rows - 1, 1);
  CHECK(same_bits(alone.dg[0].data(), got.dg[rows - 1].data(), G * H));
  CHECK(same_bits(alone.dc[0].data(), got.dc[rows - 1].data(), C));
}

template <class Real>
void test_table(const Kernels<Real>& k) {
  const size_t batches[] = {1, 2, 3, k.max_rows, k.max_rows + 1, 2 * k.max_rows + 1};
  size_t i = 0;
  for (size_t H : tails(k.width))
    for (const Case<Real>& what : cell_cases::cases<Real>()) {
      const size_t rows = batches[i % 6], R = what.any_size ? 1 + i % (H + 2) : H;
      test_forward<Real>(k, what, rows, 1 + i % 7, H, R, i % 2);
      test_backward<Real>(k, what, rows, H, R, i % 4 == 3);
      ++i;
    }
  // So many columns that one row more than in other tiles may be in one.
  for (const Case<Real>& what : cell_cases::cases<Real>()) {
    const size_t H = 2 * k.width + k.width / 2;
    test_forward<Real>(k, what, k.max_rows + 1, 256 + i % 2, H, what.any_size ? 260 : H, i % 4 == 3);
    ++i;
  }
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
