#include "forward.h"

#include <cmath>
#include <cstring>

#include "../machine.h"
#include "../plan.h"
#include "workspace.h"

namespace fourgate {
namespace {

// One layer and direction over steps [s0, s1) of the rows [row0, row1) of the order.
template <class T>
struct LayerSteps {
  const PackedLayer<T>* weights;
  bool reverse;
  Plane<const T> in;
  Plane<T> out, copy;  // h goes to both; `copy` may be null
  T *h, *c;            // (B,H): the state before s0, replaced by that after the last step
  T *gates, *tape_c;   // dense (T,B,4,H) and (T,B,H) of the tape, or null
  size_t row0, row1, s0, s1;
};

// A thread's memory for LayerSteps.
template <class T>
struct Scratch {
  ForwardRow<T>* rows;  // (row1 - row0)
  const T** x;          // (pre_rows)
  T* pre;               // (pre_rows, P, 4, W); null: never project ahead. Shared by a team.
  size_t pre_rows;
};

template <class T>
class Pass {
 public:
  Pass(const ForwardCall<T>& call, const RowOrder& order, Control& control)
      : call_(call), w_(*call.weights), order_(order), control_(control) {}

  bool run();

 private:
  void thread(size_t rank);
  size_t part_of(size_t rank) const { return rank / (plan_.threads() / plan_.rows); }
  void prepare_outputs();
  void carve(Carver& carver);
  void chunks(const Team& team, size_t rank, size_t layer_rank);
  void directions(const Team& team, size_t rank, size_t direction_rank);
  bool layer(const Team& team, size_t rank, size_t l, size_t d, size_t s0, size_t s1, size_t parity);
  bool steps(const Team& team, const LayerSteps<T>& task, const Scratch<T>& scratch);
  bool project(const Team& team, const LayerSteps<T>& task, const Scratch<T>& scratch, size_t s0, size_t s1);

  const ForwardCall<T>& call_;
  const Weights<T>& w_;
  const RowOrder& order_;
  Control& control_;
  Plan plan_;
  size_t chunk_ = 0;                 // steps that all layers do before the next ones (one direction)
  std::vector<Scratch<T>> scratch_;  // by thread
  std::vector<Plane<T>> between_;    // outputs of the lower layers, two for each
  std::vector<std::unique_ptr<Barrier>> group_, team_;
};

// Whether the input products run ahead, many steps' rows at a time, or join each step's product as more k: the cheaper
// by cycles for one k of one block. Ahead saves reading weight_ih at every step and costs a detour through memory;
// within the step a narrow input's products run while the cell of the step before is waited for.
template <class T>
bool project_ahead(const Weights<T>& w, size_t input, size_t rows, size_t steps) {
  if (steps == 1 || rows == 0) return false;
  const CacheSizes& cache = cache_sizes();
  const double l1 = double(cache.l1d ? cache.l1d : 32 << 10), l2 = double(cache.l2 ? cache.l2 : 1 << 20);
  const double line = double(4 * w.kernels.width * sizeof(T)), blocks = double(w.blocks());
  const double I = double(input), H = double(w.sizes.hidden), R = double(rows);
  const double full = 2.0 * R;  // multiply-adds of whole tiles
  // One k of one block within the steps, where `width` k's take part: multiply-adds or reading from L1 or L2, and what
  // must come from beyond L2, which runs beside them but never quite.
  auto within = [&](double width) {
    const double bytes = width * line * blocks, tiles = std::ceil(R / double(w.kernels.max_rows));
    const double near = std::max(full, tiles * (bytes < 0.9 * l1 ? 2.5 : line / 45));
    const double far = bytes > 0.9 * l2 ? line / 8 * (1 - 0.8 * l2 / bytes) : 0;
    const bool crowded = 2 * width * line + R * width * sizeof(T) > 0.6 * l2;  // two panels and the rows
    return (std::max(near, far) + 0.35 * std::min(near, far)) * (crowded ? 1.08 : 1);
  };
  const double in_step = (I + H) * within(I + H);
  const double once = I * line / 8 / std::min(double(steps), std::max(3.0, 96 / R));  // weight_ih, read per chunk
  const double detour = 12 * R;
  return I * 1.07 * full + once * (I * line * blocks > l2) + detour + H * within(H) < in_step;
}

template <class T>
bool Pass<T>::run() {
  prepare_outputs();
  if (order_.steps() == 0 || order_.batch() == 0) return true;
  const Sizes& s = w_.sizes;
  const Work work = {order_.steps(),   order_.batch(),      s.input,   s.hidden, s.layers, s.directions,
                     w_.kernels.width, w_.kernels.max_rows, sizeof(T), false};
  plan_ = choose_plan(work, size_t(get_num_threads()));
  Lease lease(int(plan_.threads()));
  if (size_t(lease.size()) < plan_.threads()) plan_ = choose_plan(work, size_t(lease.size()));
  const size_t threads = plan_.threads();

  // Long enough to fill the tiles of the input product, short enough that a chunk's outputs are still in L2.
  const size_t row_bytes = order_.batch() * s.output() * sizeof(T);
  const size_t l2 = cache_sizes().l2 ? cache_sizes().l2 : size_t(1) << 20;
  chunk_ = order_.steps();
  if (s.directions == 1 && s.layers > 1) {
    size_t fit = std::max(l2 / 4 / row_bytes, size_t(48) / order_.batch());
    if (plan_.layers > 1) fit = std::min(fit, order_.steps() / 16);
    chunk_ = std::min(chunk_, std::max<size_t>(1, fit));
  }

  WorkspaceLease memory;
  scratch_.resize(threads);
  Carver count(nullptr);
  carve(count);
  Carver carver(memory.bytes(count.used()));
  carve(carver);

  for (size_t i = 0; i < plan_.rows; ++i) {
    const size_t group = threads / plan_.rows;
    group_.push_back(group > 1 ? std::make_unique<Barrier>(int(group)) : nullptr);
    for (size_t d = 0; d < plan_.directions; ++d)
      team_.push_back(plan_.units > 1 ? std::make_unique<Barrier>(int(plan_.units)) : nullptr);
  }
  if (threads == 1)
    thread(0);
  else
    lease.run([this, threads](int rank) {
      if (size_t(rank) < threads) thread(size_t(rank));
    });
  return !control_.stopped();
}

// States start as their initial values; outputs of steps that no row has are zero.
template <class T>
void Pass<T>::prepare_outputs() {
  const Sizes& s = w_.sizes;
  const size_t n = s.states() * order_.batch() * s.hidden;
  copy_or_zero(call_.h0, n, call_.h);
  copy_or_zero(call_.c0, n, call_.c);
  if (call_.tape) {
    copy_or_zero(call_.h0, n, call_.tape->h0.data());
    copy_or_zero(call_.c0, n, call_.tape->c0.data());
    for (size_t t = 0; t < call_.steps; ++t)
      for (size_t b = 0; b < call_.batch; ++b)
        std::memcpy(call_.tape->x.data() + (t * call_.batch + b) * s.input, call_.x.at(t, b), s.input * sizeof(T));
  }
  zero_padding(order_, call_.steps, call_.y, s.output());
}

template <class T>
void Pass<T>::carve(Carver& carver) {
  const Sizes& s = w_.sizes;
  const size_t W4 = 4 * w_.kernels.width;
  T* shared_pre = nullptr;
  for (size_t i = 0; i < scratch_.size(); ++i) {
    Scratch<T>& scratch = scratch_[i];
    const size_t part = part_of(i);
    const size_t rows = order_.part_begin(part + 1, plan_.rows) - order_.part_begin(part, plan_.rows);
    scratch.rows = carver.take<ForwardRow<T>>(rows);
    scratch.pre_rows = 0;
    scratch.pre = nullptr;
    if (!rows || !project_ahead(w_, std::max(s.input, s.input_of(s.layers - 1)), rows, chunk_)) continue;
    // About 96 rows, or a few steps: enough to read the weights rarely, little enough to stay in cache.
    scratch.pre_rows = std::min(rows * chunk_, std::max<size_t>(3, 96 / rows) * rows);
    scratch.x = carver.take<const T*>(scratch.pre_rows);
    if (plan_.units == 1 || i % plan_.units == 0) shared_pre = carver.take<T>(scratch.pre_rows * w_.blocks() * W4);
    scratch.pre = shared_pre;
  }
  if (call_.tape) return;
  const size_t buffers = s.directions == 1 ? 2 * (s.layers - 1) : std::min<size_t>(2, s.layers - 1);
  between_.resize(buffers);
  for (Plane<T>& plane : between_) {
    plane.row = s.output();
    plane.step = order_.batch() * s.output();
    plane.base = carver.take<T>(chunk_ * plane.step);
  }
}

template <class T>
void Pass<T>::thread(size_t rank) {
  const size_t part = part_of(rank), in_group = rank % (plan_.threads() / plan_.rows);
  const size_t direction = in_group / (plan_.units * plan_.layers);
  Team team;
  team.control = &control_;
  team.caller = rank == 0;
  if (plan_.units > 1) {
    team.rank = in_group % plan_.units;
    team.size = plan_.units;
    team.barrier = team_[part * plan_.directions + direction].get();
  }
  if (w_.sizes.directions == 1)
    chunks(team, rank, plan_.layers > 1 ? in_group : 0);
  else
    directions(team, rank, direction);
}

// One direction: a chunk of steps goes through all layers before the next, so that what lies between layers stays in
// cache and does not grow with T. With layers split over threads, thread j works one chunk behind thread j - 1.
template <class T>
void Pass<T>::chunks(const Team& team, size_t rank, size_t layer_rank) {
  const size_t L = w_.sizes.layers, n = (order_.steps() + chunk_ - 1) / chunk_;
  const size_t first = L * layer_rank / plan_.layers, last = L * (layer_rank + 1) / plan_.layers;
  Barrier* group = group_[part_of(rank)].get();
  for (size_t phase = 0; phase < n + plan_.layers - 1; ++phase) {
    bool go = true;
    if (phase >= layer_rank && phase - layer_rank < n) {
      const size_t c = phase - layer_rank, s0 = c * chunk_, s1 = std::min(order_.steps(), s0 + chunk_);
      for (size_t l = first; go && l < last; ++l) go = layer(team, rank, l, 0, s0, s1, c % 2);
    }
    if (plan_.layers > 1) go = !group->wait(control_.stopped());
    if (!go) return;
  }
}

// Two directions: a layer needs the whole of the one below.
template <class T>
void Pass<T>::directions(const Team& team, size_t rank, size_t direction_rank) {
  Barrier* group = group_[part_of(rank)].get();
  for (size_t l = 0; l < w_.sizes.layers; ++l) {
    bool go = true;
    for (size_t d = 0; go && d < 2; ++d)
      if (plan_.directions == 1 || d == direction_rank) go = layer(team, rank, l, d, 0, order_.steps(), l % 2);
    if (group) go = !group->wait(control_.stopped());
    if (!go) return;
  }
}

template <class T>
bool Pass<T>::layer(const Team& team, size_t rank, size_t l, size_t d, size_t s0, size_t s1, size_t parity) {
  const Sizes& s = w_.sizes;
  const size_t part = part_of(rank), D = s.directions, H = s.hidden;
  LayerSteps<T> task;
  task.weights = &w_.layer(l, d);
  task.reverse = d == 1;
  // Where the output of layer `at` lies; for a chunk, its buffer starts with the chunk's first step.
  auto output_of = [&](size_t at) -> Plane<T> {
    if (call_.tape) return {call_.tape->y[at].data(), call_.batch * s.output(), s.output(), 0};
    if (at + 1 == s.layers) return call_.y;
    Plane<T> plane = between_[D == 1 ? at * 2 + parity : at % 2];
    if (D == 1) plane.t0 = s0;
    return plane;
  };
  if (l == 0) {
    task.in = call_.x;
  } else {
    const Plane<T> below = output_of(l - 1);
    task.in = {below.base, below.step, below.row, below.t0};
  }
  task.out = output_of(l);
  task.out.base += d * H;
  if (call_.tape && l + 1 == s.layers) {
    task.copy = call_.y;
    task.copy.base += d * H;
  }
  const size_t state = (l * D + d) * call_.batch * H;
  task.h = call_.h + state;
  task.c = call_.c + state;
  task.gates = call_.tape ? call_.tape->gates[l * D + d].data() : nullptr;
  task.tape_c = call_.tape ? call_.tape->c[l * D + d].data() : nullptr;
  task.row0 = order_.part_begin(part, plan_.rows);
  task.row1 = order_.part_begin(part + 1, plan_.rows);
  task.s0 = s0;
  task.s1 = s1;
  return steps(team, task, scratch_[rank]);
}

// The input products of steps [s0, s1), for this thread's blocks, in the order in which the time loop takes the rows.
template <class T>
bool Pass<T>::project(const Team& team, const LayerSteps<T>& task, const Scratch<T>& scratch, size_t s0, size_t s1) {
  size_t n = 0;
  for (size_t s = s0; s < s1; ++s)
    for (size_t r = task.row0; r < std::min(task.row1, order_.alive(s)); ++r)
      scratch.x[n++] = task.in.at(order_.time(r, s, task.reverse), order_.index(r));
  Project<T> p = {
      task.weights->w_ih, task.weights->bias, task.weights->input, scratch.x, scratch.pre, n, w_.blocks(), 0, 0};
  const double flops = 8.0 * double(n * w_.kernels.width) * double(task.weights->input);
  return sliced(team, team.begin(w_.blocks()), team.end(w_.blocks()), flops, [&](size_t begin, size_t end) {
    p.block_begin = begin;
    p.block_end = end;
    w_.kernels.project(p);
  });
}

template <class T>
bool Pass<T>::steps(const Team& team, const LayerSteps<T>& task, const Scratch<T>& scratch) {
  const size_t H = w_.sizes.hidden, B = call_.batch, W = w_.kernels.width;
  const size_t block0 = team.begin(w_.blocks()), block1 = team.end(w_.blocks());
  const size_t u0 = block0 * W, u1 = std::min(H, block1 * W);  // this thread's units
  const bool ahead = scratch.pre && project_ahead(w_, task.weights->input, task.row1 - task.row0, task.s1 - task.s0);
  const ptrdiff_t sign = task.reverse ? -1 : 1;
  const ptrdiff_t x_step = sign * ptrdiff_t(task.in.step), y_step = sign * ptrdiff_t(task.out.step);
  const ptrdiff_t copy_step = sign * ptrdiff_t(task.copy.step), tape_step = sign * ptrdiff_t(B * H);
  auto alive = [&](size_t s) { return std::min(task.row1, std::max(task.row0, order_.alive(s))) - task.row0; };

  size_t n = alive(task.s0);
  for (size_t i = 0; i < n; ++i) {
    ForwardRow<T>& row = scratch.rows[i];
    const size_t r = task.row0 + i, b = order_.index(r), t = order_.time(r, task.s0, task.reverse);
    row.x = task.in.at(t, b);
    row.h = task.h + b * H;
    row.y = task.out.at(t, b);
    row.y2 = task.copy ? task.copy.at(t, b) : nullptr;
    row.c_prev = row.c = task.c + b * H;
    row.gates = nullptr;
    if (task.gates) {
      row.gates = task.gates + (t * B + b) * 4 * H;
      row.c = task.tape_c + (t * B + b) * H;
    }
  }

  ForwardStep<T> step = {};
  step.w_ih = task.weights->w_ih;
  step.w_hh = task.weights->w_hh;
  step.bias = task.weights->bias;
  step.input_size = task.weights->input;
  step.hidden_size = H;
  step.rows = scratch.rows;
  step.use_pre = ahead;
  // What L2 could keep for the backward pass is not worth a detour through memory; 16 MB is past it on any machine.
  step.large_tape = task.gates && call_.steps * B * 4 * H * sizeof(T) > size_t(16) << 20;
  // A sweep starts with the panels that the last one, perhaps another call's, has left in cache.
  static thread_local bool last_sweep = false;
  bool sweep = last_sweep;
  const size_t pre_stride = w_.blocks() * 4 * W;
  size_t projected = ahead ? task.s0 : SIZE_MAX;
  bool go = true;
  for (size_t s = task.s0; go && s < task.s1 && (n = alive(s)) > 0; ++s) {
    if (s == projected) {
      projected = std::min(task.s1, s + std::max<size_t>(1, scratch.pre_rows / n));
      if (!project(team, task, scratch, s, projected) && team.size == 1) return false;
      for (size_t i = 0; i < n; ++i) scratch.rows[i].pre = scratch.pre + i * pre_stride;
    }
    step.n_rows = n;
    step.descending = sweep = !sweep;
    const double flops = 8.0 * double(n * W) * double(H + (ahead ? 0 : task.weights->input));
    sliced(team, block0, block1, flops, [&](size_t begin, size_t end) {
      step.block_begin = begin;
      step.block_end = end;
      w_.kernels.forward(step);
    });
    go = team.sync();
    for (size_t i = 0; i < n; ++i) {
      ForwardRow<T>& row = scratch.rows[i];
      row.x += x_step;
      row.h = row.y;
      row.y += y_step;
      if (row.y2) row.y2 += copy_step;
      if (row.gates) {
        row.gates += 4 * tape_step;
        row.c_prev = row.c;
        row.c += tape_step;
      }
      if (ahead) row.pre += n * pre_stride;
    }
  }
  last_sweep = sweep;
  if (!go) return false;

  // Rows that ran leave their last h (and, with a tape, c) in the state; each thread copies its own units.
  for (size_t i = 0; i < alive(task.s0) && u0 < u1; ++i) {
    const size_t b = order_.index(task.row0 + i), n_bytes = (u1 - u0) * sizeof(T);
    const ForwardRow<T>& row = scratch.rows[i];
    std::memcpy(task.h + b * H + u0, row.h + u0, n_bytes);
    if (row.gates) std::memcpy(task.c + b * H + u0, row.c_prev + u0, n_bytes);
  }
  return team.size > 1 ? team.sync() : true;
}

}  // namespace

template <class T>
bool forward(const ForwardCall<T>& call) {
  const RowOrder order(call.steps, call.batch, call.lengths);
  Control control(call.interrupted);
  return Pass<T>(call, order, control).run();
}

template bool forward<float>(const ForwardCall<float>&);
template bool forward<double>(const ForwardCall<double>&);

}  // namespace fourgate
