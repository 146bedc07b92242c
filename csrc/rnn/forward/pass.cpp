#include <cstring>

#include "cpu/caches.h"
#include "parallel/plan.h"
#include "parallel/pool.h"
#include "rnn/forward/products.h"
#include "rnn/join.h"
#include "rnn/scratch.h"

namespace quadgate {
namespace {

template <class Real>
class ForwardPass {
 public:
  ForwardPass(const ForwardCall<Real>& call, const RowOrder& order, Control& control)
      : call_(call),
        w_(*call.weights),
        s_(w_.sizes),
        order_(order),
        control_(control),
        n_(sizes()),
        context_{call, w_, s_, order, n_} {}

  bool run();

 private:
  // A thread's share of the call: its part of the rows, its place among the threads of that part, its direction.
  struct Place {
    size_t rank, part, in_part, direction, row0, row1;
  };
  // A chunk of steps, and which of the two buffers behind a layer its outputs take.
  struct Chunk {
    size_t s0, s1, parity;
  };

  ForwardSizes sizes() const;
  void prepare_outputs();
  void finish_outputs();
  size_t chunk_steps() const;
  void carve(Carver& carver);
  void make_barriers();
  Place place_of(size_t rank) const;
  void thread(size_t rank);
  void one_direction(const Team& team, const Place& at);
  void two_directions(const Team& team, const Place& at);
  bool layer(const Team& team, const Place& at, size_t l, size_t d, const Chunk& chunk);
  void join(const Team& team, const Place& at, size_t l, const Chunk& chunk);
  Plane<Real> raw_of(size_t l, const Chunk& chunk) const;
  Plane<Real> output_of(size_t l, const Chunk& chunk) const;
  Plane<const Real> input_of(size_t l, const Chunk& chunk) const;
  const Masks* masks() const { return call_.tape ? &call_.tape->masks : nullptr; }
  bool joins_behind(size_t l) const { return quadgate::joins_behind(s_, l, masks()); }
  Barrier* part_barrier(const Place& at) const { return threads_ > 1 ? part_barriers_[at.part].get() : nullptr; }

  const ForwardCall<Real>& call_;
  const Weights<Real>& w_;
  const Sizes& s_;
  const RowOrder& order_;
  Control& control_;
  const ForwardSizes n_;
  const ForwardContext<Real> context_;
  Plan plan_;
  size_t threads_ = 1;
  size_t chunk_ = 0;  // steps that all layers do before the next ones (one direction)
  ForwardThreadScratch<Real>* thread_scratch_ = nullptr;  // by rank
  ForwardTeamScratch<Real>* team_scratch_ = nullptr;      // by team, of plan_.units neighbouring threads
  Plane<Real>* between_ = nullptr;  // outputs of lower layers, which are the next one's inputs; two for each
  Plane<Real>* raw_ = nullptr;      // outputs of the layers that are joined before they are given on
  // By part of the rows, and by part and direction; null for a single thread. With one thread in all there are none.
  std::vector<std::unique_ptr<Barrier>> part_barriers_, unit_barriers_;
};

template <class Real>
ForwardSizes ForwardPass<Real>::sizes() const {
  const Options& o = s_.options;
  const size_t W = w_.kernels.width;
  ForwardSizes n = {};
  n.hidden = s_.hidden;
  n.recurrent = s_.recurrent();
  n.gate_rows = s_.gates() * s_.hidden;
  n.taped = s_.taped();
  n.panel = w_.layer(0, 0).hh.row();
  n.hr_panel = o.projection ? w_.layer(0, 0).hr.row() : 0;
  n.norm = o.layer_norm != LayerNorm::none;
  n.norm_work = n.norm ? 2 * n_blocks(s_.hidden, W) * W : 0;
  n.join_work = o.shortcut == Shortcut::highway ? join_work(w_) : 0;
  n.projection = o.projection > 0;
  n.two_passes = s_.two_passes();
  n.masked = masks() && !masks()->recurrent.empty();
  n.extra = n.masked || o.cell.zoneout_h > 0 || o.cell.zoneout_c > 0;
  n.resets = call_.resets != nullptr;
  n.tape = call_.tape != nullptr;
  return n;
}

template <class Real>
bool ForwardPass<Real>::run() {
  prepare_outputs();
  if (order_.steps() == 0 || order_.batch() == 0) return true;
  const Work work = work_of(w_, order_.steps(), order_.batch(), false);
  plan_ = choose_plan(work, size_t(get_num_threads()));
  Lease lease(int(plan_.threads()));
  if (size_t(lease.size()) < plan_.threads()) plan_ = choose_plan(work, size_t(lease.size()));
  threads_ = plan_.threads();
  chunk_ = chunk_steps();

  ScratchLease memory;
  memory.carve([this](Carver& carver) { carve(carver); });
  if (threads_ == 1) {
    thread(0);
  } else {
    control_.others = true;
    make_barriers();
    lease.run([this](int rank) {
      if (size_t(rank) < threads_) thread(size_t(rank));
    });
  }
  if (control_.stopped()) return false;
  finish_outputs();
  return true;
}

// States start as their initial values; outputs of steps that no row has are zero.
template <class Real>
void ForwardPass<Real>::prepare_outputs() {
  const size_t rows = s_.states() * order_.batch(), n_h = rows * s_.recurrent(), n_c = rows * s_.cell();
  copy_or_zero(call_.h0, n_h, call_.h);
  copy_or_zero(call_.c0, n_c, call_.c);
  if (call_.tape) {
    copy_or_zero(call_.h0, n_h, call_.tape->h0.data());
    copy_or_zero(call_.c0, n_c, call_.tape->c0.data());
    for (size_t t = 0; t < call_.steps; ++t)
      for (size_t b = 0; b < call_.batch; ++b)
        std::memcpy(call_.tape->x.data() + (t * call_.batch + b) * s_.input, call_.x.at(t, b), s_.input * sizeof(Real));
  }
  zero_padding(order_, call_.steps, call_.y, s_.output());
  if (call_.cells) zero_padding(order_, call_.steps, call_.cells, s_.directions * s_.cell());
}

// With a tape, the layers wrote c there.
template <class Real>
void ForwardPass<Real>::finish_outputs() {
  if (!call_.tape || !call_.cells) return;
  const size_t H = s_.cell(), D = s_.directions;
  for (size_t d = 0; d < D; ++d) {
    const Real* from = call_.tape->c[(s_.layers - 1) * D + d].data();
    for (size_t r = 0; r < order_.batch(); ++r)
      for (size_t t = 0, b = order_.index(r); t < order_.length(r); ++t)
        std::memcpy(call_.cells.at(t, b) + d * H, from + (t * call_.batch + b) * H, H * sizeof(Real));
  }
}

// Long enough to fill the tiles of the input product, short enough that a chunk's outputs are still in L2. Chunking is
// used only when every layer runs forward in time, so that step index and time are equal.
template <class Real>
size_t ForwardPass<Real>::chunk_steps() const {
  const size_t steps = order_.steps();
  if (!s_.forward_only() || s_.layers == 1) return steps;
  const size_t row_bytes = order_.batch() * s_.output() * sizeof(Real);
  size_t fit = std::max(l2_bytes() / 4 / row_bytes, size_t(48) / order_.batch());
  if (plan_.layers > 1) fit = std::min(fit, steps / 16);
  return std::min(steps, std::max<size_t>(1, fit));
}

template <class Real>
void ForwardPass<Real>::carve(Carver& carver) {
  const size_t widest = std::max(s_.input, s_.input_of(s_.layers - 1));
  auto rows_of = [&](size_t rank) {
    const Place at = place_of(rank);
    return at.row1 - at.row0;
  };
  // About 96 rows, or a few steps: enough to read the weights rarely, little enough to stay in cache.
  auto pre_rows = [&](size_t rows) {
    if (!project_ahead(w_, widest, rows, chunk_)) return size_t(0);
    return std::min(rows * chunk_, std::max<size_t>(3, 96 / rows) * rows);
  };
  thread_scratch_ = carver.make<ForwardThreadScratch<Real>>(threads_, [&](size_t rank) {
    const size_t rows = rows_of(rank);
    return ForwardThreadScratch<Real>{carver, n_, rows, pre_rows(rows)};
  });
  team_scratch_ = carver.make<ForwardTeamScratch<Real>>(threads_ / plan_.units, [&](size_t team) {
    const size_t rows = rows_of(team * plan_.units);
    return ForwardTeamScratch<Real>{carver, n_, rows, pre_rows(rows)};
  });
  if (call_.tape) return;
  auto plane = [&](size_t width) {
    Plane<Real> p;
    p.row = width;
    p.step = order_.batch() * width;
    p.base = carver.take<Real>(chunk_ * p.step);
    return p;
  };
  const bool one = s_.directions == 1;
  const size_t n = one ? 2 * (s_.layers - 1) : std::min<size_t>(2, s_.layers - 1);
  between_ = carver.make<Plane<Real>>(n, [&](size_t i) { return plane(s_.input_of(one ? i / 2 + 1 : s_.layers - 1)); });
  raw_ = carver.make<Plane<Real>>(!s_.joined() ? 0 : one ? s_.layers : 1, [&](size_t) { return plane(s_.raw()); });
}

template <class Real>
void ForwardPass<Real>::make_barriers() {
  const size_t in_part = threads_ / plan_.rows;
  for (size_t i = 0; i < plan_.rows; ++i) {
    part_barriers_.push_back(in_part > 1 ? std::make_unique<Barrier>(int(in_part)) : nullptr);
    for (size_t d = 0; d < plan_.directions; ++d)
      unit_barriers_.push_back(plan_.units > 1 ? std::make_unique<Barrier>(int(plan_.units)) : nullptr);
  }
}

template <class Real>
typename ForwardPass<Real>::Place ForwardPass<Real>::place_of(size_t rank) const {
  if (threads_ == 1) return {0, 0, 0, 0, 0, order_.batch()};  // the divisions would show in a small call
  const size_t in_part = threads_ / plan_.rows, part = rank / in_part;
  return {rank,
          part,
          rank % in_part,
          rank % in_part / (plan_.units * plan_.layers),
          order_.part_begin(part, plan_.rows),
          order_.part_begin(part + 1, plan_.rows)};
}

template <class Real>
void ForwardPass<Real>::thread(size_t rank) {
  const Place at = place_of(rank);
  Team team;
  team.control = &control_;
  team.caller = rank == 0;
  if (plan_.units > 1) {
    team.rank = at.in_part % plan_.units;
    team.size = plan_.units;
    team.barrier = unit_barriers_[at.part * plan_.directions + at.direction].get();
  }
  if (s_.directions == 1)
    one_direction(team, at);
  else
    two_directions(team, at);
}

// A chunk of steps goes through all layers before the next, so that their outputs stay in cache and do not grow with T.
// With layers split over threads, thread j works one chunk behind thread j - 1.
template <class Real>
void ForwardPass<Real>::one_direction(const Team& team, const Place& at) {
  const size_t layer_rank = plan_.layers > 1 ? at.in_part : 0;
  const size_t L = s_.layers, n = (order_.steps() + chunk_ - 1) / chunk_;
  const size_t first = L * layer_rank / plan_.layers, last = L * (layer_rank + 1) / plan_.layers;
  Barrier* barrier = part_barrier(at);
  for (size_t phase = 0; phase < n + plan_.layers - 1; ++phase) {
    bool go = true;
    if (phase >= layer_rank && phase - layer_rank < n) {
      const size_t i = phase - layer_rank, s0 = i * chunk_;
      const Chunk chunk = {s0, std::min(order_.steps(), s0 + chunk_), i % 2};
      for (size_t l = first; go && l < last; ++l) {
        go = layer(team, at, l, 0, chunk);
        if (!go || !joins_behind(l)) continue;
        join(team, at, l, chunk);
        if (team.size > 1) go = team.sync();
      }
    }
    if (plan_.layers > 1) go = !barrier->wait(control_.stopped());
    if (!go) return;
  }
}

// A layer needs the whole of the one below.
template <class Real>
void ForwardPass<Real>::two_directions(const Team& team, const Place& at) {
  Team all = team;  // of this part
  all.size = threads_ / plan_.rows;
  all.rank = at.in_part;
  all.barrier = part_barrier(at);
  for (size_t l = 0; l < s_.layers; ++l) {
    const Chunk chunk = {0, order_.steps(), l % 2};
    bool go = true;
    for (size_t d = 0; go && d < 2; ++d)
      if (plan_.directions == 1 || d == at.direction) go = layer(team, at, l, d, chunk);
    if (all.barrier) go = !all.barrier->wait(control_.stopped());
    if (go && joins_behind(l)) {
      join(all, at, l, chunk);
      go = all.sync();
    }
    if (!go) return;
  }
}

// The output of a layer's directions: side by side, at d * R each.
template <class Real>
Plane<Real> ForwardPass<Real>::raw_of(size_t l, const Chunk& chunk) const {
  if (call_.tape) return {call_.tape->y[l].data(), call_.batch * s_.raw(), s_.raw(), 0};
  if (!s_.joined()) return output_of(l, chunk);
  Plane<Real> plane = raw_[s_.directions == 1 ? l : 0];
  plane.t0 = s_.directions == 1 ? chunk.s0 : 0;
  return plane;
}

// The input of the next layer, or y; a chunk's buffer starts with the chunk's first step.
template <class Real>
Plane<Real> ForwardPass<Real>::output_of(size_t l, const Chunk& chunk) const {
  if (l + 1 == s_.layers) return call_.y;
  const size_t width = s_.input_of(l + 1);
  if (call_.tape) {
    Buffer<Real>& in = call_.tape->in[l + 1];
    return {in.size() ? in.data() : call_.tape->y[l].data(), call_.batch * width, width, 0};
  }
  Plane<Real> plane = between_[s_.directions == 1 ? l * 2 + chunk.parity : l % 2];
  plane.t0 = s_.directions == 1 ? chunk.s0 : 0;
  return plane;
}

template <class Real>
Plane<const Real> ForwardPass<Real>::input_of(size_t l, const Chunk& chunk) const {
  return l == 0 ? call_.x : read_only(output_of(l - 1, chunk));
}

template <class Real>
bool ForwardPass<Real>::layer(const Team& team, const Place& at, size_t l, size_t d, const Chunk& chunk) {
  const size_t R = s_.recurrent(), H = s_.cell(), B = call_.batch, state = l * s_.directions + d;
  const bool last = l + 1 == s_.layers;
  ForwardTask<Real> task = {};
  task.l = l;
  task.d = d;
  task.s0 = chunk.s0;
  task.s1 = chunk.s1;
  task.row0 = at.row0;
  task.row1 = at.row1;
  task.in = input_of(l, chunk);
  task.out = raw_of(l, chunk);
  task.out.base += d * R;
  if (call_.tape && last && !joins_behind(l)) {
    task.copy = call_.y;
    task.copy.base += d * R;
  }
  if (call_.tape && H) {
    task.cells = {call_.tape->c[state].data(), B * H, H, 0};
  } else if (call_.cells && last) {
    task.cells = call_.cells;
    task.cells.base += d * H;
  }
  task.h = call_.h + state * B * R;
  task.c = call_.c + state * B * H;
  task.thread = thread_scratch_ + at.rank;
  task.team = team_scratch_ + at.rank / plan_.units;
  return forward_layer(team, context_, task);
}

// Merge, shortcut and dropout behind layer l, for this thread's share of its part's rows.
template <class Real>
void ForwardPass<Real>::join(const Team& team, const Place& place, size_t l, const Chunk& chunk) {
  const Plane<Real> raw = raw_of(l, chunk), to = output_of(l, chunk);
  const Plane<const Real> in = input_of(l, chunk);
  const bool last = l + 1 == s_.layers, dense = s_.options.shortcut == Shortcut::dense && !last;
  const bool reverse = s_.directions == 1 && s_.options.reverse;
  const size_t O = s_.output(), steps = chunk.s1 - chunk.s0;
  Real* work = thread_scratch_[place.rank].join_work;
  JoinRow<Real> rows[kJoinRows];
  size_t n = 0;
  for (size_t s = chunk.s0 + team.begin(steps); s < chunk.s0 + team.end(steps); ++s)
    for (size_t r = place.row0; r < std::min(place.row1, order_.active_rows(s)); ++r) {
      const size_t t = order_.time(r, s, reverse), b = order_.index(r), at = t * call_.batch + b;
      JoinRow<Real>& row = rows[n++];
      row = {};
      row.raw = raw.at(t, b);
      row.in = in.at(t, b);
      row.to = to.at(t, b);
      if (dense) {
        row.head = row.to;
        row.to += s_.input_of(l);
      }
      if (call_.tape && s_.highway(l)) row.transform = call_.tape->transform[l].data() + at * O;
      if (masks() && !last && !masks()->dropout.empty()) row.dropped = masks()->dropout[l] + at * O;
      if (n < kJoinRows) continue;
      join_forward(w_, l, rows, n, work);
      team.worked(s_.highway(l) ? product_flops(n, O, O) : kJoinFlops * double(n * O));
      if (control_.stopped()) return;
      n = 0;
    }
  if (n) join_forward(w_, l, rows, n, work);
}

}  // namespace

template <class Real>
bool forward(const ForwardCall<Real>& call) {
  const RowOrder order(call.steps, call.batch, call.lengths);
  Control control(call.interrupted);
  return ForwardPass<Real>(call, order, control).run();
}

template bool forward<float>(const ForwardCall<float>&);
template bool forward<double>(const ForwardCall<double>&);

}  // namespace quadgate
