#include "rnn/backward/pass.h"

#include <cstring>

#include "cpu/machine.h"
#include "rnn/join.h"
#include "rnn/workspace.h"

namespace quadgate {

template <class Real>
bool BackwardPass<Real>::run() {
  prepare();
  const bool empty = order_.steps() == 0 || order_.batch() == 0;
  w_.need_back();
  const Work work = work_of(w_, order_.steps(), order_.batch(), true);
  if (!empty) plan_ = choose_plan(work, size_t(get_num_threads()));
  Lease lease(int(plan_.threads()));
  if (size_t(lease.size()) < plan_.threads()) plan_ = choose_plan(work, size_t(lease.size()));
  const size_t threads = plan_.threads();
  if (threads > 1) barrier_ = std::make_unique<Barrier>(int(threads));
  choose_blocks();

  WorkspaceLease memory;
  memory.carve([this](Carver& carver) { carve(carver); });
  const size_t W4 = 4 * w_.kernels.width, H = s_.hidden, O = s_.output();
  auto zero = [](Real* at, size_t n) {
    if (at) std::memset(static_cast<void*>(at), 0, n * sizeof(Real));
  };
  // Panels without gates end in vectors that no row has, which are multiplied all the same.
  if (s_.options.cell.type == CellType::elman) zero(panels_, block_rows_ * panel_width());
  if (s_.options.projection) zero(dz_panels_, block_rows_ * w_.layer(0, 0).hr.shape.blocks() * W4);
  zero(zeros_, std::max(s_.gates() * H, s_.recurrent()));
  for (size_t id = 0; id < s_.states(); ++id) {
    const Packed<Real>& hr = w_.layer(0, 0).hr;
    zero(dw_[id], w_.blocks() * (s_.input_of(id / s_.directions) + s_.recurrent() + 1) * W4);
    zero(dw_hr_[id], hr.shape.blocks() * H * W4);
    zero(h_carry_[id], order_.batch() * s_.recurrent());
    zero(sums_[id].bias, norm_ ? 14 * H : 0);
    zero(sums_[id].peephole, s_.options.peephole ? 3 * H : 0);
  }
  for (size_t l = 0; l < s_.layers; ++l) zero(dw_highway_[l], w_.highway(l).shape.blocks() * (O + 1) * W4);

  if (threads == 1)
    thread(0);
  else
    lease.run([this, threads](int rank) {
      if (size_t(rank) < threads) thread(size_t(rank));
    });
  return !control_.stopped();
}

// dc runs in place on dc0; what no step reaches keeps the final state's gradient.
template <class Real>
void BackwardPass<Real>::prepare() {
  const size_t rows = s_.states() * order_.batch(), norms = s_.states() * tape_.steps * tape_.batch;
  copy_or_zero(call_.dh, rows * s_.recurrent(), call_.dh0);
  copy_or_zero(call_.dc, rows * s_.cell(), call_.dc0);
  if (call_.dx) zero_padding(order_, tape_.steps, call_.dx, s_.input);
  if (call_.dh_norm) std::fill(call_.dh_norm, call_.dh_norm + norms, Real(0));
  if (call_.dc_norm) std::fill(call_.dc_norm, call_.dc_norm + norms, Real(0));
  const Masks& m = tape_.masks;
  extra_needed_ = call_.dcells || call_.dh_norm || !m.recurrent.empty() || !m.zoneout_h.empty() || !m.zoneout_c.empty();
}

// As many rows as keep the block's gradients in L2, but enough that reading and writing the packed weight gradient once
// a block does not show.
template <class Real>
void BackwardPass<Real>::choose_blocks() {
  const size_t steps = order_.batch() ? order_.steps() : 0;
  const size_t widest = std::max(s_.input, s_.input_of(s_.layers - 1)) + s_.recurrent() + 1;
  const size_t line = 64 / sizeof(Real);
  xh_stride_ = ((widest + line - 1) / line | 1) * line;  // an odd number of lines: a column does not fall into one set
  const size_t l2 = cache_sizes().l2 ? cache_sizes().l2 : size_t(1) << 20;
  const size_t row_bytes = (xh_stride_ + 2 * s_.gates() * s_.hidden) * sizeof(Real);
  const size_t wanted = std::min<size_t>(1024, std::max<size_t>(512, l2 / 2 / row_bytes));
  before_.assign(steps + 1, 0);
  for (size_t t = steps; t-- > 0;) before_[t] = t + 1 == steps ? 0 : before_[t + 1] + order_.alive(t + 1);
  const size_t n = std::min(steps, (order_.total() + wanted - 1) / wanted);
  block_steps_.assign(1, steps);
  for (size_t i = 1; i <= n; ++i) block_steps_.push_back(steps - steps * i / n);
  for (size_t i = 0; i + 1 < block_steps_.size(); ++i)
    block_rows_ = std::max(block_rows_, rows_of(block_steps_[i + 1], block_steps_[i]));
}

template <class Real>
void BackwardPass<Real>::carve(Carver& carver) {
  const Options& o = s_.options;
  const size_t W4 = 4 * w_.kernels.width, B = order_.batch(), H = s_.hidden, R = s_.recurrent(), O = s_.output();
  const size_t G = s_.gates() * H, threads = plan_.threads(), n = block_rows_;
  auto take = [&](bool wanted, size_t count) { return wanted ? carver.take<Real>(count) : nullptr; };
  const bool zoneout = !tape_.masks.zoneout_h.empty(), highway = o.shortcut == Shortcut::highway;
  const size_t hr_line = o.projection ? w_.layer(0, 0).hr.shape.blocks() * W4 : 0;
  const size_t gate_line = PanelShape{1, O, w_.kernels.width}.blocks() * W4;

  rows_ = carver.take<BackwardRow<Real>>(threads * B);
  extra_ = extra_needed_ ? carver.take<BackwardExtra<Real>>(threads * B) : nullptr;
  cell_extra_ = extra_needed_ ? carver.take<BackwardExtra<Real>>(threads * B) : nullptr;
  projected_ = s_.two_passes() ? carver.take<ProjectedBackwardRow<Real>>(threads * B) : nullptr;
  norm_rows_ = norm_ ? carver.take<NormBackwardRow<Real>>(threads * B) : nullptr;
  step_sources_ = s_.two_passes() ? carver.take<const Real*>(threads * B) : nullptr;
  step_targets_ = s_.two_passes() ? carver.take<Real*>(threads * B) : nullptr;
  work_ = take(norm_, threads * panel_width() / 2);
  join_work_ = take(true, s_.joined() || o.dropout > 0 ? threads * join_work(w_) : 0);

  through_ = take(s_.two_passes(), B * R);
  dm_ = take(norm_, B * H);
  dh_total_ = take(call_.dh_norm, B * R);
  dc_total_ = take(call_.dh_norm, B * H);
  zeros_ = take(true, std::max(G, R));
  sources_ = carver.take<const Real*>(std::max(n, B));
  targets_ = carver.take<Real*>(std::max(n, B));
  dg_ = take(true, n * G);
  panels_ = take(true, n * panel_width());
  xh_ = take(true, n * xh_stride_);
  dg_ih_ = take(norm_, n * G);
  ih_panels_ = take(norm_, n * panel_width());
  da_ = take(norm_, n * G);
  dw_c_ = take(norm_, n * H);
  normal_c_ = take(norm_, n * H);
  dz_ = take(o.projection, n * R);
  dz_panels_ = take(o.projection, n * hr_line);
  m_ = take(o.projection, n * H);
  fresh_ = take(o.peephole && !tape_.masks.zoneout_c.empty(), n * H);
  d_gate_ = take(highway, n * O);
  gate_panels_ = take(highway, n * gate_line);

  carry_.resize(s_.states());
  h_carry_.resize(s_.states());
  dw_.resize(s_.states());
  dw_hr_.resize(s_.states());
  sums_.assign(s_.states(), Sums());
  dw_highway_.resize(s_.layers);
  for (size_t id = 0; id < s_.states(); ++id) {
    carry_[id] = take(true, B * G);
    h_carry_[id] = take(zoneout, B * R);
    dw_[id] = take(true, (s_.input_of(id / s_.directions) + R + 1) * panel_width());
    dw_hr_[id] = take(o.projection, H * hr_line);
    Real* sums = take(norm_, 14 * H);
    if (sums) sums_[id] = {sums, sums + 4 * H, sums + 8 * H, sums + 12 * H, nullptr};
    sums_[id].peephole = take(o.peephole, 3 * H);
  }
  for (size_t l = 0; l < s_.layers; ++l) dw_highway_[l] = take(s_.highway(l), (O + 1) * gate_line);

  // A block can be passed down by itself where steps are times; otherwise a layer needs all of the one above.
  size_t most_steps = 0;
  for (size_t i = 0; i + 1 < block_steps_.size(); ++i)
    most_steps = std::max(most_steps, block_steps_[i] - block_steps_[i + 1]);
  const size_t steps = s_.forward_only() ? most_steps : order_.steps();
  auto plane = [&](size_t width) {
    Plane<Real> p;
    p.row = width;
    p.step = B * width;
    p.base = carver.take<Real>(steps * p.step);
    return p;
  };
  between_.clear();
  for (size_t i = 0; i < (s_.layers > 1 ? 2 : 0); ++i) between_.push_back(plane(s_.input_of(s_.layers - 1)));
  if (s_.joined() || !tape_.masks.dropout.empty()) raw_ = plane(s_.raw());
}

// Gradient of what layer l gave to the next, or of y.
template <class Real>
Plane<const Real> BackwardPass<Real>::gradient_above(size_t l, size_t t0) const {
  if (l + 1 == s_.layers) return call_.dy;
  const Plane<Real> p = gradient_below(l + 1, t0);
  return {p.base, p.step, p.row, p.t0};
}

// Gradient of the input of layer l.
template <class Real>
Plane<Real> BackwardPass<Real>::gradient_below(size_t l, size_t t0) const {
  if (l == 0) return call_.dx;
  Plane<Real> p = between_[(l - 1) % 2];
  p.row = s_.input_of(l);
  p.step = order_.batch() * p.row;
  p.t0 = s_.forward_only() ? t0 : 0;
  return p;
}

template <class Real>
void BackwardPass<Real>::thread(size_t rank) {
  Team all;
  all.rank = rank;
  all.size = plan_.threads();
  all.barrier = barrier_.get();
  all.control = &control_;
  all.caller = rank == 0;
  if (!(s_.forward_only() ? one_direction(all) : two_directions(all))) return;
  initial_state(all);
  if (!all.sync()) return;  // the last chance to stop: from here on the caller's gradients change
  unpack(all);
}

// Block by block through all layers.
template <class Real>
bool BackwardPass<Real>::one_direction(const Team& all) {
  for (size_t i = 0; i + 1 < block_steps_.size(); ++i)
    for (size_t l = s_.layers; l-- > 0;) {
      const size_t s0 = block_steps_[i + 1];
      Block b = {l, 0, s0, block_steps_[i], 0, gradient_above(l, s0), gradient_below(l, s0), false};
      if (!join(all, b)) return false;
      if (joins_behind(s_, l, &tape_.masks)) {
        b.dy = {raw_.base, raw_.step, raw_.row, s0};
        b.add_dx = l > 0 ? s_.options.shortcut != Shortcut::none : s_.options.shortcut == Shortcut::dense;
      }
      if (!block(all, b)) return false;
    }
  return true;
}

// Two directions, or one that reads backwards: layer by layer through all blocks.
template <class Real>
bool BackwardPass<Real>::two_directions(const Team& all) {
  for (size_t l = s_.layers; l-- > 0;) {
    const bool joins = joins_behind(s_, l, &tape_.masks);
    const bool shortcut = l > 0 ? s_.options.shortcut != Shortcut::none : s_.options.shortcut == Shortcut::dense;
    for (size_t i = 0; joins && i + 1 < block_steps_.size(); ++i)
      if (!join(all, {l, 0, block_steps_[i + 1], block_steps_[i], 0, {}, {}, false})) return false;
    for (size_t d = 0; d < s_.directions; ++d)
      for (size_t i = 0; i + 1 < block_steps_.size(); ++i) {
        Block b = {l,
                   d,
                   block_steps_[i + 1],
                   block_steps_[i],
                   0,
                   gradient_above(l, 0),
                   gradient_below(l, 0),
                   d == 1 || (joins && shortcut)};
        if (joins) b.dy = {raw_.base, raw_.step, raw_.row, 0};
        if (b.dy) b.dy.base += d * s_.recurrent();
        if (!block(all, b)) return false;
      }
  }
  return true;
}

template <class Real>
bool BackwardPass<Real>::block(const Team& all, const Block& given) {
  Block b = given;
  b.n_rows = rows_of(b.s0, b.s1);
  if (plan_.units > 1) {
    time_loop(all, all.rank, 0, order_.batch(), b);
  } else {
    Team alone = all;
    alone.rank = 0;
    alone.size = 1;
    alone.barrier = nullptr;
    time_loop(alone, all.rank, order_.part_begin(all.rank, plan_.rows), order_.part_begin(all.rank + 1, plan_.rows), b);
  }
  if (!all.sync()) return false;
  weight_gradients(all, b);
  if (b.dx && !control_.stopped()) input_gradient(all, b);
  // The step before this block continues from its first step.
  const size_t G = s_.gates() * s_.hidden, n = order_.alive(b.s0);
  for (size_t r = all.begin(n); r < all.end(n); ++r)
    std::memcpy(carry_[state(b.l, b.d)] + r * G, dg_ + row_in_block(b, b.s0, r) * G, G * sizeof(Real));
  return all.sync();
}

template <class Real>
bool backward(const BackwardCall<Real>& call) {
  const Tape<Real>& tape = *call.tape;
  const RowOrder order(tape.steps, tape.batch, tape.ragged ? tape.lengths.data() : nullptr);
  Control control(call.interrupted);
  return BackwardPass<Real>(call, order, control).run();
}

#define QG_INSTANTIATE(Real)                                                                \
  template Plane<const Real> BackwardPass<Real>::gradient_above(size_t l, size_t t0) const; \
  template Plane<Real> BackwardPass<Real>::gradient_below(size_t l, size_t t0) const;       \
  template bool backward<Real>(const BackwardCall<Real>&);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
