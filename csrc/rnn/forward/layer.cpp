#include "rnn/forward/layer.h"

#include <cstring>

#include "cpu/caches.h"
#include "parallel/this_thread.h"
#include "rnn/forward/products.h"

namespace quadgate {
namespace {

template <class Real>
class ForwardLayer {
 public:
  ForwardLayer(const Team& team, const ForwardContext<Real>& pass, const ForwardTask<Real>& task)
      : team_(team),
        pass_(pass),
        w_(pass.w),
        task_(task),
        scratch_(*task.thread),
        shared_(*task.team),
        weights_(&pass.w.layer(task.l, task.d)),
        id_(pass.state(task.l, task.d)),
        reverse_(pass.sizes.reverse(task.d)),
        R_(pass.n.recurrent),
        H_(pass.n.hidden),
        C_(pass.sizes.cell()) {}

  bool run();

 private:
  void set_step();
  void set_strides();
  void set_row(size_t i);
  void set_extra(size_t i, size_t b, size_t t);
  void mask_first_h();
  void keep_inputs(size_t s0, size_t s1);
  size_t list_inputs(size_t s0, size_t s1);
  void set_products(size_t s, const Real* products);
  bool project_inputs(size_t s0, size_t s1);
  bool run_in_turn();
  bool run_steps(const Team& team, size_t s, size_t end);
  void skip_steps(size_t s, size_t end);
  void apply_resets(size_t s);
  size_t steps_per_call(const Team& team, size_t s, size_t end) const;
  bool one_step(const Team& team);
  void advance(size_t s);
  void advance_row(size_t s, size_t i);
  void store_state(size_t begin, size_t end);

  size_t active_rows(size_t s) const {
    return std::min(task_.row1, std::max(task_.row0, pass_.order.active_rows(s))) - task_.row0;
  }
  // The end of the steps that get their input products together with step s.
  size_t products_end(size_t s) const {
    const size_t n = active_rows(s);
    return n == 0 ? s : std::min(task_.s1, s + std::max<size_t>(1, scratch_.pre_rows / n));
  }
  size_t time(size_t i, size_t s) const { return pass_.order.time(task_.row0 + i, s, reverse_); }
  size_t index(size_t i) const { return pass_.order.index(task_.row0 + i); }
  ptrdiff_t towards_next(size_t stride) const { return reverse_ ? -ptrdiff_t(stride) : ptrdiff_t(stride); }

  const Team& team_;
  const ForwardContext<Real>& pass_;
  const Weights<Real>& w_;
  const ForwardTask<Real>& task_;
  const ForwardThreadScratch<Real>& scratch_;
  const ForwardTeamScratch<Real>& shared_;
  const PackedLayer<Real>* weights_;  // not copied: another call may be making its back panels
  PackedLayer<Real> wide_ = {};       // in their place while compact weights are floats
  const size_t id_;
  const bool reverse_;
  const size_t R_, H_, C_;  // columns of h, of hidden units, and of c: 0 for a cell without c
  // Distances from a step to the next. y, y_copy: in elements, 0 for an absent array; with a projection those of its
  // output. taped, masks: in rows of the tape, and of an array (T, B, ...).
  struct Strides {
    ptrdiff_t y, y_copy, taped, masks;
  };
  Strides strides_ = {};
  size_t n_ = 0;  // active rows
  bool plain_ = true;
  bool next_ascending_ = false;  // the order in which the next step is to read its panels, not that of the last one
  ForwardStep<Real> step_ = {};
};

template <class Real>
bool ForwardLayer<Real>::run() {
  if (!float_weights(team_, pass_, task_, wide_)) return false;
  if (wide_.ih.panels || wide_.hh.panels) weights_ = &wide_;
  set_step();
  set_strides();
  n_ = active_rows(task_.s0);
  for (size_t i = 0; i < n_; ++i) set_row(i);
  if (pass_.n.masked && !team_.ranges(1, [&](size_t, size_t) { mask_first_h(); })) return false;

  // Panels are read in alternating order, so that those still in cache, perhaps from another call, come first.
  ThisThread* thread = this_thread();
  next_ascending_ = thread && thread->next_ascending;
  bool go = true;
  if (pass_.one_loop && step_.use_pre && plain_ && !pass_.n.resets && team_.size > 1) {
    go = run_in_turn();
  } else {
    for (size_t s = task_.s0, end; go && s < task_.s1 && active_rows(s) > 0; s = end) {
      end = step_.use_pre ? products_end(s) : task_.s1;
      go = (!step_.use_pre || project_inputs(s, end)) && run_steps(team_, s, end);
    }
  }
  if (thread) thread->next_ascending = next_ascending_;
  if (!go) return false;
  const size_t n = active_rows(task_.s0);
  if (team_.size > 1) return team_.ranges(n, [&](size_t begin, size_t end) { store_state(begin, end); });
  store_state(0, n);  // a call that is to stop may do so later
  return true;
}

// The time loop of steps [s, end).
template <class Real>
bool ForwardLayer<Real>::run_steps(const Team& team, size_t s, size_t end) {
  bool go = true;
  for (size_t n_steps; go && s < end && (n_ = active_rows(s)) > 0; s += n_steps) {
    const bool without_h = pass_.no_first_h && s == 0;
    n_steps = without_h ? 1 : steps_per_call(team, s, end);
    step_.recurrent_size = without_h ? 0 : R_;
    if (!step_.use_pre) keep_inputs(s, s + n_steps);
    step_.n_rows = n_;
    step_.n_more = n_steps - 1;
    step_.descending = !next_ascending_;
    next_ascending_ ^= n_steps % 2;
    step_.next.pre = step_.use_pre ? ptrdiff_t(n_ * pass_.n.panel) : 0;
    if (pass_.n.resets) apply_resets(s);
    go = one_step(team);
    if (go) advance(s + n_steps - 1);
  }
  return go;
}

// One thread, not always the same, has the time loop, while the others make the input products of the next steps.
template <class Real>
bool ForwardLayer<Real>::run_in_turn() {
  const Packed<Real>& p = weights_->ih;
  for (size_t s = task_.s0, end = s, turn = 0;; ++turn) {
    const size_t next = end < task_.s1 ? products_end(end) : end, n = list_inputs(end, next);
    Real* const halves[2] = {shared_.pre, shared_.pre + scratch_.pre_rows * pass_.n.panel};
    Real *const products = halves[(turn + 1) % 2], *const to = halves[turn % 2];
    const ProductCut cut(n, p.shape.blocks(), p.n_k, w_.kernel_sizes(), team_.size);
    bool looped = s == end;  // nothing yet
    const bool go = team_.beside(
        !looped,
        [&] {
          looped = true;
          set_products(s, products);
          return run_steps(team_.alone(), s, end);
        },
        std::min(cut.parts, cut.column_parts * ceil_div(n, w_.kernels.max_rows)),  // of a tile at least
        [&](const Team& share) {
          project_share<Real>(share, cut, w_, p, p.bias, scratch_.x, to, scratch_.compact_work);
        });
    if (!go) return false;
    if (!looped) skip_steps(s, end);
    if (next == end) return true;
    s = end;
    end = next;
  }
}

// Moves the rows on past steps that another thread ran.
template <class Real>
void ForwardLayer<Real>::skip_steps(size_t s, size_t end) {
  for (; s < end && (n_ = active_rows(s)) > 0; ++s) advance(s);
}

// All of a step that does not change from one to the next.
template <class Real>
void ForwardLayer<Real>::set_step() {
  step_.bias = weights_->ih.bias;
  step_.input_size = weights_->ih.n_k;
  step_.hidden_size = H_;
  step_.recurrent_size = R_;
  step_.rows = scratch_.rows;
  const size_t n_rows = task_.row1 - task_.row0;
  step_.use_pre = n_rows <= scratch_.pre_rows && w_.projects_ahead(weights_->ih.n_k, n_rows, task_.s1 - task_.s0);
  step_.options = w_.cell_options();
  step_.peephole = weights_->peephole;
  step_.extra = scratch_.projected ? scratch_.cell_extra : scratch_.extra;
  // L2 could keep little of a large tape for the backward pass, which is not worth a detour through memory; 16 MB is
  // large on any machine.
  const size_t tape_bytes = pass_.call.steps * pass_.call.batch * pass_.n.taped * sizeof(Real);
  step_.large_tape = pass_.call.tape && tape_bytes > size_t(16) << 20;
  // Measured on Zen 3: prefetches of what is still in L2 from the last call cost up to 7 % of the step.
  const size_t written = pass_.call.tape ? 2 * H_ + C_ + pass_.n.taped : H_;
  step_.far_results = C_ > 0 && pass_.call.steps * pass_.call.batch * written * sizeof(Real) > 2 * l2_bytes();
  step_.far_x = !step_.use_pre && n_rows * step_.input_size * sizeof(Real) > l2_bytes() / 4;
  plain_ = !scratch_.projected && !scratch_.norm && !scratch_.extra;
}

template <class Real>
void ForwardLayer<Real>::set_strides() {
  const bool tape = pass_.call.tape;
  strides_.y = towards_next(task_.out.step);
  strides_.y_copy = task_.copy ? towards_next(task_.copy.step) : 0;
  strides_.masks = towards_next(pass_.call.batch);
  if (tape) strides_.taped = towards_next(pass_.call.tape->rows.stride(task_.row0));
  step_.next.x = towards_next(task_.in.step);
  step_.next.y = strides_.y;
  step_.next.y_copy = strides_.y_copy;
  step_.next.c = task_.cells ? towards_next(task_.cells.step) : 0;
  step_.next.gates = strides_.taped * ptrdiff_t(pass_.n.taped);
  if (!scratch_.projected) return;
  step_.next.y = strides_.taped * ptrdiff_t(H_);
  step_.next.y_copy = 0;
}

// All about row i at step s0.
template <class Real>
void ForwardLayer<Real>::set_row(size_t i) {
  Tape<Real>* tape = pass_.call.tape;
  const size_t b = index(i), t = time(i, task_.s0), taped = tape ? tape->rows.at(t, b) : 0;
  ForwardRow<Real>& row = scratch_.rows[i];
  row.x = task_.in.at(t, b);
  row.h = task_.h0 + b * task_.h0_row;
  row.pre = nullptr;  // set by set_products
  row.y = task_.out.at(t, b);
  row.y_copy = task_.copy ? task_.copy.at(t, b) : nullptr;
  row.c_prev = task_.c0 + b * task_.c0_row;
  row.c = task_.cells ? task_.cells.at(t, b) : task_.c + b * C_;
  row.gates = tape ? tape->gates[id_].data() + taped * pass_.n.taped : nullptr;
  if (scratch_.projected) {
    ProjectedRow<Real>& projected = scratch_.projected[i];
    projected.z = shared_.z + i * pass_.n.hr_panel;
    projected.y = row.y;
    projected.y_copy = row.y_copy;
    row.y = tape ? tape->m[id_].data() + taped * H_ : shared_.m + i * H_;
    row.y_copy = nullptr;
  }
  if (scratch_.norm) {
    NormRow<Real>& norm = scratch_.norm[i];
    norm = {};
    norm.hh = shared_.product + i * pass_.n.panel;
    if (tape) {
      norm.normal_ih = tape->normal[id_].data() + taped * 2 * pass_.n.gate_rows;
      norm.normal_hh = norm.normal_ih + pass_.n.gate_rows;
      norm.inverse = tape->inverse[id_].data() + taped * 2;
    }
  }
  if (scratch_.extra) set_extra(i, b, t);
}

template <class Real>
void ForwardLayer<Real>::set_extra(size_t i, size_t b, size_t t) {
  const Tape<Real>* tape = pass_.call.tape;
  const size_t dense = t * pass_.call.batch + b;
  ForwardRow<Real>& row = scratch_.rows[i];
  OutputExtra<Real>& extra = scratch_.extra[i];
  extra = {};
  if (pass_.sizes.options.cell.zoneout_h > 0) extra.h_prev = row.h;
  if (tape && !tape->masks.zoneout_h.empty()) extra.keep_h = tape->masks.zoneout_h[id_] + dense * R_;
  if (tape && !tape->masks.zoneout_c.empty()) extra.keep_c = tape->masks.zoneout_c[id_] + dense * H_;
  if (scratch_.cell_extra) {
    scratch_.cell_extra[i] = {};
    scratch_.cell_extra[i].keep_c = extra.keep_c;
  }
  if (!pass_.n.masked) return;
  extra.h_mask = tape->h_mask[id_].data() + b * R_;
  row.h = shared_.masked[1] + i * R_;
  extra.h_masked = shared_.masked[0] + i * R_;
}

// The first h that the rows of all threads of a team read.
template <class Real>
void ForwardLayer<Real>::mask_first_h() {
  for (size_t i = 0; i < n_; ++i) {
    const Real *h = task_.h0 + index(i) * task_.h0_row, *mask = scratch_.extra[i].h_mask;
    Real* first = shared_.masked[1] + i * R_;
    for (size_t u = 0; u < R_; ++u) first[u] = h[u] * mask[u];
  }
}

// Gives x of steps [s0, s1) to the tape before the products read it: from cache then.
template <class Real>
void ForwardLayer<Real>::keep_inputs(size_t s0, size_t s1) {
  for (size_t s = s0; task_.keep_x && s < s1; ++s) {
    const size_t t = time(0, s), b = index(0);  // all rows are of one length
    pass_.call.tape->keep_x(t, b, active_rows(s), task_.in.at(t, b), task_.in.row);
  }
}

// x of steps [s0, s1), in the order in which the time loop takes the rows. Returns the number of rows.
template <class Real>
size_t ForwardLayer<Real>::list_inputs(size_t s0, size_t s1) {
  size_t n = 0;
  for (size_t s = s0; s < s1; ++s)
    for (size_t i = 0; i < active_rows(s); ++i) scratch_.x[n++] = task_.in.at(time(i, s), index(i));
  return n;
}

// The time loop takes its input products from here on, beginning with step s.
template <class Real>
void ForwardLayer<Real>::set_products(size_t s, const Real* products) {
  for (size_t i = 0; i < active_rows(s); ++i) scratch_.rows[i].pre = products + i * pass_.n.panel;
}

// The input products of steps [s0, s1).
template <class Real>
bool ForwardLayer<Real>::project_inputs(size_t s0, size_t s1) {
  keep_inputs(s0, s1);
  const size_t n = list_inputs(s0, s1);
  const Real* bias = scratch_.norm ? nullptr : weights_->ih.bias;
  const bool go = project<Real>(team_, w_, weights_->ih, bias, scratch_.x, n, shared_.pre, scratch_.compact_work);
  set_products(s0, shared_.pre);
  return go;
}

// The state of rows that start again at step s; a reversed row's first step has none.
template <class Real>
void ForwardLayer<Real>::apply_resets(size_t s) {
  for (size_t i = 0; i < n_; ++i) {
    if (!pass_.is_reset(task_.row0 + i, s, reverse_)) continue;
    scratch_.rows[i].h = scratch_.rows[i].c_prev = pass_.zeros;
    if (scratch_.extra && scratch_.extra[i].h_prev) scratch_.extra[i].h_prev = pass_.zeros;
  }
}

// The number of steps from s on that may run inside one kernel call: same rows, single thread, short enough to stay
// interruptible.
template <class Real>
size_t ForwardLayer<Real>::steps_per_call(const Team& team, size_t s, size_t end) const {
  if (!plain_ || team.size > 1 || pass_.n.resets) return 1;
  const double flops = product_flops(n_, pass_.n.panel, R_ + (step_.use_pre ? 0 : step_.input_size)) / w_.rate(n_);
  const size_t most = std::min(end - s, size_t(1 + kKernelCallFlops / (flops + 1)));
  if (!pass_.order.ragged()) return most;
  size_t n = 1;
  while (n < most && active_rows(s + n) == n_) ++n;
  return n;
}

template <class Real>
bool ForwardLayer<Real>::one_step(const Team& team) {
  if (!(scratch_.norm ? run_normalised_cells(team, pass_, task_, *weights_, step_)
                      : run_cells(team, w_, *weights_, step_, scratch_.compact_work)))
    return false;
  return !scratch_.projected || project_h(team, pass_, task_, n_);
}

// From step s to the next.
template <class Real>
void ForwardLayer<Real>::advance(size_t s) {
  w_.kernels.advance(scratch_.rows, n_, step_.next);
  for (size_t i = 0; !plain_ && i < n_; ++i) advance_row(s, i);
}

template <class Real>
void ForwardLayer<Real>::advance_row(size_t s, size_t i) {
  const Strides& d = strides_;
  ForwardRow<Real>& row = scratch_.rows[i];
  if (scratch_.projected) {
    ProjectedRow<Real>& projected = scratch_.projected[i];
    row.h = projected.y;
    projected.y += d.y;
    projected.y_copy += d.y_copy;
  }
  if (scratch_.norm && pass_.call.tape) {
    NormRow<Real>& norm = scratch_.norm[i];
    norm.normal_ih += d.taped * ptrdiff_t(2 * pass_.n.gate_rows);
    norm.normal_hh += d.taped * ptrdiff_t(2 * pass_.n.gate_rows);
    norm.inverse += d.taped * 2;
  }
  if (!scratch_.extra) return;
  OutputExtra<Real>& extra = scratch_.extra[i];
  if (extra.h_prev) extra.h_prev = row.h;
  if (extra.keep_h) extra.keep_h += d.masks * ptrdiff_t(R_);
  if (extra.keep_c) extra.keep_c += d.masks * ptrdiff_t(H_);
  if (scratch_.cell_extra) scratch_.cell_extra[i].keep_c = extra.keep_c;
  if (extra.h_mask) {
    row.h = extra.h_masked;
    extra.h_masked = shared_.masked[(s - task_.s0 + 1) % 2] + i * R_;
  }
}

// Leaves the last h and c of some of the rows that ran in the state.
template <class Real>
void ForwardLayer<Real>::store_state(size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i) {
    const ForwardRow<Real>& row = scratch_.rows[i];
    const Real* y = scratch_.projected ? scratch_.projected[i].y : row.y;
    const size_t b = index(i);
    // `y` is one step past the last h.
    std::memcpy(task_.h + b * R_, y - strides_.y, R_ * sizeof(Real));
    if (task_.cells) std::memcpy(task_.c + b * C_, row.c_prev, C_ * sizeof(Real));
  }
}

}  // namespace

template <class Real>
bool forward_layer(const Team& team, const ForwardContext<Real>& pass, const ForwardTask<Real>& task) {
  return ForwardLayer<Real>(team, pass, task).run();
}

#define QG_INSTANTIATE(Real) \
  template bool forward_layer<Real>(const Team&, const ForwardContext<Real>&, const ForwardTask<Real>&);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
