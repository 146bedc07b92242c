#include <cstring>

#include "cpu/caches.h"
#include "parallel/plan.h"
#include "parallel/pool.h"
#include "rnn/forward/forward.h"
#include "rnn/forward/layer.h"
#include "rnn/join.h"
#include "rnn/scratch.h"

namespace quadgate {
namespace {

template <class Real>
class Pass {
 public:
  Pass(const ForwardCall<Real>& call, const RowOrder& order, Control& control)
      : call_(call), w_(*call.weights), s_(w_.sizes), order_(order), control_(control) {}

  bool run();

 private:
  // A thread's share of the call: which part of the rows, which direction, and which of the threads of its part it is.
  struct Place {
    size_t rank, part, in_part, direction, row0, row1;
  };

  Place place_of(size_t rank) const;
  void thread(size_t rank);
  const Masks* masks() const { return call_.tape ? &call_.tape->masks : nullptr; }
  void prepare_outputs();
  void finish_outputs();
  void choose_chunk();
  void carve(Carver& carver);
  void make_barriers();
  Barrier* part_barrier(const Place& at) const { return threads_ > 1 ? part_barriers_[at.part].get() : nullptr; }
  void chunks(const Team& team, const Place& at);
  void directions(const Team& team, const Place& at);
  bool layer(const Team& team, const Place& at, size_t l, size_t d, size_t s0, size_t s1, size_t parity);
  void join(const Team& team, const Place& at, size_t l, size_t s0, size_t s1, size_t parity);
  Plane<Real> raw_of(size_t l, size_t s0, size_t parity) const;
  Plane<Real> above(size_t l, size_t s0, size_t parity) const;
  Plane<const Real> input_of(size_t l, size_t s0, size_t parity) const;

  const ForwardCall<Real>& call_;
  const Weights<Real>& w_;
  const Sizes& s_;
  const RowOrder& order_;
  Control& control_;
  Plan plan_;
  size_t threads_ = 1;
  size_t chunk_ = 0;        // steps that all layers do before the next ones (one direction)
  Scratch<Real>* scratch_;  // by thread
  Plane<Real>* between_;    // what lower layers give to the next, two for each
  Plane<Real>* raw_;        // outputs of the layers that are joined before they are given on
  // By part of the rows, and by part and direction; null for a single thread. With one thread in all there are none.
  std::vector<std::unique_ptr<Barrier>> part_barriers_, unit_barriers_;
};

template <class Real>
bool Pass<Real>::run() {
  prepare_outputs();
  if (order_.steps() == 0 || order_.batch() == 0) return true;
  const Work work = work_of(w_, order_.steps(), order_.batch(), false);
  plan_ = choose_plan(work, size_t(get_num_threads()));
  Lease lease(int(plan_.threads()));
  if (size_t(lease.size()) < plan_.threads()) plan_ = choose_plan(work, size_t(lease.size()));
  threads_ = plan_.threads();
  choose_chunk();

  ScratchLease memory;
  memory.carve([this](Carver& carver) { carve(carver); });
  if (threads_ == 1) {
    thread(0);
  } else {
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
void Pass<Real>::prepare_outputs() {
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

// With a tape, its c is what the layers wrote.
template <class Real>
void Pass<Real>::finish_outputs() {
  if (!call_.tape || !call_.cells) return;
  const size_t H = s_.cell(), D = s_.directions;
  for (size_t d = 0; d < D; ++d) {
    const Real* from = call_.tape->c[(s_.layers - 1) * D + d].data();
    for (size_t r = 0; r < order_.batch(); ++r)
      for (size_t t = 0, b = order_.index(r); t < order_.length(r); ++t)
        std::memcpy(call_.cells.at(t, b) + d * H, from + (t * call_.batch + b) * H, H * sizeof(Real));
  }
}

// Long enough to fill the tiles of the input product, short enough that a chunk's outputs are still in L2. Steps are
// times where chunks are used at all: not where a layer reads backwards.
template <class Real>
void Pass<Real>::choose_chunk() {
  chunk_ = order_.steps();
  if (!s_.forward_only() || s_.layers == 1) return;
  const size_t row_bytes = order_.batch() * s_.output() * sizeof(Real);
  size_t fit = std::max(l2_bytes() / 4 / row_bytes, size_t(48) / order_.batch());
  if (plan_.layers > 1) fit = std::min(fit, order_.steps() / 16);
  chunk_ = std::min(chunk_, std::max<size_t>(1, fit));
}

template <class Real>
void Pass<Real>::carve(Carver& carver) {
  const size_t widest = std::max(s_.input, s_.input_of(s_.layers - 1));
  scratch_ = carver.take<Scratch<Real>>(threads_);
  Scratch<Real> own, leader;
  for (size_t i = 0, unit = 0; i < threads_; ++i, unit = unit + 1 < plan_.units ? unit + 1 : 0) {
    const Place at = place_of(i);
    own = carve_scratch(carver, w_, call_.tape, widest, at.row1 - at.row0, chunk_, call_.resets,
                        unit ? &leader : nullptr);
    if (unit == 0) leader = own;
    if (scratch_) scratch_[i] = own;
  }
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
  between_ = carver.take<Plane<Real>>(n);
  for (size_t i = 0; i < n; ++i) {
    const Plane<Real> p = plane(s_.input_of(one ? i / 2 + 1 : s_.layers - 1));
    if (between_) between_[i] = p;
  }
  const size_t joined = !s_.joined() ? 0 : one ? s_.layers : 1;
  raw_ = carver.take<Plane<Real>>(joined);
  for (size_t i = 0; i < joined; ++i) {
    const Plane<Real> p = plane(s_.raw());
    if (raw_) raw_[i] = p;
  }
}

template <class Real>
void Pass<Real>::make_barriers() {
  const size_t in_part = threads_ / plan_.rows;
  for (size_t i = 0; i < plan_.rows; ++i) {
    part_barriers_.push_back(in_part > 1 ? std::make_unique<Barrier>(int(in_part)) : nullptr);
    for (size_t d = 0; d < plan_.directions; ++d)
      unit_barriers_.push_back(plan_.units > 1 ? std::make_unique<Barrier>(int(plan_.units)) : nullptr);
  }
}

template <class Real>
typename Pass<Real>::Place Pass<Real>::place_of(size_t rank) const {
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
void Pass<Real>::thread(size_t rank) {
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
    chunks(team, at);
  else
    directions(team, at);
}

// One direction: a chunk of steps goes through all layers before the next, so that what lies between layers stays in
// cache and does not grow with T. With layers split over threads, thread j works one chunk behind thread j - 1.
template <class Real>
void Pass<Real>::chunks(const Team& team, const Place& at) {
  const size_t layer_rank = plan_.layers > 1 ? at.in_part : 0;
  const size_t L = s_.layers, n = (order_.steps() + chunk_ - 1) / chunk_;
  const size_t first = L * layer_rank / plan_.layers, last = L * (layer_rank + 1) / plan_.layers;
  Barrier* barrier = part_barrier(at);
  for (size_t phase = 0; phase < n + plan_.layers - 1; ++phase) {
    bool go = true;
    if (phase >= layer_rank && phase - layer_rank < n) {
      const size_t c = phase - layer_rank, s0 = c * chunk_, s1 = std::min(order_.steps(), s0 + chunk_);
      for (size_t l = first; go && l < last; ++l) {
        go = layer(team, at, l, 0, s0, s1, c % 2);
        if (!go || !joins_behind(s_, l, masks())) continue;
        join(team, at, l, s0, s1, c % 2);
        if (team.size > 1) go = team.sync();
      }
    }
    if (plan_.layers > 1) go = !barrier->wait(control_.stopped());
    if (!go) return;
  }
}

// Two directions: a layer needs the whole of the one below.
template <class Real>
void Pass<Real>::directions(const Team& team, const Place& at) {
  Team all = team;  // of this part
  all.size = threads_ / plan_.rows;
  all.rank = at.in_part;
  all.barrier = part_barrier(at);
  for (size_t l = 0; l < s_.layers; ++l) {
    bool go = true;
    for (size_t d = 0; go && d < 2; ++d)
      if (plan_.directions == 1 || d == at.direction) go = layer(team, at, l, d, 0, order_.steps(), l % 2);
    if (all.barrier) go = !all.barrier->wait(control_.stopped());
    if (go && joins_behind(s_, l, masks())) {
      join(all, at, l, 0, order_.steps(), l % 2);
      go = all.sync();
    }
    if (!go) return;
  }
}

// What a layer's directions write: side by side, at d * R each.
template <class Real>
Plane<Real> Pass<Real>::raw_of(size_t l, size_t s0, size_t parity) const {
  if (call_.tape) return {call_.tape->y[l].data(), call_.batch * s_.raw(), s_.raw(), 0};
  if (!s_.joined()) return above(l, s0, parity);
  Plane<Real> plane = raw_[s_.directions == 1 ? l : 0];
  plane.t0 = s_.directions == 1 ? s0 : 0;
  return plane;
}

// Where the next layer finds its input, or y; a chunk's buffer starts with the chunk's first step.
template <class Real>
Plane<Real> Pass<Real>::above(size_t l, size_t s0, size_t parity) const {
  if (l + 1 == s_.layers) return call_.y;
  const size_t width = s_.input_of(l + 1);
  if (call_.tape) {
    Buffer<Real>& in = call_.tape->in[l + 1];
    return {in.size() ? in.data() : call_.tape->y[l].data(), call_.batch * width, width, 0};
  }
  Plane<Real> plane = between_[s_.directions == 1 ? l * 2 + parity : l % 2];
  plane.t0 = s_.directions == 1 ? s0 : 0;
  return plane;
}

template <class Real>
Plane<const Real> Pass<Real>::input_of(size_t l, size_t s0, size_t parity) const {
  if (l == 0) return call_.x;
  const Plane<Real> below = above(l - 1, s0, parity);
  return {below.base, below.step, below.row, below.t0};
}

template <class Real>
bool Pass<Real>::layer(const Team& team, const Place& at, size_t l, size_t d, size_t s0, size_t s1, size_t parity) {
  const size_t D = s_.directions, R = s_.recurrent(), H = s_.cell(), B = call_.batch;
  const bool last = l + 1 == s_.layers, joined = joins_behind(s_, l, masks());
  LayerSteps<Real> task;  // all of it is set below
  task.weights = &w_.layer(l, d);
  task.state = l * D + d;
  task.reverse = s_.reverse(d);
  task.steps = call_.steps;
  task.batch = B;
  task.in = input_of(l, s0, parity);
  task.out = raw_of(l, s0, parity);
  task.out.base += d * R;
  if (call_.tape && last && !joined) {
    task.copy = call_.y;
    task.copy.base += d * R;
  }
  task.h = call_.h + task.state * B * R;
  task.c = call_.c + task.state * B * H;
  if (call_.tape && H) {
    task.cells = {call_.tape->c[task.state].data(), B * H, H, 0};
  } else if (call_.cells && last) {
    task.cells = call_.cells;
    task.cells.base += d * H;
  }
  task.tape = call_.tape;
  task.resets = call_.resets;
  task.resets_step = call_.resets_step;
  task.resets_row = call_.resets_row;
  task.row0 = at.row0;
  task.row1 = at.row1;
  task.s0 = s0;
  task.s1 = s1;
  return forward_layer(team, w_, order_, task, scratch_[at.rank]);
}

// What lies behind layer l, for this thread's share of its part's rows.
template <class Real>
void Pass<Real>::join(const Team& team, const Place& place, size_t l, size_t s0, size_t s1, size_t parity) {
  const Plane<Real> raw = raw_of(l, s0, parity), to = above(l, s0, parity);
  const Plane<const Real> in = input_of(l, s0, parity);
  const bool last = l + 1 == s_.layers, dense = s_.options.shortcut == Shortcut::dense && !last;
  const size_t O = s_.output(), row0 = place.row0, row1 = place.row1;
  const bool reverse = s_.directions == 1 && s_.options.reverse;
  JoinRow<Real> rows[kJoinRows];
  size_t n = 0;
  for (size_t s = s0 + team.begin(s1 - s0); s < s0 + team.end(s1 - s0); ++s)
    for (size_t r = row0; r < std::min(row1, order_.active_rows(s)); ++r) {
      const size_t t = order_.time(r, s, reverse), b = order_.index(r), at = t * call_.batch + b;
      JoinRow<Real>& row = rows[n++];
      row = {raw.at(t, b), in.at(t, b), to.at(t, b), nullptr, nullptr, nullptr};
      if (dense) {
        row.head = row.to;
        row.to += s_.input_of(l);
      }
      if (call_.tape && s_.highway(l)) row.transform = call_.tape->transform[l].data() + at * O;
      if (masks() && !last && !masks()->dropout.empty()) row.dropped = masks()->dropout[l] + at * O;
      if (n < kJoinRows) continue;
      join_forward(w_, l, rows, n, scratch_[place.rank].join_work);
      team.worked((s_.highway(l) ? 2.0 * double(O) : 4.0) * double(n * O));
      if (control_.stopped()) return;
      n = 0;
    }
  if (n) join_forward(w_, l, rows, n, scratch_[place.rank].join_work);
}

}  // namespace

template <class Real>
bool forward(const ForwardCall<Real>& call) {
  const RowOrder order(call.steps, call.batch, call.lengths);
  Control control(call.interrupted);
  return Pass<Real>(call, order, control).run();
}

template bool forward<float>(const ForwardCall<float>&);
template bool forward<double>(const ForwardCall<double>&);

}  // namespace quadgate
