#include "rnn/backward/layer.h"

#include <cmath>

#include "rnn/backward/columns.h"
#include "rnn/backward/products.h"

namespace quadgate {
namespace {

template <class Real>
class BackwardLayer {
 public:
  BackwardLayer(const Team& all, const Team& team, const BackwardContext<Real>& pass, const BackwardTask<Real>& task)
      : all_(all),
        team_(team),
        pass_(pass),
        task_(task),
        scratch_(pass.all.threads[all.rank]),
        block_(pass.block),
        state_(pass.all.states[pass.state(task.l, task.d)]),
        weights_(pass.w.layer(task.l, task.d)),
        id_(pass.state(task.l, task.d)),
        reverse_(pass.sizes.reverse(task.d)),
        B_(pass.order.batch()),
        R_(pass.sizes.recurrent()),
        C_(pass.sizes.cell()) {}

  bool run();

 private:
  bool time_loops();
  void set_part(size_t part);
  size_t steps_of_link(size_t steps) const;
  bool time_loop(size_t s0, size_t s1);
  bool products();
  bool apply_resets(size_t s, size_t continuing);
  void set_row(size_t s, size_t r, bool continues);
  void set_extra(size_t s, size_t r);
  void copy_operands(size_t s, size_t r, size_t end);
  bool one_pass(size_t s, size_t r0, size_t r1);
  bool two_passes(size_t s, size_t end);
  size_t set_projected(size_t s, size_t n);
  bool normalised(size_t s, size_t n);
  void normalised_rows(size_t s, size_t first, size_t end);
  bool trace_norms(size_t s, size_t end);
  void hand_on(const Team& share);

  size_t row_in_block(size_t s, size_t r) const { return pass_.blocks.row_in_block(task_.s1, s, r); }
  size_t index(size_t r) const { return pass_.order.index(r); }
  size_t time(size_t r, size_t s) const { return pass_.order.time(r, s, reverse_); }
  size_t previous(size_t t) const { return reverse_ ? t + 1 : t - 1; }  // time of the step before
  size_t active_rows(size_t s) const { return std::min(row1_, std::max(row0_, pass_.order.active_rows(s))); }
  // (R): h of a layer's direction at time t.
  const Real* h_at(size_t t, size_t i) const {
    return pass_.tape.y[task_.l].data() + pass_.tape.rows.at(t, i) * pass_.sizes.raw() + task_.d * R_;
  }

  const Team all_;
  const Team team_;  // the threads that share the rows of the time loop
  const BackwardContext<Real>& pass_;
  const BackwardTask<Real>& task_;
  const BackwardThreadScratch<Real>& scratch_;
  const BackwardBlockScratch<Real>& block_;
  const BackwardStateScratch<Real>& state_;
  const PackedLayer<Real>& weights_;
  const size_t id_;
  const bool reverse_;
  const size_t B_, R_, C_;  // columns of h, and of c: 0 for a cell without c
  size_t row0_ = 0, row1_ = 0;
};

template <class Real>
bool BackwardLayer<Real>::run() {
  return time_loops() && products();
}

// Rows share nothing in the time loop, units share each step.
template <class Real>
bool BackwardLayer<Real>::time_loops() {
  const size_t steps = task_.s1 - task_.s0;
  if (pass_.plan.units > 1) {
    bool go = all_.ranges(steps, [&](size_t begin, size_t end) {
      for (size_t s = task_.s0 + begin; s < task_.s0 + end; ++s) copy_operands(s, 0, pass_.order.active_rows(s));
    });
    set_part(all_.rank / pass_.plan.units);
    go = go && time_loop(task_.s0, task_.s1);
    if (pass_.plan.rows == 1) return go;
    // The caller can't do the work of a whole team, so it waits for one thread of each.
    if (!go) all_.sharing->stop();
    return all_.meet([&](size_t thread) { return thread % pass_.plan.units == 0; }) && go;
  }
  const size_t link = steps_of_link(steps), links = ceil_div(steps, link);
  return all_.chains(pass_.plan.row_parts(), links, [&](size_t part, size_t begin, size_t end) {
    set_part(part);
    return time_loop(task_.s1 - std::min(steps, end * link), task_.s1 - begin * link);
  });
}

template <class Real>
void BackwardLayer<Real>::set_part(size_t part) {
  row0_ = pass_.order.part_begin(part, pass_.plan.row_parts());
  row1_ = pass_.order.part_begin(part + 1, pass_.plan.row_parts());
}

// A quarter of a millisecond or so at most.
template <class Real>
size_t BackwardLayer<Real>::steps_of_link(size_t steps) const {
  constexpr double kLinkFlops = 1e7;
  const size_t rows = ceil_div(B_, pass_.plan.row_parts());
  return link_steps(pass_.plan, steps, rows, product_flops(1, pass_.n.panel, R_), 1, kLinkFlops);
}

// The products over the block's rows, which do not depend on each other.
template <class Real>
bool BackwardLayer<Real>::products() {
  const ProductCut cut(task_.n_rows, task_.dx ? n_groups(state_.input, pass_.n.width) : 1, pass_.n.gate_rows,
                       pass_.w.kernel_sizes(), task_.dx ? all_.size : 1);
  auto some = [&](const Team& share) {
    if (!pass_.n.direct) weight_gradients(share, pass_, task_);
    if (task_.dx && share.go()) input_gradient(share, cut, pass_, task_);
    hand_on(share);
  };
  // Of many rows parts have time to begin; of one row they took 3 % longer.
  return all_.share(cut.parts, some, pass_.plan.rows == all_.size ? Taking::halves : Taking::any);
}

template <class Real>
bool BackwardLayer<Real>::time_loop(size_t s0, size_t s1) {
  for (size_t s = s1; s-- > s0;) {
    const size_t end = active_rows(s), continuing = std::min(end, active_rows(s + 1));
    if (!pass_.tape.resets.empty() && !apply_resets(s, continuing)) return false;
    for (size_t r = row0_; r < end; ++r) {
      set_row(s, r, r < continuing);
      if (scratch_.extra) set_extra(s, r);
    }
    if (team_.size == 1) copy_operands(s, row0_, end);
    const bool go =
        pass_.n.two_passes ? two_passes(s, end) : one_pass(s, row0_, continuing) && one_pass(s, continuing, end);
    if (!go || (pass_.n.trace && !trace_norms(s, end))) return false;
  }
  return team_.go();
}

// A step after a reset passes no gradient back.
template <class Real>
bool BackwardLayer<Real>::apply_resets(size_t s, size_t continuing) {
  return team_.ranges(std::max(continuing, row0_) - row0_, [&](size_t begin, size_t end) {
    for (size_t r = row0_ + begin; r < row0_ + end; ++r) {
      if (!pass_.is_reset(r, s + 1, reverse_)) continue;
      std::fill_n(pass_.call.dc0 + (id_ * B_ + index(r)) * C_, C_, Real(0));
      if (state_.h_carry) std::fill_n(state_.h_carry + index(r) * R_, R_, Real(0));
    }
  });
}

template <class Real>
void BackwardLayer<Real>::set_row(size_t s, size_t r, bool continues) {
  const size_t G = pass_.n.gate_rows, i = index(r), t = time(r, s), at = row_in_block(s, r);
  BackwardRow<Real>& row = scratch_.rows[r - row0_];
  row.dg_next = !continues                           ? nullptr
                : pass_.is_reset(r, s + 1, reverse_) ? pass_.all.zeros
                : s + 1 == task_.s1                  ? state_.dg_carry + r * G
                                                     : block_.dg + row_in_block(s + 1, r) * pass_.n.dg_stride;
  row.dh = !continues && pass_.call.dh ? pass_.call.dh + (id_ * B_ + i) * R_ : nullptr;
  row.dy = task_.dy ? task_.dy.at(t, i) : nullptr;
  row.dg = block_.dg + at * pass_.n.dg_stride;
  row.dg_panel = block_.panels ? block_.panels + at * weights_.hh.shape.line() : nullptr;
  if (!C_) {  // a cell without c needs h alone
    row.gates = h_at(t, i);
    row.c_prev = row.c = nullptr;
    row.dc = nullptr;
    return;
  }
  const Real* cells = pass_.tape.c[id_].data();
  const TapeRows& rows = pass_.tape.rows;
  const size_t taped = rows.at(t, i);
  row.gates = pass_.tape.gates[id_].data() + taped * pass_.sizes.taped();
  row.c_prev = pass_.is_reset(r, s, reverse_) ? pass_.all.zeros
               : s == 0                       ? pass_.c0(id_, i)
                                              : cells + rows.at(previous(t), i) * C_;
  row.c = cells + taped * C_;
  row.dc = pass_.call.dc0 + (id_ * B_ + i) * C_;
}

template <class Real>
void BackwardLayer<Real>::set_extra(size_t s, size_t r) {
  const Masks& masks = pass_.tape.masks;
  const size_t i = index(r), t = time(r, s), dense = t * B_ + i;
  BackwardExtra<Real>& extra = scratch_.extra[r - row0_];
  extra = {};
  if (!pass_.tape.h_mask.empty()) extra.h_mask = pass_.tape.h_mask[id_].data() + i * R_;
  if (state_.h_carry) {
    extra.keep_h = masks.zoneout_h[id_] + dense * R_;
    extra.carry = state_.h_carry + i * R_;
  }
  if (pass_.step.dh_total) extra.dh_total = pass_.step.dh_total + i * R_;
  if (scratch_.cell_extra) scratch_.cell_extra[r - row0_] = {};
  BackwardExtra<Real>& cell = scratch_.cell_extra ? scratch_.cell_extra[r - row0_] : extra;
  if (pass_.call.dcells && task_.l + 1 == pass_.sizes.layers) cell.dcell = pass_.call.dcells.at(t, i) + task_.d * C_;
  if (!masks.zoneout_c.empty()) cell.keep_c = masks.zoneout_c[id_] + dense * C_;
  if (pass_.step.dc_total) cell.dc_total = pass_.step.dc_total + i * C_;
  if (block_.c_new) cell.c_new = block_.c_new + row_in_block(s, r) * C_;
}

// The operands of the products over the block's rows: x and h of rows [r, end), and m. All at once where they lie side
// by side.
template <class Real>
void BackwardLayer<Real>::copy_operands(size_t s, size_t r, size_t end) {
  const Tape<Real>& tape = pass_.tape;
  const bool together = !pass_.order.ragged() && tape.resets.empty() && tape.h_mask.empty();
  for (size_t n; r < end; r += n) {
    const size_t H = pass_.sizes.hidden, i = index(r), t = time(r, s), at = row_in_block(s, r);
    n = together ? std::min(end - r, tape.rows.beside(i)) : 1;
    const size_t taped = tape.rows.at(t, i);
    const Real* x = tape.input(task_.l) + taped * state_.input;
    const Real* h = pass_.is_reset(r, s, reverse_) ? pass_.all.zeros : s == 0 ? pass_.h0(id_, i) : h_at(previous(t), i);
    const size_t h_stride = s > 0 ? pass_.sizes.raw() : tape.zero_h0 ? 0 : R_;
    const Real* mask = tape.h_mask.empty() ? nullptr : tape.h_mask[id_].data() + i * R_;
    copy_rows(pass_, task_.l, at, n, x, h, h_stride, mask);
    if (block_.m) std::memcpy(block_.m + at * H, tape.m[id_].data() + taped * H, n * H * sizeof(Real));
  }
}

// A step of rows [r0, r1) in one pass; either all of them continue or none.
template <class Real>
bool BackwardLayer<Real>::one_pass(size_t s, size_t r0, size_t r1) {
  if (r0 >= r1) return true;
  BackwardStep<Real> step = {};
  step.w_back = weights_.hh.back;
  step.n_gates = pass_.sizes.gates();
  step.n_rows_of_gate = step.hidden_size = pass_.sizes.hidden;
  step.rows = scratch_.rows + (r0 - row0_);
  step.n_rows = r1 - r0;
  step.panel_stride = pass_.panel_stride(weights_.hh.shape);
  step.descending = s % 2;
  step.options = pass_.w.cell_options();
  step.peephole = weights_.peephole;
  step.extra = scratch_.extra ? scratch_.extra + (r0 - row0_) : nullptr;
  step.work = scratch_.product_work;
  return cell_gradients(team_, pass_.w, step);
}

// A step whose dh must be whole before the cells begin: behind a projection, and before a normalisation.
template <class Real>
bool BackwardLayer<Real>::two_passes(size_t s, size_t end) {
  if (row0_ >= end) return team_.go();
  const size_t W = pass_.w.kernels.width, H = pass_.sizes.hidden, n = end - row0_;
  const size_t groups = n_groups(R_, W), cell_groups = n_groups(H, W), continuing = set_projected(s, n);
  bool go = team_.ranges(groups, [&](size_t begin, size_t stop) {
    back_product(team_, pass_.w, weights_.hh, scratch_.sources, scratch_.targets, continuing, begin, stop,
                 scratch_.product_work);
    ProjectedBackwardStep<Real> step = {};
    step.rows = scratch_.projected;
    step.n_rows = n;
    step.size = R_;
    step.begin = group_column(begin, R_, W);
    step.end = group_column(stop, R_, W);
    step.panel_stride = pass_.panel_stride(weights_.hr.shape);
    step.clip = Real(pass_.sizes.options.proj_clip);
    step.extra = scratch_.extra;
    pass_.w.kernels.projected_backward(step);
  });
  if (!go) return false;
  if (pass_.n.norm) {
    if (pass_.n.projection) {
      for (size_t i = 0; i < n; ++i) {
        scratch_.sources[i] = scratch_.projected[i].dz;
        scratch_.targets[i] = pass_.step.dm + index(row0_ + i) * H;
      }
      go = team_.ranges(cell_groups, [&](size_t begin, size_t stop) {
        back_product(team_, pass_.w, weights_.hr, scratch_.sources, scratch_.targets, n, begin, stop,
                     scratch_.product_work);
      });
    }
    return go && normalised(s, n);
  }
  for (size_t i = 0; i < n; ++i) {
    scratch_.rows[i].dg_next = scratch_.projected[i].dz;
    scratch_.rows[i].dh = scratch_.rows[i].dy = nullptr;
  }
  BackwardStep<Real> step = {};  // the cells in the epilogue of the product with the projection
  step.w_back = weights_.hr.back;
  step.n_gates = 1;
  step.n_rows_of_gate = R_;
  step.hidden_size = H;
  step.rows = scratch_.rows;
  step.n_rows = n;
  step.panel_stride = pass_.panel_stride(weights_.hh.shape);
  step.descending = s % 2;
  step.options = pass_.w.cell_options();
  step.peephole = weights_.peephole;
  step.extra = scratch_.cell_extra;
  step.work = scratch_.product_work;
  return team_.ranges(cell_groups, [&](size_t begin, size_t stop) {
    step.group_begin = begin;
    step.group_end = stop;
    pass_.w.kernels.backward(step);
  });
}

// Returns how many of n rows have a next step; they come first, and get their dh from it.
template <class Real>
size_t BackwardLayer<Real>::set_projected(size_t s, size_t n) {
  const size_t H = pass_.sizes.hidden;
  size_t continuing = 0;
  for (size_t i = 0; i < n; ++i) {
    const size_t at = row_in_block(s, row0_ + i), b = index(row0_ + i);
    const BackwardRow<Real>& row = scratch_.rows[i];
    Real* through = pass_.step.through + b * R_;
    if (row.dg_next) {
      scratch_.sources[i] = row.dg_next;
      scratch_.targets[i] = through;
      ++continuing;
    }
    ProjectedBackwardRow<Real>& projected = scratch_.projected[i];
    projected = {};
    projected.through = row.dg_next ? through : nullptr;
    projected.dh = row.dh;
    projected.dy = row.dy;
    projected.h = h_at(time(row0_ + i, s), b);
    projected.dz = block_.dz ? block_.dz + at * R_ : pass_.step.dm + b * H;
    projected.dz_panel = block_.dz ? block_.dz_panels + at * weights_.hr.shape.line() : nullptr;
  }
  return continuing;
}

// The cells of n rows, from dm.
template <class Real>
bool BackwardLayer<Real>::normalised(size_t s, size_t n) {
  return team_.ranges(n, [&](size_t first, size_t end) { normalised_rows(s, first, end); });
}

template <class Real>
void BackwardLayer<Real>::normalised_rows(size_t s, size_t first, size_t end) {
  const size_t H = pass_.sizes.hidden, G = pass_.n.gate_rows;
  for (size_t i = first; i < end; ++i) {
    const size_t at = row_in_block(s, row0_ + i), b = index(row0_ + i),
                 taped = pass_.tape.rows.at(time(row0_ + i, s), b);
    NormBackwardRow<Real>& row = scratch_.norm[i];
    row.dm = pass_.step.dm + b * H;
    row.normal_ih = pass_.tape.normal[id_].data() + taped * 2 * G;
    row.normal_hh = row.normal_ih + G;
    row.inverse = pass_.tape.inverse[id_].data() + taped * 2;
    row.da = block_.da + at * G;
    row.dg_ih = block_.dg_ih + at * G;
    row.dg_hh = scratch_.rows[i].dg;
    row.ih_panel = block_.ih_panels + at * weights_.ih.shape.line();
    row.hh_panel = scratch_.rows[i].dg_panel;
    row.dv = block_.dv_c + at * H;
    row.normal_c = block_.normal_c + at * H;
  }
  NormBackwardStep<Real> step = {};
  step.norm = &weights_.norm;
  step.rows = scratch_.rows + first;
  step.norm_rows = scratch_.norm + first;
  step.n_rows = end - first;
  step.hidden_size = H;
  step.panel_stride = pass_.panel_stride(weights_.hh.shape);
  step.options = pass_.w.cell_options();
  step.peephole = weights_.peephole;
  step.extra = scratch_.cell_extra ? scratch_.cell_extra + first : nullptr;
  step.work = scratch_.norm_work;
  pass_.w.kernels.normalised_backward(step);
}

// Norms of the gradients that the step left in dh_total and dc_total.
template <class Real>
bool BackwardLayer<Real>::trace_norms(size_t s, size_t end) {
  const size_t n = end - row0_;
  auto norm = [](const Real* v, size_t size) {
    double sum = 0;
    for (size_t u = 0; u < size; ++u) sum += double(v[u]) * double(v[u]);
    return Real(std::sqrt(sum));
  };
  return team_.ranges(n, [&](size_t first, size_t stop) {
    for (size_t r = row0_ + first; r < row0_ + stop; ++r) {
      const size_t i = index(r), at = (id_ * pass_.tape.steps + time(r, s)) * B_ + i;
      pass_.call.dh_norm[at] = norm(pass_.step.dh_total + i * R_, R_);
      pass_.call.dc_norm[at] = norm(pass_.step.dc_total + i * C_, C_);
    }
  });
}

// The step before this block continues from its first step, and so do the initial states.
template <class Real>
void BackwardLayer<Real>::hand_on(const Team& share) {
  if (task_.s0 == 0 && !pass_.call.dh0) return;
  const size_t G = pass_.n.gate_rows, n = pass_.order.active_rows(task_.s0);
  for (size_t r = share.begin(n); r < share.end(n); ++r)
    std::memcpy(state_.dg_carry + r * G, block_.dg + row_in_block(task_.s0, r) * pass_.n.dg_stride, G * sizeof(Real));
}

}  // namespace

template <class Real>
bool backward_layer(const Team& all, const Team& team, const BackwardContext<Real>& pass,
                    const BackwardTask<Real>& task) {
  return BackwardLayer<Real>(all, team, pass, task).run();
}

#define QG_INSTANTIATE(Real) \
  template bool backward_layer<Real>(const Team&, const Team&, const BackwardContext<Real>&, const BackwardTask<Real>&);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
