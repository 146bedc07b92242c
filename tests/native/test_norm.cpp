// The pass that layer normalisation puts behind the products, forward and backward, against the judge.
#include "cpu/dispatch.h"
#include "judge.h"
#include "memory/packing.h"

using namespace quadgate;
using namespace kernel_test;
using judge::Num;
using judge::within;

namespace {

template <class Real>
using Numbers = std::vector<Num<Real>>;

template <class Real>
struct Case {
  CellOptions<Real> options = judge::plain_options<Real>();
  bool replaces_cell = false, peephole = false, zoneout_h = false, masks = false, recurrent = false;
  double epsilon = 1e-5, mean = 0;  // of the products
};

template <class Real>
Numbers<Real> numbers(const Real* from, size_t n) {
  Numbers<Real> v;
  for (size_t u = 0; u < n; ++u) v.emplace_back(double(from[u]));
  return v;
}

// Rows in panel order, the order of products.
template <class Real>
Rows<Real> packed(const Rows<Real>& from, const PanelShape& shape) {
  auto to = empty_rows<Real>(from.size(), shape.blocks() * shape.line());
  for (size_t r = 0; r < from.size(); ++r) pack_bias(from[r].data(), shape, to[r].data());
  return to;
}

template <class Real>
void test(const Kernels<Real>& k, const Case<Real>& what, size_t rows, size_t H, bool training) {
  const size_t W = k.width, G = 4 * H;
  const PanelShape shape = {4, H, W};
  const size_t blocks = shape.blocks(), line = shape.line(), stride = (rows + 2) * line;
  const Guarded<Real> gain_ih(uniform<Real>(G, 2)), gain_hh(uniform<Real>(G, 2)), gain_c(uniform<Real>(H, 2)),
      bias_c(uniform<Real>(H)), bias(uniform<Real>(G)), p_bias(blocks * line), peephole(uniform<Real>(3 * H));
  pack_bias(bias.data(), shape, p_bias.data());
  const Norm<Real> norm = {gain_ih.data(), gain_hh.data(),     gain_c.data(),
                           bias_c.data(),  Real(what.epsilon), what.replaces_cell};
  auto ih = random_rows<Real>(rows, G), hh = random_rows<Real>(rows, G);
  for (auto* product : {&ih, &hh})
    for (auto& row : *product)
      for (size_t j = 0; j < G; ++j) row[j] += Real(what.mean);
  const auto ih_panels = packed(ih, shape), hh_panels = packed(hh, shape);
  const auto c_prev = random_rows<Real>(rows, H, 2), h_prev = random_rows<Real>(rows, H),
             h_mask = random_rows<Real>(rows, H);
  const auto keep_h = random_flags(rows, H), keep_c = random_flags(rows, H);
  const Real* diagonal = what.peephole ? peephole.data() : nullptr;
  const bool extras = what.zoneout_h || what.masks || what.recurrent;

  auto run = [&](size_t first, size_t n, bool in_place) {
    struct Out {
      Rows<Real> c, y, y_copy, gates, h_masked, normal_ih, normal_hh, inverse;
    } out = {empty_rows<Real>(n, H), empty_rows<Real>(n, H), empty_rows<Real>(n, H), empty_rows<Real>(n, G),
             empty_rows<Real>(n, H), empty_rows<Real>(n, G), empty_rows<Real>(n, G), empty_rows<Real>(n, 2)};
    std::vector<ForwardRow<Real>> args;
    std::vector<NormRow<Real>> norms;
    std::vector<OutputExtra<Real>> extra;
    for (size_t r = 0; r < n; ++r) {
      const size_t at = first + r;
      if (in_place) std::memcpy(out.c[r].data(), c_prev[at].data(), H * sizeof(Real));
      args.push_back({nullptr, nullptr, nullptr, in_place ? out.c[r].data() : c_prev[at].data(), out.c[r].data(),
                      out.y[r].data(), r % 2 ? out.y_copy[r].data() : nullptr,
                      training ? out.gates[r].data() : nullptr});
      norms.push_back({ih_panels[at].data(), hh_panels[at].data(), training ? out.normal_ih[r].data() : nullptr,
                       training ? out.normal_hh[r].data() : nullptr, training ? out.inverse[r].data() : nullptr});
      extra.push_back({what.zoneout_h ? h_prev[at].data() : nullptr, what.masks ? keep_h[at].data() : nullptr,
                       what.masks ? keep_c[at].data() : nullptr, what.recurrent ? h_mask[at].data() : nullptr,
                       what.recurrent ? out.h_masked[r].data() : nullptr});
    }
    const Guarded<Real> work(2 * blocks * W);
    k.normalised({&norm, p_bias.data(), args.data(), norms.data(), n, H, &what.options, diagonal,
                  extras ? extra.data() : nullptr, work.data()});
    return out;
  };
  const auto got = run(0, rows, false);
  const judge::CellRow<Real> cell = {H, what.options, diagonal, &norm}, taped = {H, what.options, nullptr, &norm};
  for (size_t r = 0; r < rows; ++r) {
    const auto normal_ih = judge::normal_of(numbers(ih[r].data(), G), norm.epsilon);
    const auto normal_hh = judge::normal_of(numbers(hh[r].data(), G), norm.epsilon);
    Numbers<Real> a;
    for (size_t j = 0; j < G; ++j)
      a.push_back(Num<Real>(gain_hh[j]) * normal_hh.v[j] +
                  (Num<Real>(gain_ih[j]) * normal_ih.v[j] + Num<Real>(bias[j])));
    const auto before = numbers(c_prev[r].data(), H);
    const auto s = judge::forward(cell, a, before);
    for (size_t u = 0; u < H; ++u) {
      const unsigned char *in_h = what.masks ? keep_h[r].data() : nullptr,
                          *in_c = what.masks ? keep_c[r].data() : nullptr;
      CHECK(within(got.c[r][u], judge::kept(before[u], s.c_new[u], in_c, u, what.options.zoneout_c)));
      const auto m =
          what.zoneout_h ? judge::kept(Num<Real>(h_prev[r][u]), s.m[u], in_h, u, what.options.zoneout_h) : s.m[u];
      CHECK(within(got.y[r][u], m));
      if (r % 2) CHECK(got.y_copy[r][u] == got.y[r][u]);
      if (what.recurrent) CHECK(got.h_masked[r][u] == got.y[r][u] * h_mask[r][u]);
    }
    if (!training) continue;
    CHECK(within(got.inverse[r][0], normal_ih.inverse) && within(got.inverse[r][1], normal_hh.inverse));
    const auto taped_gates = by_gates(got.gates[r], W, H);
    for (size_t j = 0; j < G; ++j) {
      CHECK(within(taped_gates[j], s.a[j]));
      CHECK(within(got.normal_ih[r][j], normal_ih.v[j]) && within(got.normal_hh[r][j], normal_hh.v[j]));
    }
  }
  const auto alone = run(rows - 1, 1, true);
  CHECK(same_bits(alone.y[0].data(), got.y[rows - 1].data(), H));
  CHECK(same_bits(alone.c[0].data(), got.c[rows - 1].data(), H));
  if (!training) return;

  // Backward, from the tape that the kernel has written.
  const auto dm = random_rows<Real>(rows, H), dc = random_rows<Real>(rows, H), dcell = random_rows<Real>(rows, H);
  const bool more = extras || rows % 2;
  auto new_dc = empty_rows<Real>(rows, H), da = empty_rows<Real>(rows, G), dg_ih = empty_rows<Real>(rows, G),
       dg_hh = empty_rows<Real>(rows, G), dw = empty_rows<Real>(rows, H), normal_c = empty_rows<Real>(rows, H),
       dc_total = empty_rows<Real>(rows, H), c_new = empty_rows<Real>(rows, H);
  const Guarded<Real> panels_ih((blocks - 1) * stride + rows * line), panels_hh(panels_ih.size()), work(2 * blocks * W);
  std::vector<BackwardRow<Real>> args;
  std::vector<NormBackwardRow<Real>> norms;
  std::vector<BackwardExtra<Real>> extra;
  for (size_t r = 0; r < rows; ++r) {
    std::memcpy(new_dc[r].data(), dc[r].data(), H * sizeof(Real));
    args.push_back({nullptr, nullptr, nullptr, got.gates[r].data(), c_prev[r].data(), nullptr, new_dc[r].data(),
                    nullptr, nullptr});
    norms.push_back({dm[r].data(), got.normal_ih[r].data(), got.normal_hh[r].data(), got.inverse[r].data(),
                     da[r].data(), dg_ih[r].data(), dg_hh[r].data(), panels_ih.data() + r * line,
                     panels_hh.data() + r * line, dw[r].data(), normal_c[r].data()});
    extra.push_back({r % 2 ? dcell[r].data() : nullptr, nullptr, what.masks ? keep_c[r].data() : nullptr, nullptr,
                     nullptr, nullptr, r % 2 ? dc_total[r].data() : nullptr, r % 3 ? c_new[r].data() : nullptr});
  }
  k.normalised_backward({&norm, args.data(), norms.data(), rows, H, stride, &what.options, diagonal,
                         more ? extra.data() : nullptr, work.data()});
  for (size_t r = 0; r < rows; ++r) {
    const auto before = numbers(c_prev[r].data(), H);
    const auto s = judge::forward(taped, numbers(by_gates(got.gates[r], W, H).data(), G), before);
    Numbers<Real> d_c;
    for (size_t u = 0; u < H; ++u)
      d_c.push_back(more && r % 2 ? Num<Real>(dc[r][u]) + Num<Real>(dcell[r][u]) : Num<Real>(dc[r][u]));
    const auto want =
        judge::backward(cell, s, before, numbers(dm[r].data(), H), d_c, what.masks ? keep_c[r].data() : nullptr);
    for (size_t u = 0; u < H; ++u) {
      CHECK(within(new_dc[r][u], want.dc_prev[u]));
      CHECK(within(dw[r][u], want.dw[u]));
      CHECK(within(normal_c[r][u], s.normal.v[u]));
      if (more && r % 2) CHECK(within(dc_total[r][u], want.dc_total[u]));
      if (more && r % 3) CHECK(within(c_new[r][u], s.c_new[u]));
    }
    // Gradients of the products, from the kernel's own gradient of their sum.
    auto check = [&](const Guarded<Real>& dg, const Guarded<Real>& panels, const Guarded<Real>& gain,
                     const Guarded<Real>& normal, Real inverse) {
      Numbers<Real> d;
      for (size_t j = 0; j < G; ++j) d.push_back(Num<Real>(gain[j]) * Num<Real>(da[r][j]));
      const auto product = judge::normal_backward<Real>(d, {numbers(normal.data(), G), Num<Real>(inverse)});
      for (size_t j = 0; j < G; ++j) {
        const size_t u = j % H;
        CHECK(within(dg[j], product[j]));
        CHECK(panels[u / W * stride + (r * 4 + j / H) * W + u % W] == dg[j]);
      }
    };
    for (size_t j = 0; j < G; ++j) CHECK(within(da[r][j], want.da[j]));
    check(dg_ih[r], panels_ih, gain_ih, got.normal_ih[r], got.inverse[r][0]);
    check(dg_hh[r], panels_hh, gain_hh, got.normal_hh[r], got.inverse[r][1]);
  }
}

template <class Real>
std::vector<Case<Real>> cases() {
  std::vector<Case<Real>> all;
  for (bool replaces_cell : {false, true}) {
    auto add = [&](auto&& change) {
      Case<Real> one;
      one.replaces_cell = replaces_cell;
      change(one);
      all.push_back(one);
    };
    add([](Case<Real>&) {});
    add([](Case<Real>& c) { c.peephole = true; });
    add([](Case<Real>& c) { c.mean = 100; });  // must not cost the variance its digits
    add([](Case<Real>& c) { c.options.gate_clip = Real(0.9), c.options.cell_clip = Real(0.5); });
    add([](Case<Real>& c) { c.options.coupled = c.peephole = true; });
    add([](Case<Real>& c) { c.options.zoneout_c = Real(0.3), c.options.zoneout_h = Real(0.2), c.zoneout_h = true; });
    add([](Case<Real>& c) { c.masks = c.zoneout_h = c.peephole = true, c.epsilon = 0.1; });
    add([](Case<Real>& c) { c.recurrent = true, c.epsilon = 1e-3; });
    add([](Case<Real>& c) {
      c.options.gate = {kHardSigmoid, Real(0.3), Real(0.4)}, c.options.cell = {kSoftplus, 1, 0};
      c.options.output = {kScaledTanh, Real(1.3), Real(0.6)};
    });
  }
  return all;
}

template <class Real>
void test_table(const Kernels<Real>& k) {
  size_t i = 0;
  for (size_t H : tails(k.width))
    for (const Case<Real>& what : cases<Real>()) {
      test(k, what, 1 + i % 4, H, i % 5 != 0);
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
