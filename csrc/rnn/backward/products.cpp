#include <cstring>

#include "rnn/backward/pass.h"
#include "rnn/join.h"

namespace quadgate {

// What lies behind a layer, and the weights of its highway, for a block of steps. The layer's dy is in raw_ then.
template <class Real>
bool BackwardPass<Real>::join(const Team& all, const Block& given) {
  if (!joins_behind(s_, given.l, &tape_.masks)) return true;
  Block b = given;
  b.n_rows = rows_of(b.s0, b.s1);
  const size_t l = b.l, O = s_.output(), W = w_.kernels.width, below = s_.input_of(l);
  const bool last = l + 1 == s_.layers, dense = s_.options.shortcut == Shortcut::dense;
  const bool reverse = s_.directions == 1 && s_.options.reverse, highway = s_.highway(l);
  const bool beside = l > 0 ? s_.options.shortcut != Shortcut::none : dense;
  const Plane<const Real> above = gradient_above(l, b.s0);
  const Plane<Real> d_in = gradient_below(l, b.s0),
                    raw = {raw_.base, raw_.step, raw_.row, s_.forward_only() ? b.s0 : 0};
  const size_t first = all.begin(b.n_rows), end = all.end(b.n_rows);
  Real* work = join_work_ + all.rank * join_work(w_);
  JoinBackwardRow<Real> rows[kJoinRows];
  size_t n = 0;
  for (size_t s = b.s0; s < b.s1 && !control_.stopped(); ++s)
    for (size_t r = 0; r < order_.active_rows(s); ++r) {
      const size_t in_block = row_in_block(b, s, r);
      if (in_block < first || in_block >= end) continue;
      const size_t t = order_.time(r, s, reverse), i = order_.index(r), at = t * order_.batch() + i;
      JoinBackwardRow<Real>& row = rows[n++];
      row = {};
      row.raw = tape_.y[l].data() + at * s_.raw();
      row.in = tape_.input(l) + at * below;
      row.d_raw = raw.at(t, i);
      if (above) row.d_to = above.at(t, i) + (dense && !last ? below : 0);
      if (beside && d_in) row.d_in = d_in.at(t, i);
      if (dense && !last && above) row.d_head = above.at(t, i);
      if (!last && !tape_.masks.dropout.empty()) row.dropped = tape_.masks.dropout[l] + at * O;
      if (highway) {
        row.transform = tape_.transform[l].data() + at * O;
        row.d_gate = d_gate_ + in_block * O;
        row.d_gate_panel = gate_panels_ + in_block * 4 * W;
        row.panel_stride = block_rows_ * 4 * W;
        Real* x = xh_ + in_block * xh_stride_;
        std::memcpy(x, row.in, O * sizeof(Real));
        x[O] = Real(1);
        sources_[in_block] = row.d_gate;
        targets_[in_block] = row.d_in;
      }
      if (n < kJoinRows) continue;
      join_backward(w_, l, rows, n, work);
      all.worked(10.0 * double(n * O));
      n = 0;
    }
  if (n) join_backward(w_, l, rows, n, work);
  if (!all.sync()) return false;
  if (!highway) return true;
  product_gradient(all, xh_, xh_stride_, O + 1, gate_panels_, w_.highway(l).shape, b.n_rows, dw_highway_[l], O + 1);
  if (first < end)
    w_.kernels.back_product(
        {w_.highway(l).back, 1, O, O, sources_ + first, targets_ + first, end - first, 0, n_groups(O, W), true});
  all.worked(4.0 * double(b.n_rows * O * O));
  return all.sync();
}

// dw (blocks, dw_k, 4, W), from its column 0 on, += the product of xh (n_rows, n_k) and panels. Split over columns of
// xh; they are taken in slabs that stay in L2 while all panels of gradients pass by.
template <class Real>
void BackwardPass<Real>::product_gradient(const Team& all, const Real* xh, size_t stride, size_t n_k,
                                          const Real* panels, const PanelShape& shape, size_t n_rows, Real* dw,
                                          size_t dw_k) {
  const size_t W = w_.kernels.width, m = w_.kernels.max_rows;
  const size_t tiles = (n_k + m - 1) / m, slab = std::max<size_t>(1, 96 / m);
  WeightGradient<Real> g = {xh, stride, n_k, panels, block_rows_ * 4 * W, n_rows, dw, dw_k * 4 * W, 0, 0, 0, 0};
  const double flops = 8.0 * double(n_rows * W * std::min(m, n_k));
  for (size_t t = all.begin(tiles), end = all.end(tiles); t < end; t += slab) {
    g.tile_begin = t;
    g.tile_end = std::min(end, t + slab);
    const bool go = sliced(all, 0, shape.blocks(), flops * double(slab), [&](size_t begin, size_t stop) {
      g.block_begin = begin;
      g.block_end = stop;
      w_.kernels.weight_gradient(g);
    });
    if (!go) return;
  }
}

template <class Real>
void BackwardPass<Real>::weight_gradients(const Team& all, const Block& b) {
  const size_t id = state(b.l, b.d), I = s_.input_of(b.l), R = s_.recurrent(), H = s_.hidden, K = I + R + 1;
  const PackedLayer<Real>& layer = w_.layer(b.l, b.d);
  if (norm_) {  // two products, of which each has a gradient of its own; the bias is a sum
    product_gradient(all, xh_, xh_stride_, I, ih_panels_, layer.ih.shape, b.n_rows, dw_[id], K);
    product_gradient(all, xh_ + I, xh_stride_, R, panels_, layer.hh.shape, b.n_rows, dw_[id] + I * 4 * w_.kernels.width,
                     K);
  } else {
    product_gradient(all, xh_, xh_stride_, K, panels_, layer.hh.shape, b.n_rows, dw_[id], K);
  }
  if (m_) product_gradient(all, m_, H, H, dz_panels_, layer.hr.shape, b.n_rows, dw_hr_[id], H);
  if (norm_ || layer.peephole) column_sums(all, b);
}

// Sums over the block's rows that are no matrix product; split over columns, in whole vectors.
template <class Real>
void BackwardPass<Real>::column_sums(const Team& all, const Block& b) {
  const size_t id = state(b.l, b.d), H = s_.hidden, G = 4 * H, W = w_.kernels.width, n = b.n_rows, B = order_.batch();
  const bool reverse = s_.reverse(b.d);
  // Each thread needs pointers of its own, and few enough rows at a time for them to lie on the stack.
  constexpr size_t kRows = 128;
  const Real *left[kRows], *right[kRows];
  struct RowAt {
    size_t at, s, r;
  };
  RowAt rows[kRows];
  auto add = [&](auto&& a, auto&& factor, bool factors, Real* out, size_t columns, size_t count) {
    const size_t vectors = n_blocks(columns, W), begin = all.begin(vectors) * W;
    const size_t end = std::min(columns, all.end(vectors) * W);
    if (begin >= end) return;
    for (size_t i = 0; i < count; ++i) {
      left[i] = a(rows[i]);
      if (factors) right[i] = factor(rows[i]);
    }
    w_.kernels.column_sums({left, factors ? right : nullptr, out, count, begin, end});
  };
  auto none = [](const RowAt&) -> const Real* { return nullptr; };
  auto dense = [&](const RowAt& row) { return order_.time(row.r, row.s, reverse) * B + order_.index(row.r); };
  auto flush = [&](size_t count) {
    const Real* da = norm_ ? da_ : dg_;
    const Sums& sums = sums_[id];
    if (norm_) {
      auto of_da = [&](const RowAt& row) { return da_ + row.at * G; };
      const Real* normal = tape_.normal[id].data();
      add(of_da, none, false, sums.bias, G, count);
      add(
          of_da, [&](const RowAt& row) { return normal + dense(row) * 2 * G; }, true, sums.norm_ih, G, count);
      add(
          of_da, [&](const RowAt& row) { return normal + dense(row) * 2 * G + G; }, true, sums.norm_hh, G, count);
      auto of_w = [&](const RowAt& row) { return dw_c_ + row.at * H; };
      add(
          of_w, [&](const RowAt& row) { return normal_c_ + row.at * H; }, true, sums.norm_c, H, count);
      add(of_w, none, false, sums.norm_c + H, H, count);
    }
    if (!sums.peephole) return;
    const Real* cells = tape_.c[id].data();
    auto c_prev = [&](const RowAt& row) -> const Real* {
      if (cut(row.r, row.s, reverse)) return zeros_;
      const size_t i = order_.index(row.r), t = order_.time(row.r, row.s, reverse);
      return row.s == 0 ? tape_.c0.data() + (id * B + i) * H : cells + ((reverse ? t + 1 : t - 1) * B + i) * H;
    };
    auto fresh = [&](const RowAt& row) { return fresh_ ? fresh_ + row.at * H : cells + dense(row) * H; };
    add([&](const RowAt& row) { return da + row.at * G; }, c_prev, true, sums.peephole, H, count);
    add([&](const RowAt& row) { return da + row.at * G + H; }, c_prev, true, sums.peephole + H, H, count);
    add([&](const RowAt& row) { return da + row.at * G + 3 * H; }, fresh, true, sums.peephole + 2 * H, H, count);
  };
  size_t count = 0;
  for (size_t s = b.s1; s-- > b.s0;)
    for (size_t r = 0; r < order_.active_rows(s); ++r) {
      rows[count++] = {row_in_block(b, s, r), s, r};
      if (count < kRows) continue;
      flush(count);
      count = 0;
    }
  if (count) flush(count);
  all.worked(20.0 * double(n * G) / double(all.size));
}

template <class Real>
void BackwardPass<Real>::input_gradient(const Team& all, const Block& b) {
  const size_t I = s_.input_of(b.l), G = s_.gates() * s_.hidden, W = w_.kernels.width;
  const size_t first = all.begin(b.n_rows), last = all.end(b.n_rows);
  const Real* dg = norm_ ? dg_ih_ : dg_;
  for (size_t s = b.s0; s < b.s1; ++s)
    for (size_t r = 0; r < order_.active_rows(s); ++r) {
      const size_t at = row_in_block(b, s, r);
      if (at < first || at >= last) continue;
      sources_[at] = dg + at * G;
      targets_[at] = b.dx.at(order_.time(r, s, s_.reverse(b.d)), order_.index(r));
    }
  if (first == last) return;
  BackProduct<Real> p = {w_.layer(b.l, b.d).ih.back, s_.gates(),   s_.hidden, I, sources_ + first,
                         targets_ + first,           last - first, 0,         0, b.add_dx};
  sliced(all, 0, n_groups(I, W), 2.0 * double(G * 4 * W) * double(p.n_rows), [&](size_t begin, size_t end) {
    p.group_begin = begin;
    p.group_end = end;
    w_.kernels.back_product(p);
  });
}

// dh0 = dgates of the first step @ weight_hh, and what zoneout passed on; rows without any step keep dh.
template <class Real>
void BackwardPass<Real>::initial_state(const Team& all) {
  const size_t H = s_.cell(), R = s_.recurrent(), G = s_.gates() * s_.hidden, W = w_.kernels.width;
  const size_t n = order_.active_rows(0), B = order_.batch(), first = all.begin(n), last = all.end(n);
  if (first == last) return;
  for (size_t id = 0; id < s_.states(); ++id) {
    for (size_t r = first; r < last; ++r) {
      sources_[r] = carry_[id] + r * G;
      targets_[r] = call_.dh0 + (id * B + order_.index(r)) * R;
    }
    const PackedLayer<Real>& layer = w_.layer(id / s_.directions, id % s_.directions);
    BackProduct<Real> p = {layer.hh.back,    s_.gates(),   s_.hidden, R, sources_ + first,
                           targets_ + first, last - first, 0,         0, false};
    const double flops = 2.0 * double(G * 4 * W) * double(p.n_rows);
    const bool go = sliced(all, 0, n_groups(R, W), flops, [&](size_t begin, size_t end) {
      p.group_begin = begin;
      p.group_end = end;
      w_.kernels.back_product(p);
    });
    if (!go) return;
    for (size_t r = first; r < last; ++r) {
      const size_t i = order_.index(r);
      Real* dh0 = targets_[r];
      for (size_t u = 0; u < R; ++u) {
        if (!tape_.h_mask.empty()) dh0[u] *= tape_.h_mask[id][i * R + u];
        if (h_carry_[id]) dh0[u] += h_carry_[id][i * R + u];
      }
      if (!cut(r, 0, s_.reverse(id % s_.directions))) continue;
      std::fill_n(dh0, R, Real(0));
      std::fill_n(call_.dc0 + (id * B + i) * H, H, Real(0));
    }
  }
}

template <class Real>
void BackwardPass<Real>::unpack(const Team& all) {
  const size_t R = s_.recurrent(), H = s_.hidden;
  auto give = [&](Real* packed, const PanelShape& shape, size_t n_k, size_t first, size_t n_cols, Real* out) {
    unpack_panels(packed, shape, n_k, first, n_cols, all.begin(shape.blocks()), all.end(shape.blocks()), call_.add,
                  out);
  };
  auto give_sums = [&](const Real* sums, size_t n, Real* out) {
    for (size_t u = all.begin(n); u < all.end(n); ++u) out[u] = call_.add ? out[u] + sums[u] : sums[u];
  };
  for (size_t id = 0; id < s_.states(); ++id) {
    const LayerParameters<Real*>& g = call_.gradients[id];
    const PackedLayer<Real>& layer = w_.layer(id / s_.directions, id % s_.directions);
    const PanelShape& shape = layer.hh.shape;
    const size_t I = layer.ih.n_k, K = I + R + 1, line = shape.line();
    if (layer.hh_scale)  // dropped weights have none, the others were scaled
      for (size_t p = all.begin(shape.blocks()); p < all.end(shape.blocks()); ++p)
        for (size_t u = 0; u < R * line; ++u) dw_[id][(p * K + I) * line + u] *= layer.hh_scale[p * R * line + u];
    give(dw_[id], shape, K, 0, I, g.weight_ih);
    give(dw_[id], shape, K, I, R, g.weight_hh);
    if (g.bias && norm_)
      give_sums(sums_[id].bias, 4 * H, g.bias);
    else if (g.bias)
      give(dw_[id], shape, K, I + R, 1, g.bias);
    if (dw_hr_[id]) give(dw_hr_[id], layer.hr.shape, H, 0, H, g.weight_hr);
    if (layer.peephole) give_sums(sums_[id].peephole, 3 * H, g.peephole);
    if (!norm_) continue;
    give_sums(sums_[id].norm_ih, 4 * H, g.norm_ih);
    give_sums(sums_[id].norm_hh, 4 * H, g.norm_hh);
    give_sums(sums_[id].norm_c, 2 * H, g.norm_c);
  }
  const size_t O = s_.output();
  for (size_t l = 0; l < s_.layers; ++l) {
    if (!dw_highway_[l]) continue;
    give(dw_highway_[l], w_.highway(l).shape, O + 1, 0, O, call_.d_highways[l].weight);
    give(dw_highway_[l], w_.highway(l).shape, O + 1, O, 1, call_.d_highways[l].bias);
  }
}

#define QG_INSTANTIATE(Real)                                                     \
  template bool BackwardPass<Real>::join(const Team&, const Block&);             \
  template void BackwardPass<Real>::weight_gradients(const Team&, const Block&); \
  template void BackwardPass<Real>::input_gradient(const Team&, const Block&);   \
  template void BackwardPass<Real>::initial_state(const Team&);                  \
  template void BackwardPass<Real>::unpack(const Team&);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
