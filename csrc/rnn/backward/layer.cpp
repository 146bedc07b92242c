#include <cmath>
#include <cstring>

#include "rnn/backward/pass.h"

namespace quadgate {
namespace {

// First column of a group of blocks, as the back panels are cut.
size_t group_column(size_t group, size_t columns, size_t width) {
  const size_t blocks = n_blocks(columns, width), groups = n_groups(columns, width);
  const size_t small = blocks / groups, large = blocks % groups;
  return std::min(columns, (group * small + std::min(group, large)) * width);
}

}  // namespace

template <class Real>
void BackwardPass<Real>::time_loop(const Team& units, size_t thread, size_t row0, size_t row1, const Block& b) {
  const size_t id = state(b.l, b.d), first = plan_.units > 1 ? units.rank * order_.batch() : row0;
  const bool reverse = s_.reverse(b.d);
  const size_t H = s_.cell(), R = s_.recurrent();
  for (size_t s = b.s1; s-- > b.s0;) {
    const size_t end = std::min(row1, std::max(row0, order_.alive(s)));
    const size_t continuing = std::min(end, std::max(row0, s + 1 < order_.steps() ? order_.alive(s + 1) : 0));
    if (!tape_.resets.empty()) {  // nothing comes back from a step that began anew
      for (size_t r = row0; r < continuing && units.rank == 0; ++r) {
        if (!cut(r, s + 1, reverse)) continue;
        std::fill_n(call_.dc0 + (id * order_.batch() + order_.index(r)) * H, H, Real(0));
        if (h_carry_[id]) std::fill_n(h_carry_[id] + order_.index(r) * R, R, Real(0));
      }
      if (!units.sync()) return;
    }
    for (size_t r = row0; r < end; ++r) {
      set_row(b, s, r, r < continuing, rows_[first + r - row0]);
      if (extra_) set_extra(b, s, r, first + r - row0);
      if (units.rank == 0) copy_operands(b, s, r);
    }
    if (s_.two_passes()) {
      run_two_passes(units, thread, b, s, row0, end, first);
    } else {
      run_rows(units, b, s, row0, continuing, first);
      run_rows(units, b, s, continuing, end, first + continuing - row0);
    }
    if (!units.sync()) return;
    if (call_.dh_norm) trace(units, b, s, row0, end);
  }
}

template <class Real>
void BackwardPass<Real>::set_row(const Block& b, size_t s, size_t r, bool continues, BackwardRow<Real>& row) {
  const size_t id = state(b.l, b.d), B = order_.batch(), H = s_.cell(), R = s_.recurrent();
  const size_t G = s_.gates() * s_.hidden, W = w_.kernels.width;
  const bool reverse = s_.reverse(b.d);
  const size_t i = order_.index(r), t = order_.time(r, s, reverse), at = row_in_block(b, s, r);
  const size_t t_prev = reverse ? t + 1 : t - 1;  // of step s - 1
  row.dg_next = !continues               ? nullptr
                : cut(r, s + 1, reverse) ? zeros_
                : s + 1 == b.s1          ? carry_[id] + r * G
                                         : dg_ + row_in_block(b, s + 1, r) * G;
  row.dh = !continues && call_.dh ? call_.dh + (id * B + i) * R : nullptr;
  row.dy = b.dy ? b.dy.at(t, i) : nullptr;
  row.dg = dg_ + at * G;
  row.dg_panel = panels_ + at * 4 * W;
  if (s_.options.cell.type == CellType::elman) {
    row.gates = tape_.y[b.l].data() + (t * B + i) * s_.raw() + b.d * R;
    row.c_prev = row.c = nullptr;
    row.dc = nullptr;
    return;
  }
  const Real* cells = tape_.c[id].data();
  row.gates = tape_.gates[id].data() + (t * B + i) * 4 * H;
  row.c_prev = cut(r, s, reverse) ? zeros_ : s == 0 ? tape_.c0.data() + (id * B + i) * H : cells + (t_prev * B + i) * H;
  row.c = cells + (t * B + i) * H;
  row.dc = call_.dc0 + (id * B + i) * H;
}

template <class Real>
void BackwardPass<Real>::set_extra(const Block& b, size_t s, size_t r, size_t i) {
  const size_t id = state(b.l, b.d), B = order_.batch(), H = s_.cell(), R = s_.recurrent();
  const size_t at = order_.index(r), t = order_.time(r, s, s_.reverse(b.d)), dense = t * B + at;
  BackwardExtra<Real>& extra = extra_[i];
  extra = {};
  if (!tape_.h_mask.empty()) extra.h_mask = tape_.h_mask[id].data() + at * R;
  if (h_carry_[id]) {
    extra.keep_h = tape_.masks.zoneout_h[id] + dense * R;
    extra.carry = h_carry_[id] + at * R;
  }
  if (dh_total_) extra.dh_total = dh_total_ + at * R;
  BackwardExtra<Real>& cell = s_.two_passes() ? cell_extra_[i] : extra;
  if (s_.two_passes()) cell = {};
  if (call_.dcells && b.l + 1 == s_.layers) cell.dcell = call_.dcells.at(t, at) + b.d * H;
  if (!tape_.masks.zoneout_c.empty()) cell.keep_c = tape_.masks.zoneout_c[id] + dense * H;
  if (dc_total_) cell.dc_total = dc_total_ + at * H;
  if (fresh_) cell.c_new = fresh_ + row_in_block(b, s, r) * H;
}

// What the products over the block's rows take: the row of [x, h, 1], and m.
template <class Real>
void BackwardPass<Real>::copy_operands(const Block& b, size_t s, size_t r) {
  const size_t id = state(b.l, b.d), B = order_.batch(), I = s_.input_of(b.l), R = s_.recurrent(), H = s_.hidden;
  const bool reverse = s_.reverse(b.d);
  const size_t i = order_.index(r), t = order_.time(r, s, reverse), t_prev = reverse ? t + 1 : t - 1;
  const size_t at = row_in_block(b, s, r);
  Real *x = xh_ + at * xh_stride_, *h = x + I;
  std::memcpy(x, tape_.input(b.l) + (t * B + i) * I, I * sizeof(Real));
  const Real* from = cut(r, s, reverse) ? zeros_
                     : s == 0           ? tape_.h0.data() + (id * B + i) * R
                                        : tape_.y[b.l].data() + (t_prev * B + i) * s_.raw() + b.d * R;
  std::memcpy(h, from, R * sizeof(Real));
  if (!tape_.h_mask.empty())
    for (size_t u = 0; u < R; ++u) h[u] *= tape_.h_mask[id][i * R + u];
  h[R] = Real(1);
  if (m_) std::memcpy(m_ + at * H, tape_.m[id].data() + (t * B + i) * H, H * sizeof(Real));
}

// A step of rows [r0, r1) in one pass; either all of them continue or none. `first` is the place of r0 in rows_.
template <class Real>
void BackwardPass<Real>::run_rows(const Team& units, const Block& b, size_t s, size_t r0, size_t r1, size_t first) {
  if (r0 >= r1) return;
  const PackedLayer<Real>& layer = w_.layer(b.l, b.d);
  const size_t W = w_.kernels.width, H = s_.hidden, groups = n_groups(H, W);
  BackwardStep<Real> step = {};
  step.w_back = layer.hh.back;
  step.n_gates = s_.gates();
  step.n_rows_of_gate = H;
  step.hidden_size = H;
  step.rows = rows_ + first;
  step.n_rows = r1 - r0;
  step.panel_stride = block_rows_ * 4 * W;
  step.descending = s % 2;
  step.options = w_.kind();
  step.peephole = layer.peephole;
  step.extra = extra_ ? extra_ + first : nullptr;
  const double flops = 2.0 * double(s_.gates() * H) * double(4 * W) * double(step.n_rows);
  sliced(units, units.begin(groups), units.end(groups), flops, [&](size_t begin, size_t end) {
    step.group_begin = begin;
    step.group_end = end;
    w_.kernels.backward(step);
  });
}

// A step whose dh must be whole before the cells begin: behind a projection, and before a normalisation.
template <class Real>
void BackwardPass<Real>::run_two_passes(const Team& units, size_t thread, const Block& b, size_t s, size_t r0,
                                        size_t r1, size_t first) {
  if (r0 >= r1) return;
  const PackedLayer<Real>& layer = w_.layer(b.l, b.d);
  const Options& o = s_.options;
  const size_t W = w_.kernels.width, H = s_.hidden, R = s_.recurrent(), G = 4 * H, id = state(b.l, b.d);
  const size_t groups = n_groups(R, W), begin = units.begin(groups), end = units.end(groups);
  BackwardRow<Real>* rows = rows_ + first;
  ProjectedBackwardRow<Real>* projected = projected_ + first;
  const BackwardExtra<Real>*extra = extra_ ? extra_ + first : nullptr,
        *cell_extra = extra_ ? cell_extra_ + first : nullptr;
  auto product = [&](const Packed<Real>& p, size_t columns, size_t n, size_t g0, size_t g1) {
    if (n && g0 < g1)
      w_.kernels.back_product({p.back, p.shape.gates, p.shape.rows, columns, step_sources_ + first,
                               step_targets_ + first, n, g0, g1, false});
    units.worked(2.0 * double(n * p.shape.total()) * double(columns) / double(units.size));
  };
  // dh, from the rows that have a next step, which come first.
  size_t continuing = 0;
  for (size_t i = 0; i < r1 - r0; ++i) {
    const size_t at = row_in_block(b, s, r0 + i), index = order_.index(r0 + i);
    const BackwardRow<Real>& row = rows[i];
    if (row.dg_next) {
      step_sources_[first + i] = row.dg_next;
      step_targets_[first + i] = through_ + index * R;
      ++continuing;
    }
    const Real* h = tape_.y[b.l].data() + (order_.time(r0 + i, s, s_.reverse(b.d)) * order_.batch() + index) * s_.raw();
    projected[i] = {row.dg_next ? through_ + index * R : nullptr,
                    row.dh,
                    row.dy,
                    h + b.d * R,
                    o.projection ? dz_ + at * R : dm_ + index * H,
                    o.projection ? dz_panels_ + at * 4 * W : nullptr};
  }
  product(layer.hh, R, continuing, begin, end);
  if (begin < end)
    w_.kernels.projected_backward({projected, r1 - r0, R, group_column(begin, R, W), group_column(end, R, W),
                                   block_rows_ * 4 * W, Real(o.proj_clip), extra});
  if (!units.sync()) return;
  if (!norm_) {  // the cells in the epilogue of the product with the projection
    const size_t cell_groups = n_groups(H, W);
    for (size_t i = 0; i < r1 - r0; ++i) {
      rows[i].dg_next = projected[i].dz;
      rows[i].dh = rows[i].dy = nullptr;
    }
    if (units.begin(cell_groups) < units.end(cell_groups))
      w_.kernels.backward({layer.hr.back, 1, R, H, rows, r1 - r0, units.begin(cell_groups), units.end(cell_groups),
                           block_rows_ * 4 * W, s % 2 == 1, w_.kind(), layer.peephole, cell_extra});
    return;
  }
  if (o.projection) {
    for (size_t i = 0; i < r1 - r0; ++i) {
      step_sources_[first + i] = projected[i].dz;
      step_targets_[first + i] = dm_ + order_.index(r0 + i) * H;
    }
    product(layer.hr, H, r1 - r0, units.begin(n_groups(H, W)), units.end(n_groups(H, W)));
    if (!units.sync()) return;
  }
  const size_t i0 = units.begin(r1 - r0), i1 = units.end(r1 - r0);
  for (size_t i = i0; i < i1; ++i) {
    const size_t at = row_in_block(b, s, r0 + i), index = order_.index(r0 + i);
    const size_t dense = order_.time(r0 + i, s, s_.reverse(b.d)) * order_.batch() + index;
    const Real* normal = tape_.normal[id].data() + dense * 2 * G;
    norm_rows_[first + i] = {dm_ + index * H,  normal,          normal + G,        tape_.inverse[id].data() + dense * 2,
                             da_ + at * G,     dg_ih_ + at * G, rows[i].dg,        ih_panels_ + at * 4 * W,
                             rows[i].dg_panel, dw_c_ + at * H,  normal_c_ + at * H};
  }
  w_.kernels.normalised_backward({&layer.norm, rows + i0, norm_rows_ + first + i0, i1 - i0, H, block_rows_ * 4 * W,
                                  w_.kind(), layer.peephole, cell_extra ? cell_extra + i0 : nullptr,
                                  work_ + thread * panel_width() / 2});
}

// Norms of what the step left in dh_total_ and dc_total_.
template <class Real>
void BackwardPass<Real>::trace(const Team& units, const Block& b, size_t s, size_t row0, size_t end) {
  const size_t B = order_.batch(), n = end - row0;
  auto norm = [](const Real* v, size_t size) {
    double sum = 0;
    for (size_t u = 0; u < size; ++u) sum += double(v[u]) * double(v[u]);
    return Real(std::sqrt(sum));
  };
  for (size_t r = row0 + units.begin(n); r < row0 + units.end(n); ++r) {
    const size_t i = order_.index(r), t = order_.time(r, s, s_.reverse(b.d));
    const size_t at = (state(b.l, b.d) * tape_.steps + t) * B + i;
    call_.dh_norm[at] = norm(dh_total_ + i * s_.recurrent(), s_.recurrent());
    call_.dc_norm[at] = norm(dc_total_ + i * s_.hidden, s_.cell());
  }
  units.sync();  // before the next step overwrites them
}

#define QG_INSTANTIATE(Real) \
  template void BackwardPass<Real>::time_loop(const Team&, size_t, size_t, size_t, const Block&);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
