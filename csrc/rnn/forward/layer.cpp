#include "rnn/forward/layer.h"

#include <cmath>
#include <cstring>

#include "cpu/machine.h"
#include "rnn/join.h"

namespace quadgate {

// The cheaper by cycles for one k of one block. Ahead saves reading weight_ih at every step and costs a detour through
// memory; within the step a narrow input's products run while the cell of the step before is waited for.
template <class Real>
bool project_ahead(const Weights<Real>& w, size_t input, size_t rows, size_t steps) {
  if (rows == 0) return false;
  if (w.sizes.options.layer_norm != LayerNorm::none) return true;  // which wants this product by itself
  if (steps == 1) return false;
  const CacheSizes& cache = cache_sizes();
  const double l1 = double(cache.l1d ? cache.l1d : 32 << 10), l2 = double(cache.l2 ? cache.l2 : 1 << 20);
  const double line = double(4 * w.kernels.width * sizeof(Real)), blocks = double(w.blocks());
  const double I = double(input), H = double(w.sizes.recurrent()), R = double(rows);
  const Pace& speed = pace();
  const double each = 4 / speed.vectors(w.kernels.width * sizeof(Real)),
               full = each * R;  // multiply-adds of whole tiles
  // One k of one block within the steps, where `width` k's take part: multiply-adds or reading from L1 or L2, and what
  // must come from beyond L2, which runs beside them but never quite.
  auto within = [&](double width) {
    const double bytes = width * line * blocks, tiles = std::ceil(R / double(w.kernels.max_rows));
    const double near = std::max(full, tiles * (bytes < 0.9 * l1 ? 1.25 * each : line / speed.l2));
    const double far = bytes > 0.9 * l2 ? line / speed.beyond * (1 - 0.8 * l2 / bytes) : 0;
    const bool crowded = 2 * width * line + R * width * sizeof(Real) > 0.6 * l2;  // two panels and the rows
    return (std::max(near, far) + 0.35 * std::min(near, far)) * (crowded ? 1 + 0.64 / speed.beyond : 1);
  };
  const double in_step = (I + H) * within(I + H);
  const double once =
      I * line / speed.beyond / std::min(double(steps), std::max(3.0, 96 / R));  // weight_ih, read per chunk
  const double detour = 12 * R;
  return I * 1.07 * full + once * (I * line * blocks > l2) + detour + H * within(H) < in_step;
}

template <class Real>
Scratch<Real> carve_scratch(Carver& carver, const Weights<Real>& w, const Tape<Real>* tape, size_t input, size_t rows,
                            size_t steps, bool resets, const Scratch<Real>* leader) {
  const Sizes& s = w.sizes;
  const Options& o = s.options;
  const size_t R = s.recurrent(), H = s.hidden, panels = w.blocks() * 4 * w.kernels.width;
  const bool masked = tape && !tape->masks.recurrent.empty(), norm = o.layer_norm != LayerNorm::none;
  Scratch<Real> own = {};
  own.n_rows = rows;
  own.rows = carver.take<ForwardRow<Real>>(rows);
  const bool extra = masked || o.cell.zoneout_h > 0 || o.cell.zoneout_c > 0;
  if (extra) own.extra = carver.take<OutputExtra<Real>>(rows);
  if (extra && o.projection) own.cell_extra = carver.take<OutputExtra<Real>>(rows);
  if (o.projection) own.projected = carver.take<ProjectedRow<Real>>(rows);
  if (norm) own.norm = carver.take<NormRow<Real>>(rows);
  if (o.shortcut == Shortcut::highway) own.join_work = carver.take<Real>(join_work(w));
  if (norm) own.work = carver.take<Real>(2 * n_blocks(H, w.kernels.width) * w.kernels.width);
  const bool ahead = rows && project_ahead(w, input, rows, steps);
  // About 96 rows, or a few steps: enough to read the weights rarely, little enough to stay in cache.
  if (ahead) own.pre_rows = std::min(rows * steps, std::max<size_t>(3, 96 / rows) * rows);
  if (ahead || s.two_passes()) own.x = carver.take<const Real*>(std::max(own.pre_rows, rows));
  if (leader) {
    own.pre = leader->pre;
    std::copy(leader->masked, leader->masked + 2, own.masked);
    own.m = leader->m;
    own.z = leader->z;
    own.product = leader->product;
    own.zeros = leader->zeros;
    return own;
  }
  if (ahead) own.pre = carver.take<Real>(own.pre_rows * panels);
  if (masked)
    for (Real*& buffer : own.masked) buffer = carver.take<Real>(rows * R);
  if (o.projection && !tape) own.m = carver.take<Real>(rows * H);
  if (o.projection) own.z = carver.take<Real>(rows * PanelShape{1, R, w.kernels.width}.blocks() * 4 * w.kernels.width);
  if (norm) own.product = carver.take<Real>(rows * panels);
  if (resets) own.zeros = carver.take<Real>(std::max(H, R));
  return own;
}

namespace {

constexpr double kFlopsTogether = 2e6;  // some 10 us

template <class Real>
class Loop {
 public:
  Loop(const Team& team, const Weights<Real>& w, const RowOrder& order, const LayerSteps<Real>& task,
       const Scratch<Real>& scratch)
      : team_(team),
        w_(w),
        order_(order),
        task_(task),
        scratch_(scratch),
        R_(w.sizes.recurrent()),
        H_(w.sizes.hidden) {}

  bool run();

 private:
  void begin();
  bool project(size_t s0, size_t s1);
  bool product();
  bool project_h();
  void cut(size_t s);
  size_t together(size_t s, size_t end) const;
  void advance(size_t s);
  void advance_rest(size_t s, size_t i);
  void end();

  size_t alive(size_t s) const { return std::min(task_.row1, std::max(task_.row0, order_.alive(s))) - task_.row0; }
  size_t time(size_t i, size_t s) const { return order_.time(task_.row0 + i, s, task_.reverse); }
  size_t index(size_t i) const { return order_.index(task_.row0 + i); }
  bool masked() const { return scratch_.masked[0]; }

  const Team& team_;
  const Weights<Real>& w_;
  const RowOrder& order_;
  const LayerSteps<Real>& task_;
  const Scratch<Real>& scratch_;
  const size_t R_, H_;
  // From a step to the next, in elements; those of absent arrays are 0. Behind a projection y and y_copy are its.
  struct Strides {
    ptrdiff_t y, y_copy, dense;
  };
  Strides strides_ = {};
  size_t n_ = 0;  // rows alive
  bool ahead_ = false, plain_ = true;
  ForwardStep<Real> step_ = {};
};

// Everything about the rows at step s0.
template <class Real>
void Loop<Real>::begin() {
  const LayerSteps<Real>& t = task_;
  Tape<Real>* tape = t.tape;
  for (size_t i = 0; i < n_; ++i) {
    ForwardRow<Real>& row = scratch_.rows[i];
    const size_t b = index(i), at = time(i, t.s0), dense = at * t.batch + b;
    row.x = t.in.at(at, b);
    row.h = t.h + b * R_;
    row.pre = nullptr;  // `project` says where
    row.y = t.out.at(at, b);
    row.y_copy = t.copy ? t.copy.at(at, b) : nullptr;
    row.c_prev = t.c + b * w_.sizes.cell();
    row.c = t.cells ? t.cells.at(at, b) : t.c + b * w_.sizes.cell();
    row.gates = tape ? tape->gates[t.state].data() + dense * 4 * w_.sizes.cell() : nullptr;
    if (scratch_.projected) {
      scratch_.projected[i] = {scratch_.z + i * w_.layer(0, 0).hr.shape.blocks() * 4 * w_.kernels.width, row.y,
                               row.y_copy};
      row.y = tape ? tape->m[t.state].data() + dense * H_ : scratch_.m + i * H_;
      row.y_copy = nullptr;
    }
    if (scratch_.norm) {
      NormRow<Real>& norm = scratch_.norm[i];
      norm = {nullptr, scratch_.product + i * w_.blocks() * 4 * w_.kernels.width, nullptr, nullptr, nullptr};
      if (tape) {
        norm.normal_ih = tape->normal[t.state].data() + dense * 8 * H_;
        norm.normal_hh = norm.normal_ih + 4 * H_;
        norm.inverse = tape->inverse[t.state].data() + dense * 2;
      }
    }
    if (!scratch_.extra) continue;
    OutputExtra<Real>& extra = scratch_.extra[i];
    extra = {};
    if (w_.sizes.options.cell.zoneout_h > 0) extra.h_prev = row.h;
    if (tape && !tape->masks.zoneout_h.empty()) extra.keep_h = tape->masks.zoneout_h[t.state] + dense * R_;
    if (tape && !tape->masks.zoneout_c.empty()) extra.keep_c = tape->masks.zoneout_c[t.state] + dense * H_;
    if (scratch_.cell_extra) {
      scratch_.cell_extra[i] = {};
      scratch_.cell_extra[i].keep_c = extra.keep_c;
    }
    if (masked()) {
      extra.h_mask = tape->h_mask[t.state].data() + b * R_;
      Real* first = scratch_.masked[1] + i * R_;
      if (team_.rank == 0)
        for (size_t u = 0; u < R_; ++u) first[u] = row.h[u] * extra.h_mask[u];
      row.h = first;
      extra.h_masked = scratch_.masked[0] + i * R_;
    }
  }
}

// The input products of steps [s0, s1), for this thread's blocks, in the order in which the time loop takes the rows.
template <class Real>
bool Loop<Real>::project(size_t s0, size_t s1) {
  const Packed<Real>& ih = task_.weights->ih;
  size_t n = 0;
  for (size_t s = s0; s < s1; ++s)
    for (size_t i = 0; i < alive(s); ++i) scratch_.x[n++] = task_.in.at(time(i, s), index(i));
  const bool norm = scratch_.norm;
  Project<Real> p = {ih.panels, norm ? nullptr : ih.bias, ih.n_k, scratch_.x, scratch_.pre, n, w_.blocks(), 0, 0};
  const double flops = 8.0 * double(n * w_.kernels.width) * double(ih.n_k);
  return sliced(team_, team_.begin(w_.blocks()), team_.end(w_.blocks()), flops, [&](size_t begin, size_t end) {
    p.block_begin = begin;
    p.block_end = end;
    w_.kernels.project(p);
  });
}

// A step up to m, or to h where no projection follows.
template <class Real>
bool Loop<Real>::product() {
  const size_t begin = team_.begin(w_.blocks()), end = team_.end(w_.blocks());
  const double flops = 8.0 * double(n_ * w_.kernels.width) * double(R_ + (ahead_ ? 0 : task_.weights->ih.n_k)) *
                       double(1 + step_.n_more);
  if (!scratch_.norm) {
    step_.n_rows = n_;
    sliced(team_, begin, end, flops, [&](size_t b, size_t e) {
      step_.block_begin = b;
      step_.block_end = e;
      w_.kernels.forward(step_);
    });
    return team_.sync();
  }
  const Packed<Real>& hh = task_.weights->hh;
  for (size_t i = 0; i < n_; ++i) scratch_.x[i] = scratch_.rows[i].h;
  Project<Real> p = {hh.panels, nullptr, R_, scratch_.x, scratch_.product, n_, w_.blocks(), 0, 0};
  sliced(team_, begin, end, flops, [&](size_t b, size_t e) {
    p.block_begin = b;
    p.block_end = e;
    w_.kernels.project(p);
  });
  if (!team_.sync()) return false;
  const size_t first = team_.begin(n_), last = team_.end(n_);
  const OutputExtra<Real>* cell_extra = step_.extra;
  for (size_t i = first; i < last; ++i) scratch_.norm[i].ih = scratch_.rows[i].pre;
  w_.kernels.normalised({&task_.weights->norm, task_.weights->ih.bias, scratch_.rows + first, scratch_.norm + first,
                         last - first, H_, w_.kind(), task_.weights->peephole,
                         cell_extra ? cell_extra + first : nullptr, scratch_.work});
  return team_.sync();
}

template <class Real>
bool Loop<Real>::project_h() {
  const Packed<Real>& hr = task_.weights->hr;
  const size_t blocks = hr.shape.blocks(), begin = team_.begin(blocks), end = team_.end(blocks);
  const size_t line = hr.shape.line();
  for (size_t i = 0; i < n_; ++i) scratch_.x[i] = scratch_.rows[i].y;
  if (begin < end) {
    w_.kernels.project({hr.panels, nullptr, H_, scratch_.x, scratch_.z, n_, blocks, begin, end});
    const Options& o = w_.sizes.options;
    w_.kernels.projected({scratch_.projected, n_, begin * line, std::min(R_, end * line), Real(o.proj_clip),
                          Real(o.cell.zoneout_h), scratch_.extra});
  }
  team_.worked(2.0 * double(n_ * R_ * H_));
  return team_.sync();
}

// Rows that start again at step s, which is not their first in reverse.
template <class Real>
void Loop<Real>::cut(size_t s) {
  for (size_t i = 0; i < n_; ++i) {
    if (task_.reverse && s == 0) continue;
    const size_t t = time(i, s) + task_.reverse;  // the later of the two steps that are cut apart
    if (!task_.resets[t * task_.resets_step + index(i) * task_.resets_row]) continue;
    scratch_.rows[i].h = scratch_.rows[i].c_prev = scratch_.zeros;
    if (scratch_.extra && scratch_.extra[i].h_prev) scratch_.extra[i].h_prev = scratch_.zeros;
  }
}

// How many steps from s on can be done in one go: alike, by this thread alone, and over soon enough to look around.
template <class Real>
size_t Loop<Real>::together(size_t s, size_t end) const {
  if (!plain_ || team_.size > 1 || task_.resets) return 1;
  const double flops = 8.0 * double(n_ * w_.blocks() * w_.kernels.width) * double(R_ + (ahead_ ? 0 : step_.input_size));
  const size_t most = std::min(end - s, size_t(1 + kFlopsTogether / (flops + 1)));
  if (!order_.ragged()) return most;
  size_t n = 1;
  while (n < most && alive(s + n) == n_) ++n;
  return n;
}

// From step s to the next.
template <class Real>
void Loop<Real>::advance(size_t s) {
  w_.kernels.advance(scratch_.rows, n_, step_.next);
  for (size_t i = 0; !plain_ && i < n_; ++i) advance_rest(s, i);
}

template <class Real>
void Loop<Real>::advance_rest(size_t s, size_t i) {
  const Strides& d = strides_;
  ForwardRow<Real>& row = scratch_.rows[i];
  if (scratch_.projected) {
    ProjectedRow<Real>& projected = scratch_.projected[i];
    row.h = projected.y;
    projected.y += d.y;
    projected.y_copy += d.y_copy;
  }
  if (scratch_.norm && task_.tape) {
    NormRow<Real>& norm = scratch_.norm[i];
    norm.normal_ih += d.dense * ptrdiff_t(8 * H_);
    norm.normal_hh += d.dense * ptrdiff_t(8 * H_);
    norm.inverse += d.dense * 2;
  }
  if (!scratch_.extra) return;
  OutputExtra<Real>& extra = scratch_.extra[i];
  if (extra.h_prev) extra.h_prev = row.h;
  if (extra.keep_h) extra.keep_h += d.dense * ptrdiff_t(R_);
  if (extra.keep_c) extra.keep_c += d.dense * ptrdiff_t(H_);
  if (scratch_.cell_extra) scratch_.cell_extra[i].keep_c = extra.keep_c;
  if (extra.h_mask) {
    row.h = extra.h_masked;
    extra.h_masked = scratch_.masked[(s - task_.s0 + 1) % 2] + i * R_;
  }
}

// Rows that ran leave their last h and c in the state.
template <class Real>
void Loop<Real>::end() {
  const size_t n = alive(task_.s0);
  for (size_t i = team_.begin(n); i < team_.end(n); ++i) {
    const ForwardRow<Real>& row = scratch_.rows[i];
    const Real* y = scratch_.projected ? scratch_.projected[i].y : row.y;
    const size_t b = index(i);
    // `y` stands one step further than the last h.
    const Real* last = y - (task_.reverse ? -ptrdiff_t(task_.out.step) : ptrdiff_t(task_.out.step));
    std::memcpy(task_.h + b * R_, last, R_ * sizeof(Real));
    if (task_.cells) std::memcpy(task_.c + b * H_, row.c_prev, H_ * sizeof(Real));
  }
}

template <class Real>
bool Loop<Real>::run() {
  const LayerSteps<Real>& t = task_;
  const ptrdiff_t sign = t.reverse ? -1 : 1, dense = sign * ptrdiff_t(t.batch);
  strides_ = {sign * ptrdiff_t(t.out.step), t.copy ? sign * ptrdiff_t(t.copy.step) : 0, dense};
  step_.next = {sign * ptrdiff_t(t.in.step),
                0,
                strides_.y,
                strides_.y_copy,
                t.cells ? sign * ptrdiff_t(t.cells.step) : 0,
                t.tape ? dense * ptrdiff_t(4 * w_.sizes.cell()) : 0};
  if (scratch_.projected) {
    step_.next.y = t.tape ? dense * ptrdiff_t(H_) : 0;
    step_.next.y_copy = 0;
  }
  plain_ = !scratch_.projected && !scratch_.norm && !scratch_.extra;
  n_ = alive(t.s0);
  ahead_ = scratch_.pre && project_ahead(w_, t.weights->ih.n_k, t.row1 - t.row0, t.s1 - t.s0);
  if (t.resets && team_.rank == 0) std::fill(scratch_.zeros, scratch_.zeros + std::max(H_, R_), Real(0));
  begin();
  if ((t.resets || masked()) && !team_.sync()) return false;

  step_.w_ih = t.weights->ih.panels;
  step_.w_hh = t.weights->hh.panels;
  step_.bias = t.weights->ih.bias;
  step_.input_size = t.weights->ih.n_k;
  step_.hidden_size = H_;
  step_.recurrent_size = R_;
  step_.rows = scratch_.rows;
  step_.use_pre = ahead_;
  step_.options = w_.kind();
  step_.peephole = t.weights->peephole;
  step_.extra = scratch_.projected ? scratch_.cell_extra : scratch_.extra;
  // What L2 could keep for the backward pass is not worth a detour through memory; 16 MB is past it on any machine.
  step_.large_tape = t.tape && t.steps * t.batch * 4 * w_.sizes.cell() * sizeof(Real) > size_t(16) << 20;
  // A sweep starts with the panels that the last one, perhaps another call's, has left in cache.
  static thread_local bool last_sweep = false;
  bool sweep = last_sweep, go = true;
  size_t projected = ahead_ ? t.s0 : SIZE_MAX;
  size_t n_steps = 0;
  for (size_t s = t.s0; go && s < t.s1 && (n_ = alive(s)) > 0; s += n_steps) {
    if (s == projected) {
      projected = std::min(t.s1, s + std::max<size_t>(1, scratch_.pre_rows / n_));
      if (!project(s, projected) && team_.size == 1) return false;
      for (size_t i = 0; i < n_; ++i) scratch_.rows[i].pre = scratch_.pre + i * w_.blocks() * 4 * w_.kernels.width;
    }
    n_steps = together(s, std::min(t.s1, projected));
    step_.n_more = n_steps - 1;
    step_.descending = !sweep;
    sweep ^= n_steps % 2;
    step_.next.pre = ahead_ ? ptrdiff_t(n_ * w_.blocks() * 4 * w_.kernels.width) : 0;
    if (t.resets) cut(s);
    go = product();
    if (go && scratch_.projected) go = project_h();
    if (go) advance(s + n_steps - 1);
  }
  last_sweep = sweep;
  if (!go) return false;
  end();
  return team_.size > 1 ? team_.sync() : true;
}

}  // namespace

template <class Real>
bool forward_layer(const Team& team, const Weights<Real>& w, const RowOrder& order, const LayerSteps<Real>& task,
                   const Scratch<Real>& scratch) {
  return Loop<Real>(team, w, order, task, scratch).run();
}

#define QG_INSTANTIATE(Real)                                                                                           \
  template bool project_ahead<Real>(const Weights<Real>&, size_t, size_t, size_t);                                     \
  template Scratch<Real> carve_scratch<Real>(Carver&, const Weights<Real>&, const Tape<Real>*, size_t, size_t, size_t, \
                                             bool, const Scratch<Real>*);                                              \
  template bool forward_layer<Real>(const Team&, const Weights<Real>&, const RowOrder&, const LayerSteps<Real>&,       \
                                    const Scratch<Real>&);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
