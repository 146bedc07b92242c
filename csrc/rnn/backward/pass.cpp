#include <memory>

#include "cpu/caches.h"
#include "parallel/pace.h"
#include "parallel/pool.h"
#include "rnn/backward/direct.h"
#include "rnn/backward/products.h"
#include "rnn/join.h"
#include "rnn/scratch.h"

namespace quadgate {
namespace {

template <class Real>
class BackwardPass {
 public:
  BackwardPass(const BackwardCall<Real>& call, const RowOrder& order, Control& control)
      : call_(call),
        tape_(*call.tape),
        w_(*call.tape->weights),
        s_(w_.sizes),
        order_(order),
        control_(control),
        n_(sizes()),
        blocks_(order, block_rows_wanted()) {
    n_.block_rows = blocks_.most_rows();
    n_.direct = direct();
  }

  bool run();

 private:
  BackwardSizes sizes() const;
  size_t block_rows_wanted() const;
  bool direct() const;
  void prepare_outputs();
  void carve(Carver& carver);
  void clear();
  // A direct gradient is made at the end from its block, so that each layer and direction has a block of its own then.
  size_t kept_blocks() const { return n_.direct ? s_.states() : 1; }
  size_t kept_block(size_t l, size_t d) const { return n_.direct ? l * s_.directions + d : 0; }
  // passes: for each of the kept blocks.
  void thread(const BackwardContext<Real>* passes, size_t rank);
  bool block_by_block(const Team& all, const Team& team, const BackwardContext<Real>* passes);
  bool layer_by_layer(const Team& all, const Team& team, const BackwardContext<Real>* passes);
  BackwardTask<Real> task_of(size_t l, size_t d, size_t block) const;
  bool join(const Team& all, const BackwardContext<Real>& pass, const BackwardTask<Real>& task);
  void join_rows(const Team& share, const BackwardContext<Real>& pass, const BackwardTask<Real>& task);
  Plane<const Real> gradient_above(size_t l, size_t s0) const;
  Plane<Real> gradient_below(size_t l, size_t s0) const;
  Plane<Real> raw(size_t s0) const;
  bool joins_behind(size_t l) const { return quadgate::joins_behind(s_, l, &tape_.masks); }
  // A shortcut around layer l adds to the gradient of its input.
  bool shortcut_around(size_t l) const {
    return l > 0 ? s_.options.shortcut != Shortcut::none : s_.options.shortcut == Shortcut::dense;
  }

  const BackwardCall<Real>& call_;
  const Tape<Real>& tape_;
  const Weights<Real>& w_;
  const Sizes& s_;
  const RowOrder& order_;
  Control& control_;
  BackwardSizes n_;
  StepBlocks blocks_;
  Plan plan_;
  std::unique_ptr<Sharing> sharing_;
  std::vector<std::unique_ptr<Sharing>> teams_;  // of the threads that share units, if there are several
  BackwardScratch<Real> scratch_ = {};
  const BackwardStepScratch<Real>* step_ = nullptr;
  const BackwardBlockScratch<Real>* block_ = nullptr;  // kept_blocks()
};

template <class Real>
BackwardSizes BackwardPass<Real>::sizes() const {
  const Options& o = s_.options;
  const Masks& masks = tape_.masks;
  const size_t W = w_.kernels.width, widest = std::max(s_.input, s_.input_of(s_.layers - 1));
  BackwardSizes n = {};
  n.batch = order_.batch();
  n.hidden = s_.hidden;
  n.recurrent = s_.recurrent();
  n.output = s_.output();
  n.h_columns = tape_.h_columns();
  n.gate_rows = s_.gates() * s_.hidden;
  n.panel = w_.layer(0, 0).hh.row();
  n.hr_panel = o.projection ? w_.layer(0, 0).hr.row() : 0;
  n.highway_panel = w_.highway(s_.layers - 1).row();
  // An odd number of cache lines: the elements of a column do not fall into one set.
  const size_t line = 64 / sizeof(Real);
  auto odd_lines = [=](size_t elements) { return (ceil_div(elements, line) | 1) * line; };
  n.xh_stride = odd_lines(widest + n.h_columns + 1);
  n.dg_stride = odd_lines(n.gate_rows);
  n.norm_work = 2 * n_blocks(s_.hidden, W) * W;
  n.width = w_.kernels.width;
  n.copies_columns = w_.kernels.copies_columns;
  n.n_k = widest + n.h_columns + 1;
  n.line = size_t(kLineVectors) * W;
  n.least = least_vectors<Real>();
  n.join_work = s_.joined() || o.dropout > 0 ? join_work(w_) : 0;
  n.norm = o.layer_norm != LayerNorm::none;
  n.projection = o.projection > 0;
  n.highway = o.shortcut == Shortcut::highway;
  n.peephole = o.peephole;
  n.two_passes = s_.two_passes();
  n.extra =
      call_.dcells || call_.dh_norm || !masks.recurrent.empty() || !masks.zoneout_h.empty() || !masks.zoneout_c.empty();
  n.trace = call_.dh_norm != nullptr;
  n.zoneout_h = !masks.zoneout_h.empty();
  n.c_new = o.peephole && !masks.zoneout_c.empty();
  n.by_rows = tape_.by_rows;
  n.x_on_tape = tape_.x_in_panels;
  if (!n.by_rows) return n;
  const size_t from = n.x_on_tape ? 1 : 0;  // the first layer whose x is copied to the block
  for (size_t l = from; l < s_.layers; ++l) n.x_row = std::max(n.x_row, n.columns(s_.input_of(l)).row());
  n.xh_stride = n.x_row + n.columns(n.h_columns).row();
  return n;
}

// As many rows as keep the block's gradients in L2, but enough that reading and writing the packed weight gradient once
// a block does not show.
template <class Real>
size_t BackwardPass<Real>::block_rows_wanted() const {
  const size_t row_bytes = (n_.n_k + (n_.by_rows ? 1 : 2) * n_.gate_rows) * sizeof(Real);
  return std::min<size_t>(1024, std::max<size_t>(512, l2_bytes() / 2 / row_bytes));
}

// True if all rows are one block, so that each weight gradient is a single product. These can't be interrupted. The
// blocks of several layers and directions must not take more memory than gradients in panels of the widest layer would.
template <class Real>
bool BackwardPass<Real>::direct() const {
  if (!n_.by_rows || blocks_.count() != 1 || n_.projection || n_.peephole || n_.zoneout_h || n_.highway ||
      !tape_.masks.weight.empty())
    return false;
  const size_t block = n_.block_rows * (n_.dg_stride + n_.xh_stride);
  return (s_.states() == 1 || block <= n_.gate_rows * n_.n_k) &&
         double(s_.states()) * product_flops(n_.block_rows, n_.gate_rows, n_.n_k) < kDirectFlops;
}

template <class Real>
bool BackwardPass<Real>::run() {
  prepare_outputs();
  w_.need_back();
  Work work = work_of(w_, order_.steps(), order_.batch(), Pass::backward);
  work.no_first_h = n_.h_columns == 0;
  Pace pace;
  if (blocks_.count()) plan_ = pace.plan(work, size_t(get_num_threads()));
  Lease lease(int(plan_.threads()));
  if (size_t(lease.size()) < plan_.threads()) plan_ = pace.plan(work, size_t(lease.size()));
  const size_t threads = plan_.threads();
  control_.others = threads > 1;
  if (threads > 1) sharing_ = std::make_unique<Sharing>(threads, lease.board(1, 0), plan_.row_parts());
  if (plan_.units > 1) teams_ = share_in_teams(lease, threads, plan_.units);

  ScratchLease memory;
  memory.carve([this](Carver& carver) { carve(carver); });
  clear();
  std::vector<BackwardContext<Real>> passes;
  passes.reserve(kept_blocks());
  for (size_t i = 0; i < kept_blocks(); ++i)
    passes.push_back({call_, tape_, w_, s_, order_, blocks_, plan_, n_, *step_, block_[i], scratch_});
  if (threads == 1)
    thread(passes.data(), 0);
  else
    lease.run([&](int rank) {
      if (size_t(rank) < threads) thread(passes.data(), size_t(rank));
    });
  return !control_.stopped();
}

// dc runs in place on dc0; a state that no step reaches keeps the gradient of the final one.
template <class Real>
void BackwardPass<Real>::prepare_outputs() {
  const size_t rows = s_.states() * order_.batch(), norms = s_.states() * tape_.steps * tape_.batch;
  if (call_.dh0) copy_or_zero(call_.dh, rows * s_.recurrent(), call_.dh0);
  copy_or_zero(call_.dc, rows * s_.cell(), call_.dc0);
  if (call_.dx) zero_padding(order_, tape_.steps, call_.dx, s_.input);
  if (call_.dh_norm) std::fill(call_.dh_norm, call_.dh_norm + norms, Real(0));
  if (call_.dc_norm) std::fill(call_.dc_norm, call_.dc_norm + norms, Real(0));
}

template <class Real>
void BackwardPass<Real>::carve(Carver& carver) {
  size_t rows = 0;  // any thread may take over any part
  for (size_t part = 0, parts = plan_.row_parts(); part < parts; ++part)
    rows = std::max(rows, order_.part_begin(part + 1, parts) - order_.part_begin(part, parts));
  auto thread_scratch = [&](size_t) { return BackwardThreadScratch<Real>{carver, n_, rows}; };
  auto state_scratch = [&](size_t id) {
    return BackwardStateScratch<Real>{carver, n_, s_.input_of(id / s_.directions)};
  };
  scratch_.zeros = carver.take<Real>(std::max(n_.gate_rows, n_.recurrent));
  scratch_.threads = carver.make<BackwardThreadScratch<Real>>(plan_.threads(), thread_scratch);
  scratch_.states = carver.make<BackwardStateScratch<Real>>(s_.states(), state_scratch);
  scratch_.highways = carver.make<BackwardHighwayScratch<Real>>(s_.layers, [&](size_t l) {
    return BackwardHighwayScratch<Real>{carver, n_, s_.highway(l)};
  });
  step_ = carver.make<BackwardStepScratch<Real>>(1, [&](size_t) { return BackwardStepScratch<Real>{carver, n_}; });
  block_ = carver.make<BackwardBlockScratch<Real>>(kept_blocks(), [&](size_t) {
    return BackwardBlockScratch<Real>{carver, n_};
  });

  // A block can be passed down by itself where every layer runs forward in time; otherwise a layer needs all of the
  // one above.
  const size_t steps = s_.forward_only() ? blocks_.most_steps() : order_.steps();
  auto plane = [&](size_t width) {
    Plane<Real> p;
    p.row = width;
    p.step = n_.batch * width;
    p.base = carver.take<Real>(steps * p.step);
    return p;
  };
  if (s_.layers > 1)
    for (Plane<Real>& one : scratch_.between) one = plane(s_.input_of(s_.layers - 1));
  if (s_.joined() || !tape_.masks.dropout.empty()) scratch_.raw = plane(s_.raw());
}

template <class Real>
void BackwardPass<Real>::clear() {
  auto zero = [](Real* at, size_t n) { std::memset(static_cast<void*>(at), 0, n * sizeof(Real)); };
  zero(scratch_.zeros, std::max(n_.gate_rows, n_.recurrent));
  // Panels without gates end in vectors that no row has, which are multiplied all the same.
  if (s_.gates() == 1 && !n_.by_rows) zero(block_->panels, n_.block_rows * n_.panel);
  if (n_.projection) zero(block_->dz_panels, n_.block_rows * n_.hr_panel);
  for (size_t id = 0; id < s_.states(); ++id) scratch_.states[id].clear(blocks_.count() > 0);
  for (size_t l = 0; l < s_.layers; ++l) scratch_.highways[l].clear();
}

// Gradient of the output that layer l gave to the next, or of y.
template <class Real>
Plane<const Real> BackwardPass<Real>::gradient_above(size_t l, size_t s0) const {
  return l + 1 == s_.layers ? call_.dy : read_only(gradient_below(l + 1, s0));
}

// Gradient of the input of layer l.
template <class Real>
Plane<Real> BackwardPass<Real>::gradient_below(size_t l, size_t s0) const {
  if (l == 0) return call_.dx;
  Plane<Real> p = scratch_.between[(l - 1) % 2];
  p.row = s_.input_of(l);
  p.step = order_.batch() * p.row;
  p.t0 = s_.forward_only() ? s0 : 0;
  return p;
}

// Gradient of the directions' h side by side, where they are joined.
template <class Real>
Plane<Real> BackwardPass<Real>::raw(size_t s0) const {
  Plane<Real> p = scratch_.raw;
  p.t0 = s_.forward_only() ? s0 : 0;
  return p;
}

template <class Real>
BackwardTask<Real> BackwardPass<Real>::task_of(size_t l, size_t d, size_t block) const {
  const bool joins = joins_behind(l);
  BackwardTask<Real> task = {};
  task.l = l;
  task.d = d;
  task.s0 = blocks_.begin(block);
  task.s1 = blocks_.end(block);
  task.n_rows = blocks_.rows(task.s0, task.s1);
  task.dy = joins ? read_only(raw(task.s0)) : gradient_above(l, task.s0);
  if (task.dy) task.dy.base += d * s_.recurrent();
  task.dx = gradient_below(l, task.s0);
  task.add_dx = d == 1 || (joins && shortcut_around(l));
  return task;
}

template <class Real>
void BackwardPass<Real>::thread(const BackwardContext<Real>* passes, size_t rank) {
  Progress progress, in_team;
  Team all;
  all.rank = progress.rank = rank;
  all.size = plan_.threads();
  all.sharing = sharing_.get();
  all.progress = &progress;
  all.control = &control_;
  all.caller = rank == 0;
  Team team = plan_.units > 1 ? all : all.alone();
  if (!teams_.empty()) team = all.in_team(plan_.units, *teams_[rank / plan_.units], in_team);
  if (!(s_.forward_only() ? block_by_block(all, team, passes) : layer_by_layer(all, team, passes))) return;
  if (call_.dh0 && !initial_state(all, *passes)) return;
  // The last chance to stop, which the caller decides on: from here on its gradients change.
  if (!all.meet([](size_t thread) { return thread == 0; })) return;
  if (n_.direct)
    direct_gradients(all, passes, n_.block_rows);
  else
    unpack_gradients(all, *passes);
}

// Through all layers of a block, then of the next.
template <class Real>
bool BackwardPass<Real>::block_by_block(const Team& all, const Team& team, const BackwardContext<Real>* passes) {
  for (size_t i = 0; i < blocks_.count(); ++i)
    for (size_t l = s_.layers; l-- > 0;) {
      const BackwardTask<Real> task = task_of(l, 0, i);
      if (joins_behind(l) && !join(all, *passes, task)) return false;
      if (!backward_layer(all, team, passes[kept_block(l, 0)], task)) return false;
    }
  return true;
}

// Two directions, or one that reads backwards: through all blocks of a layer, then of the next.
template <class Real>
bool BackwardPass<Real>::layer_by_layer(const Team& all, const Team& team, const BackwardContext<Real>* passes) {
  for (size_t l = s_.layers; l-- > 0;) {
    for (size_t i = 0; joins_behind(l) && i < blocks_.count(); ++i)
      if (!join(all, *passes, task_of(l, 0, i))) return false;
    for (size_t d = 0; d < s_.directions; ++d)
      for (size_t i = 0; i < blocks_.count(); ++i)
        if (!backward_layer(all, team, passes[kept_block(l, d)], task_of(l, d, i))) return false;
  }
  return true;
}

// Backward through what lies behind a layer, and through its highway's weights. Leaves the layer's dy in raw().
template <class Real>
bool BackwardPass<Real>::join(const Team& all, const BackwardContext<Real>& pass, const BackwardTask<Real>& task) {
  if (!all.share(task.n_rows, [&](const Team& share) { join_rows(share, pass, task); })) return false;
  return !s_.highway(task.l) || highway_gradients(all, pass, task.l, task.n_rows);
}

template <class Real>
void BackwardPass<Real>::join_rows(const Team& all, const BackwardContext<Real>& pass, const BackwardTask<Real>& task) {
  const size_t l = task.l, O = s_.output(), below = s_.input_of(l);
  const bool last = l + 1 == s_.layers, dense = s_.options.shortcut == Shortcut::dense && !last;
  const bool reverse = s_.directions == 1 && s_.options.reverse;
  const Plane<const Real> above = gradient_above(l, task.s0);
  const Plane<Real> d_in = gradient_below(l, task.s0), d_raw = raw(task.s0);
  const size_t first = all.begin(task.n_rows), end = all.end(task.n_rows);
  Real* work = scratch_.threads[all.rank].join_work;
  JoinBackwardRow<Real> rows[kJoinRows];
  size_t n = 0;
  for (size_t s = task.s0; s < task.s1 && !control_.stopped(); ++s)
    for (size_t r = 0; r < order_.active_rows(s); ++r) {
      const size_t in_block = blocks_.row_in_block(task.s1, s, r);
      if (in_block < first || in_block >= end) continue;
      const size_t t = order_.time(r, s, reverse), i = order_.index(r), taped = tape_.rows.at(t, i);
      JoinBackwardRow<Real>& row = rows[n++];
      row = {};
      row.raw = tape_.y[l].data() + taped * s_.raw();
      row.in = tape_.input(l) + taped * below;
      row.d_raw = d_raw.at(t, i);
      if (above) row.d_to = above.at(t, i) + (dense ? below : 0);
      if (shortcut_around(l) && d_in) row.d_in = d_in.at(t, i);
      if (dense && above) row.d_head = above.at(t, i);
      if (!last && !tape_.masks.dropout.empty()) row.dropped = tape_.masks.dropout[l] + (t * order_.batch() + i) * O;
      if (s_.highway(l)) {
        row.transform = tape_.transform[l].data() + taped * O;
        row.d_gate = block_->d_gate + in_block * O;
        row.d_gate_panel = block_->gate_panels + in_block * w_.highway(l).shape.line();
        row.panel_stride = pass.panel_stride(w_.highway(l).shape);
        Real* x = block_->xh + in_block * n_.xh_stride;
        std::memcpy(x, row.in, O * sizeof(Real));
        x[O] = Real(1);
        block_->sources[in_block] = row.d_gate;
        block_->targets[in_block] = row.d_in;
      }
      if (n < kJoinRows) continue;
      join_backward(w_, l, rows, n, work);
      all.worked(kJoinBackwardFlops * double(n * O));
      n = 0;
    }
  if (n) join_backward(w_, l, rows, n, work);
}

}  // namespace

template <class Real>
bool backward(const BackwardCall<Real>& call) {
  const Tape<Real>& tape = *call.tape;
  const RowOrder order(tape.steps, tape.batch, tape.ragged ? tape.lengths.data() : nullptr);
  Control control(call.interrupted);
  return BackwardPass<Real>(call, order, control).run();
}

template bool backward<float>(const BackwardCall<float>&);
template bool backward<double>(const BackwardCall<double>&);

}  // namespace quadgate
