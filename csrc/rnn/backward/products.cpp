#include "rnn/backward/products.h"

#include <cstring>

#include "rnn/backward/column_sums.h"
#include "rnn/backward/columns.h"

namespace quadgate {
namespace {

// Complete but for the groups.
template <class Real>
BackProduct<Real> product_with(const Packed<Real>& p, const Real* const* sources, Real* const* targets, size_t n,
                               Real* work) {
  BackProduct<Real> product = {};
  product.w_back = p.back;
  product.n_gates = p.shape.gates;
  product.n_rows_of_gate = p.shape.rows;
  product.n_cols = p.n_k;
  product.dg = sources;
  product.out = targets;
  product.n_rows = n;
  product.work = work;
  return product;
}

// Groups [first, last) of a product. False once the call is to stop.
template <class Real>
bool run_product(const Team& share, const Kernels<Real>& kernels, const Packed<Real>& p, size_t first, size_t last,
                 BackProduct<Real>& product) {
  const double flops = product_flops(product.n_rows, kGroupBlocks * kernels.width, p.shape.total());
  return sliced(share.whole(), last - first, flops, [&](size_t begin, size_t end) {
    product.group_begin = first + begin;
    product.group_end = first + end;
    kernels.back_product(product);
  });
}

// Groups [first, last) of the product of a range of rows. operands(row, source, target) sets a row's pointers. A thread
// has pointers of its own, and so few rows at a time that these lie on the stack.
template <class Real, class F>
bool product_of_rows(const Team& share, const BackwardContext<Real>& pass, const Packed<Real>& p, bool add, size_t row,
                     size_t row_end, size_t first, size_t last, F&& operands) {
  const Real* sources[kChunkRows];
  Real* targets[kChunkRows];
  for (size_t n; row < row_end; row += n) {
    n = std::min(kChunkRows, row_end - row);
    for (size_t i = 0; i < n; ++i) operands(row + i, sources[i], targets[i]);
    BackProduct<Real> product = product_with(p, sources, targets, n, pass.all.threads[share.rank].product_work);
    product.add = add;
    if (!run_product(share, pass.w.kernels, p, first, last, product)) return false;
  }
  return true;
}

// A block's rows as the factors of a weight gradient.
template <class Real>
struct GradientProduct {
  const Real* rows;  // (n_rows, n_k), `stride` apart
  size_t stride, n_k;
  const Real* panels;  // the gradient's, of `shape`
  size_t panel_rows;   // of which each panel has so many
  const PanelShape& shape;
  Real* dw;  // (n_blocks, dw_k, V, W); the product is added from its column 0 on
  size_t dw_k;
};

size_t slab_tiles(size_t max_rows) { return kSlabColumns / max_rows; }

// Complete but for the tiles and blocks.
template <class Real>
WeightGradient<Real> gradient_with(size_t n_rows, const GradientProduct<Real>& p) {
  WeightGradient<Real> g = {};
  g.xh = p.rows;
  g.xh_stride = p.stride;
  g.n_k = p.n_k;
  g.dg_panels = p.panels;
  g.panel_stride = p.panel_rows * p.shape.line();
  g.n_rows = n_rows;
  g.dw = p.dw;
  g.dw_stride = p.dw_k * p.shape.line();
  g.n_vectors = int(p.shape.vectors());
  return g;
}

// A share of the columns of `rows`, a slab at a time.
template <class Real>
void add_product(const Team& share, const BackwardContext<Real>& pass, size_t n_rows, GradientStart start,
                 const GradientProduct<Real>& p) {
  const Kernels<Real>& kernels = pass.w.kernels;
  const size_t m = kernels.max_rows, tiles = ceil_div(p.n_k, m), slab = slab_tiles(m);
  WeightGradient<Real> g = gradient_with(n_rows, p);
  g.start = start;
  g.columns = pass.all.threads[share.rank].columns;
  const double flops = product_flops(n_rows, p.shape.line(), std::min(m, p.n_k));
  for (size_t t = share.begin(tiles), end = share.end(tiles); t < end; t += slab) {
    g.tile_begin = t;
    g.tile_end = std::min(end, t + slab);
    const bool go = sliced(share.whole(), p.shape.blocks(), flops * double(slab), [&](size_t begin, size_t stop) {
      g.block_begin = begin;
      g.block_end = stop;
      kernels.weight_gradient(g);
    });
    if (!go) return;
  }
}

// The factors change roles: dg with the columns of x or of h.
template <class Real>
void add_columns(const Team& share, const BackwardContext<Real>& pass, size_t n_rows, GradientStart start,
                 const ColumnPanels<const Real>& panels, Real* dw) {
  const Columns& columns = panels.columns;
  const size_t G = pass.n.gate_rows, W = pass.n.width, whole = columns.whole() * columns.line;
  auto add = [&](const PanelShape& shape, size_t first) {
    add_product<Real>(share, pass, n_rows, start,
                      {pass.block.dg, pass.n.dg_stride, G, panels.panel(first / columns.line), panels.rows, shape,
                       dw + first * G, G});
  };
  if (whole) add({1, whole, W}, 0);
  // The last panel has lines of 2 or 3 vectors, as if of so many gates, or whole ones.
  const size_t vectors = columns.line_of(columns.whole()) / W;
  if (whole < columns.n) add({vectors < kLineVectors ? vectors : 1, W, W}, whole);
}

// The product with h does without the rows of a first step that has none.
template <class Real>
void gradients_by_rows(const Team& share, const BackwardContext<Real>& pass, const BackwardTask<Real>& task,
                       GradientStart start) {
  Real* dw = pass.all.states[pass.state(task.l, task.d)].dw;
  const ColumnPanels<const Real> x = x_panels(pass, task.l, task.s1);
  add_columns(share, pass, task.n_rows, start, x, dw);
  const Parts tiles(pass.n.gate_rows, pass.w.kernels.max_rows);
  size_t n_rows = pass.n.h_columns ? task.n_rows : 0;
  if (n_rows && task.s0 == 0)
    n_rows -= rows_without_h(pass, n_rows, tiles.begin(share.begin(tiles.count)), tiles.begin(share.end(tiles.count)),
                             pass.all.threads[share.rank].product_work);
  if (n_rows) add_columns<Real>(share, pass, n_rows, start, h_panels(pass), dw + x.columns.row() * pass.n.gate_rows);
}

}  // namespace

template <class Real>
bool cell_gradients(const Team& team, const Weights<Real>& w, BackwardStep<Real>& step) {
  const size_t W = w.kernels.width, groups = n_groups(step.hidden_size, W);
  const double flops = product_flops(step.n_rows, kGroupBlocks * W, step.n_gates * step.n_rows_of_gate);
  return team.share(groups, [&](const Team& share) {
    sliced(share, groups, flops, [&](size_t begin, size_t end) {
      step.group_begin = begin;
      step.group_end = end;
      w.kernels.backward(step);
    });
  });
}

template <class Real>
void back_product(const Team& team, const Weights<Real>& w, const Packed<Real>& p, const Real* const* sources,
                  Real* const* targets, size_t n, size_t begin, size_t end, Real* work) {
  BackProduct<Real> product = product_with(p, sources, targets, n, work);
  product.group_begin = begin;
  product.group_end = end;
  if (n && begin < end) w.kernels.back_product(product);
  team.worked(product_flops(n, kGroupBlocks * w.kernels.width * (end - begin), p.shape.total()));
}

template <class Real>
void weight_gradients(const Team& share, const BackwardContext<Real>& pass, const BackwardTask<Real>& task) {
  const BackwardBlockScratch<Real>& block = pass.block;
  const BackwardStateScratch<Real>& sums = pass.all.states[pass.state(task.l, task.d)];
  const PackedLayer<Real>& layer = pass.w.layer(task.l, task.d);
  const size_t I = sums.input, K = sums.n_k, R = pass.n.recurrent, H = pass.n.hidden, stride = pass.n.xh_stride;
  const PanelShape gates = layer.hh.shape.wide();
  const bool first = task.s1 == pass.order.steps();  // the first block has the last steps
  const GradientStart start = first ? GradientStart::from_zero : GradientStart::from_dw;
  if (pass.n.by_rows) {  // the bias is a sum
    gradients_by_rows(share, pass, task, start);
  } else if (pass.n.norm) {  // two products, of which each has a gradient of its own; the bias is a sum
    add_product<Real>(share, pass, task.n_rows, start,
                      {block.xh, stride, I, block.ih_panels, pass.n.block_rows, layer.ih.shape, sums.dw, K});
    add_product<Real>(share, pass, task.n_rows, start,
                      {block.xh + I, stride, R, block.panels, pass.n.block_rows, layer.hh.shape,
                       sums.dw + I * layer.hh.shape.line(), K});
  } else {
    add_product<Real>(share, pass, task.n_rows, start,
                      {block.xh, stride, K, block.panels, pass.n.block_rows, gates, sums.dw, K});
  }
  if (block.m)
    add_product<Real>(share, pass, task.n_rows, start,
                      {block.m, H, H, block.dz_panels, pass.n.block_rows, layer.hr.shape, sums.dw_hr, H});
  if (pass.n.norm || pass.n.by_rows || layer.peephole || !pass.n.h_columns) column_sums(share, pass, task);
}

template <class Real>
void input_gradient(const Team& share, const ProductCut& cut, const BackwardContext<Real>& pass,
                    const BackwardTask<Real>& task) {
  const BackwardBlockScratch<Real>& block = pass.block;
  const size_t G = pass.n.norm ? pass.n.gate_rows : pass.n.dg_stride;
  const bool reverse = pass.sizes.reverse(task.d);
  const Real* dg = pass.n.norm ? block.dg_ih : block.dg;
  const Packed<Real>& ih = pass.w.layer(task.l, task.d).ih;
  cut.each(share, [&](size_t row, size_t row_end, size_t first, size_t last) {
    size_t s = pass.blocks.step_of(task.s1, row);
    return product_of_rows(share, pass, ih, task.add_dx, row, row_end, first, last,
                           [&](size_t at, const Real*& source, Real*& target) {
                             if (at >= pass.blocks.rows(s, task.s1)) --s;  // rows of earlier steps come later
                             const size_t r = at - pass.blocks.row_in_block(task.s1, s, 0);
                             source = dg + at * G;
                             target = task.dx.at(pass.order.time(r, s, reverse), pass.order.index(r));
                           });
  });
}

template <class Real>
bool highway_gradients(const Team& all, const BackwardContext<Real>& pass, size_t l, size_t n_rows) {
  const BackwardBlockScratch<Real>& block = pass.block;
  const Packed<Real>& gate = pass.w.highway(l);
  const size_t O = pass.n.output;
  return all.share(n_rows, [&](const Team& share) {
    add_product<Real>(share, pass, n_rows, GradientStart::from_dw,
                      {block.xh, pass.n.xh_stride, O + 1, block.gate_panels, pass.n.block_rows, gate.shape,
                       pass.all.highways[l].dw, O + 1});
    const size_t first = share.begin(n_rows), end = share.end(n_rows);
    BackProduct<Real> product = product_with(gate, block.sources + first, block.targets + first, end - first,
                                             pass.all.threads[share.rank].product_work);
    product.add = true;
    run_product(share, pass.w.kernels, gate, 0, n_groups(gate.n_k, pass.n.width), product);
  });
}

template <class Real>
bool initial_state(const Team& all, const BackwardContext<Real>& pass) {
  const Sizes& sizes = pass.sizes;
  const size_t C = sizes.cell(), R = pass.n.recurrent, G = pass.n.gate_rows, B = pass.order.batch(), W = pass.n.width;
  const ProductCut cut(pass.order.active_rows(0), n_groups(R, W), G, pass.w.kernel_sizes(), all.size);
  auto of_state = [&](const Team& share, size_t id, size_t row, size_t row_end, size_t first, size_t last) {
    const BackwardStateScratch<Real>& state = pass.all.states[id];
    const Packed<Real>& hh = pass.w.layer(id / sizes.directions, id % sizes.directions).hh;
    auto dh0_of = [&](size_t r) { return pass.call.dh0 + (id * B + pass.order.index(r)) * R; };
    auto operands = [&](size_t r, const Real*& source, Real*& target) {
      source = state.dg_carry + r * G;
      target = dh0_of(r);
    };
    if (!product_of_rows(share, pass, hh, false, row, row_end, first, last, operands)) return false;
    const size_t u0 = group_column(first, R, W), u1 = group_column(last, R, W);
    for (size_t r = row; r < row_end; ++r) {
      const size_t i = pass.order.index(r);
      Real* dh0 = dh0_of(r);
      if (!pass.tape.h_mask.empty())
        for (size_t u = u0; u < u1; ++u) dh0[u] *= pass.tape.h_mask[id][i * R + u];
      if (state.h_carry)
        for (size_t u = u0; u < u1; ++u) dh0[u] += state.h_carry[i * R + u];
      if (!pass.is_reset(r, 0, sizes.reverse(id % sizes.directions))) continue;
      std::fill(dh0 + u0, dh0 + u1, Real(0));
      if (first == 0) std::fill_n(pass.call.dc0 + (id * B + i) * C, C, Real(0));
    }
    return true;
  };
  return all.share(cut.parts, [&](const Team& share) {
    cut.each(share, [&](size_t row, size_t row_end, size_t first, size_t last) {
      for (size_t id = 0; id < sizes.states(); ++id)
        if (!of_state(share, id, row, row_end, first, last)) return false;
      return true;
    });
  });
}

// A gradient that was made by rows, for a share of its rows. dropped: those weights of it, whose gradient is zero while
// the others were scaled, or null.
template <class Real>
void unpack_rows(const Team& share, const BackwardContext<Real>& pass, const Columns& columns, Real* dw, Real* out,
                 const unsigned char* dropped = nullptr) {
  const size_t G = pass.n.gate_rows;
  for (size_t j = share.begin(G); j < share.end(G); ++j)
    for (size_t p = 0; p < columns.panels(); ++p) {
      const size_t k = p * columns.line, line = columns.line_of(p), n = std::min(line, columns.n - k);
      Real* from = dw + k * G + j * line;
      if (dropped) drop(dropped + j * columns.n + k, keep_scale<Real>(pass.sizes.options.weight_drop), from, n);
      put_row(from, n, pass.call.add, out + j * columns.n + k);
    }
}

// The gradient of weight_hh where h is zero, for a share of its rows.
template <class Real>
void zero_gradient(const Team& share, const BackwardContext<Real>& pass, const BackwardStateScratch<Real>& sums,
                   Real* out) {
  const size_t R = pass.n.recurrent;
  for (size_t j = share.begin(pass.n.gate_rows); j < share.end(pass.n.gate_rows); ++j)
    put_zero_product(sums.zero_h[j], R, pass.call.add, out + j * R);
}

// A share of each of the sums.
template <class Real>
void unpack_share(const Team& share, const BackwardContext<Real>& pass) {
  const Sizes& sizes = pass.sizes;
  const size_t H = pass.n.hidden, O = pass.n.output, h_columns = pass.n.h_columns;
  const bool add = pass.call.add;
  const std::vector<const unsigned char*>& masks = pass.tape.masks.weight;
  auto unpack = [&](Real* packed, const PanelShape& shape, size_t n_k, size_t first, size_t n_cols, Real* out) {
    unpack_panels(pass.w.kernels.transpose, packed, shape, n_k, first, n_cols, share.begin(shape.blocks()),
                  share.end(shape.blocks()), add, out);
  };
  auto copy = [&](const Real* sums, size_t n, Real* out) {
    for (size_t u = share.begin(n); u < share.end(n); ++u) out[u] = add ? out[u] + sums[u] : sums[u];
  };
  for (size_t id = 0; id < sizes.states(); ++id) {
    const LayerParameters<Real*>& g = pass.call.gradients[id];
    const BackwardStateScratch<Real>& sums = pass.all.states[id];
    const PackedLayer<Real>& layer = pass.w.layer(id / sizes.directions, id % sizes.directions);
    const PanelShape shape = layer.hh.shape.wide();
    const size_t I = sums.input, K = sums.n_k;
    const unsigned char* dropped = masks.empty() ? nullptr : masks[id];
    if (pass.n.by_rows) {
      const Columns of_x = pass.n.columns(I);
      unpack_rows(share, pass, of_x, sums.dw, g.weight_ih);
      if (h_columns)
        unpack_rows(share, pass, pass.n.columns(h_columns), sums.dw + of_x.row() * pass.n.gate_rows, g.weight_hh,
                    dropped);
    } else {
      if (dropped)
        drop_in_panels(dropped, keep_scale<Real>(pass.sizes.options.weight_drop), shape, K, I, h_columns,
                       share.begin(shape.blocks()), share.end(shape.blocks()), sums.dw);
      unpack(sums.dw, shape, K, 0, I, g.weight_ih);
      unpack(sums.dw, shape, K, I, h_columns, g.weight_hh);
    }
    if (!h_columns) zero_gradient(share, pass, sums, g.weight_hh);
    if (g.bias && sums.bias)
      copy(sums.bias, pass.n.gate_rows, g.bias);
    else if (g.bias)
      unpack(sums.dw, shape, K, I + h_columns, 1, g.bias);
    if (sums.dw_hr) unpack(sums.dw_hr, layer.hr.shape.wide(), H, 0, H, g.weight_hr);
    if (sums.peephole) copy(sums.peephole, 3 * H, g.peephole);
    if (!pass.n.norm) continue;
    copy(sums.norm_ih, pass.n.gate_rows, g.norm_ih);
    copy(sums.norm_hh, pass.n.gate_rows, g.norm_hh);
    copy(sums.norm_c, 2 * H, g.norm_c);
  }
  for (size_t l = 0; l < sizes.layers; ++l) {
    Real* dw = pass.all.highways[l].dw;
    if (!dw) continue;
    const PanelShape shape = pass.w.highway(l).shape.wide();
    unpack(dw, shape, O + 1, 0, O, pass.call.d_highways[l].weight);
    unpack(dw, shape, O + 1, O, 1, pass.call.d_highways[l].bias);
  }
}

template <class Real>
void unpack_gradients(const Team& all, const BackwardContext<Real>& pass) {
  all.share(pass.w.layer(0, 0).hh.shape.blocks(), [&](const Team& share) { unpack_share(share, pass); });
}

#define QG_INSTANTIATE(Real)                                                                                   \
  template bool cell_gradients<Real>(const Team&, const Weights<Real>&, BackwardStep<Real>&);                  \
  template void back_product<Real>(const Team&, const Weights<Real>&, const Packed<Real>&, const Real* const*, \
                                   Real* const*, size_t, size_t, size_t, Real*);                               \
  template void weight_gradients<Real>(const Team&, const BackwardContext<Real>&, const BackwardTask<Real>&);  \
  template void input_gradient<Real>(const Team&, const ProductCut&, const BackwardContext<Real>&,             \
                                     const BackwardTask<Real>&);                                               \
  template bool highway_gradients<Real>(const Team&, const BackwardContext<Real>&, size_t, size_t);            \
  template bool initial_state<Real>(const Team&, const BackwardContext<Real>&);                                \
  template void unpack_gradients<Real>(const Team&, const BackwardContext<Real>&);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
