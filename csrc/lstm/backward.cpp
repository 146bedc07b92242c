#include "backward.h"

#include <cstring>

#include "../machine.h"
#include "../pack.h"
#include "../plan.h"
#include "workspace.h"

namespace fourgate {
namespace {

// Rows go through the network's backward in blocks of steps, last steps first. For each block and layer: the time loop
// leaves the gates' gradients of all its rows in two layouts, then two plain products use them up: with [x, h, 1] for
// the weights, with weight_ih for the input's gradient, which is the dy of the layer below.
template <class T>
class Pass {
 public:
  Pass(const BackwardCall<T>& call, const RowOrder& order, Control& control)
      : call_(call), tape_(*call.tape), w_(*call.tape->weights), order_(order), control_(control) {}

  bool run();

 private:
  // Steps [s0, s1) of one layer and direction.
  struct Block {
    size_t l, d, s0, s1;
    size_t n_rows;      // steps of all rows in it
    Plane<const T> dy;  // may be null
    Plane<T> dx;        // may be null
    bool add_dx;
  };

  void prepare();
  void carve(Carver& carver);
  void thread(size_t rank);
  bool block(const Team& all, const Block& b);
  void time_loop(const Team& units, size_t row0, size_t row1, const Block& b);
  void weight_gradients(const Team& all, const Block& b);
  void input_gradient(const Team& all, const Block& b);
  void initial_state(const Team& all);
  void unpack(const Team& all);

  size_t state(size_t l, size_t d) const { return l * w_.sizes.directions + d; }
  // Where step s of row r (of the order) stands among the rows of a block.
  size_t row_in_block(const Block& b, size_t s, size_t r) const { return before_[s] - before_[b.s1 - 1] + r; }

  const BackwardCall<T>& call_;
  const Tape<T>& tape_;
  const Weights<T>& w_;
  const RowOrder& order_;
  Control& control_;
  Plan plan_;
  std::unique_ptr<Barrier> barrier_;
  std::vector<size_t> before_;       // rows of all steps later than s
  std::vector<size_t> block_steps_;  // bounds of the blocks, descending: T ... 0
  size_t block_rows_ = 0, xh_stride_ = 0;
  BackwardRow<T>* rows_ = nullptr;  // (threads, B)
  const T** sources_ = nullptr;     // (block_rows) operands of the back products
  T** targets_ = nullptr;           // (block_rows) and their results
  T* dg_ = nullptr;                 // (block_rows, 4H)
  T* panels_ = nullptr;             // (P, block_rows, 4, W)
  T* xh_ = nullptr;                 // (block_rows, xh_stride): x, h of the step before, 1
  std::vector<T*> carry_;           // per state (B, 4H): gates' gradient of the step after the block
  std::vector<T*> dw_;              // per state (P, I + H + 1, 4, W)
  std::vector<Plane<T>> between_;   // dx of the upper layers
};

template <class T>
bool Pass<T>::run() {
  prepare();
  const Sizes& s = w_.sizes;
  const bool empty = order_.steps() == 0 || order_.batch() == 0;
  w_.need_back();
  const Work work = {order_.steps(),   order_.batch(),      s.input,   s.hidden, s.layers, s.directions,
                     w_.kernels.width, w_.kernels.max_rows, sizeof(T), true};
  if (!empty) plan_ = choose_plan(work, size_t(get_num_threads()));
  Lease lease(int(plan_.threads()));
  if (size_t(lease.size()) < plan_.threads()) plan_ = choose_plan(work, size_t(lease.size()));
  const size_t threads = plan_.threads();
  if (threads > 1) barrier_ = std::make_unique<Barrier>(int(threads));

  // As many rows as keep the block's gradients in L2, but enough that reading and writing the packed weight gradient
  // once a block does not show.
  const size_t widest = std::max(s.input, s.layers > 1 ? s.output() : 0) + s.hidden + 1;
  const size_t line = 64 / sizeof(T);
  xh_stride_ = ((widest + line - 1) / line | 1) * line;  // an odd number of lines: a column does not fall into one set
  const size_t l2 = cache_sizes().l2 ? cache_sizes().l2 : size_t(1) << 20;
  const size_t row_bytes = (xh_stride_ + 8 * s.hidden) * sizeof(T);
  const size_t wanted = std::min<size_t>(1024, std::max<size_t>(512, l2 / 2 / row_bytes));
  const size_t steps = empty ? 0 : order_.steps();
  before_.assign(steps + 1, 0);
  for (size_t t = steps; t-- > 0;) before_[t] = t + 1 == steps ? 0 : before_[t + 1] + order_.alive(t + 1);
  const size_t n_blocks_of_steps = std::min(steps, (order_.total() + wanted - 1) / wanted);
  block_steps_.assign(1, steps);
  for (size_t i = 1; i <= n_blocks_of_steps; ++i) block_steps_.push_back(steps - steps * i / n_blocks_of_steps);
  for (size_t i = 0; i + 1 < block_steps_.size(); ++i) {
    size_t n = 0;
    for (size_t t = block_steps_[i + 1]; t < block_steps_[i]; ++t) n += order_.alive(t);
    block_rows_ = std::max(block_rows_, n);
  }

  WorkspaceLease memory;
  Carver count(nullptr);
  carve(count);
  Carver carver(memory.bytes(count.used()));
  carve(carver);
  const size_t W4 = 4 * w_.kernels.width;
  for (size_t l = 0; l < s.layers; ++l)
    for (size_t d = 0; d < s.directions; ++d)
      std::memset(static_cast<void*>(dw_[state(l, d)]), 0,
                  w_.blocks() * (s.input_of(l) + s.hidden + 1) * W4 * sizeof(T));

  if (threads == 1)
    thread(0);
  else
    lease.run([this, threads](int rank) {
      if (size_t(rank) < threads) thread(size_t(rank));
    });
  return !control_.stopped();
}

// dc runs in place on dc0; what no step reaches keeps the final state's gradient.
template <class T>
void Pass<T>::prepare() {
  const Sizes& s = w_.sizes;
  const size_t n = s.states() * order_.batch() * s.hidden;
  copy_or_zero(call_.dh, n, call_.dh0);
  copy_or_zero(call_.dc, n, call_.dc0);
  if (call_.dx) zero_padding(order_, tape_.steps, call_.dx, s.input);
}

template <class T>
void Pass<T>::carve(Carver& carver) {
  const Sizes& s = w_.sizes;
  const size_t W4 = 4 * w_.kernels.width, P = w_.blocks(), B = order_.batch();
  rows_ = carver.take<BackwardRow<T>>(plan_.threads() * B);
  sources_ = carver.take<const T*>(std::max(block_rows_, B));
  targets_ = carver.take<T*>(std::max(block_rows_, B));
  dg_ = carver.take<T>(block_rows_ * 4 * s.hidden);
  panels_ = carver.take<T>(block_rows_ * P * W4);
  xh_ = carver.take<T>(block_rows_ * xh_stride_);
  carry_.resize(s.states());
  dw_.resize(s.states());
  for (size_t l = 0; l < s.layers; ++l)
    for (size_t d = 0; d < s.directions; ++d) {
      carry_[state(l, d)] = carver.take<T>(B * 4 * s.hidden);
      dw_[state(l, d)] = carver.take<T>(P * (s.input_of(l) + s.hidden + 1) * W4);
    }
  // One direction passes a block down at a time; two need the whole sequence of the layer above.
  size_t most_steps = 0;
  for (size_t i = 0; i + 1 < block_steps_.size(); ++i)
    most_steps = std::max(most_steps, block_steps_[i] - block_steps_[i + 1]);
  between_.resize(s.layers > 1 ? 2 : 0);
  for (Plane<T>& plane : between_) {
    plane.row = s.output();
    plane.step = B * s.output();
    plane.base = carver.take<T>((s.directions == 1 ? most_steps : order_.steps()) * plane.step);
  }
}

template <class T>
void Pass<T>::thread(size_t rank) {
  const Sizes& s = w_.sizes;
  Team all;
  all.rank = rank;
  all.size = plan_.threads();
  all.barrier = barrier_.get();
  all.control = &control_;
  all.caller = rank == 0;
  const size_t n = block_steps_.size() - 1;
  auto dy_of = [&](size_t l) -> Plane<const T> {  // direction 0
    if (l + 1 == s.layers) return call_.dy;
    const Plane<T>& p = between_[l % 2];
    return {p.base, p.step, p.row, p.t0};
  };
  if (s.directions == 1) {
    for (size_t i = 0; i < n; ++i)
      for (size_t l = s.layers; l-- > 0;) {
        Block b = {l, 0, block_steps_[i + 1], block_steps_[i], 0, dy_of(l), {}, false};
        if (l + 1 < s.layers) b.dy.t0 = b.s0;
        b.dx = l == 0 ? call_.dx : between_[(l - 1) % 2];
        if (l > 0) b.dx.t0 = b.s0;
        if (!block(all, b)) return;
      }
  } else {
    for (size_t l = s.layers; l-- > 0;)
      for (size_t d = 0; d < 2; ++d)
        for (size_t i = 0; i < n; ++i) {
          Block b = {l, d, block_steps_[i + 1], block_steps_[i], 0, dy_of(l), {}, d == 1};
          if (b.dy) b.dy.base += d * s.hidden;
          b.dx = l == 0 ? call_.dx : between_[(l - 1) % 2];
          if (!block(all, b)) return;
        }
  }
  initial_state(all);
  if (!all.sync()) return;  // the last chance to stop: from here on the caller's gradients change
  unpack(all);
}

template <class T>
bool Pass<T>::block(const Team& all, const Block& given) {
  Block b = given;
  b.n_rows = before_[b.s0] + order_.alive(b.s0) - before_[b.s1 - 1];
  if (plan_.units > 1) {
    time_loop(all, 0, order_.batch(), b);
  } else {
    Team alone = all;
    alone.rank = 0;
    alone.size = 1;
    alone.barrier = nullptr;
    time_loop(alone, order_.part_begin(all.rank, plan_.rows), order_.part_begin(all.rank + 1, plan_.rows), b);
  }
  if (!all.sync()) return false;
  weight_gradients(all, b);
  if (b.dx && !control_.stopped()) input_gradient(all, b);
  // The step before this block continues from its first step.
  const size_t H4 = 4 * w_.sizes.hidden, n = order_.alive(b.s0);
  for (size_t r = all.begin(n); r < all.end(n); ++r)
    std::memcpy(carry_[state(b.l, b.d)] + r * H4, dg_ + row_in_block(b, b.s0, r) * H4, H4 * sizeof(T));
  return all.sync();
}

template <class T>
void Pass<T>::time_loop(const Team& units, size_t row0, size_t row1, const Block& b) {
  const size_t H = w_.sizes.hidden, W = w_.kernels.width, B = order_.batch(), D = w_.sizes.directions;
  const size_t I = w_.sizes.input_of(b.l), id = state(b.l, b.d), groups = n_groups(H, W);
  const bool reverse = b.d == 1;
  const T *gates = tape_.gates[id].data(), *cells = tape_.c[id].data();
  const T* y = tape_.y[b.l].data() + b.d * H;
  const T *h0 = tape_.h0.data() + id * B * H, *c0 = tape_.c0.data() + id * B * H;
  const T* x = b.l == 0 ? tape_.x.data() : tape_.y[b.l - 1].data();
  BackwardRow<T>* rows = rows_ + (plan_.units > 1 ? units.rank * B : row0);
  BackwardStep<T> step = {w_.layer(b.l, b.d).back_hh, H, rows, 0, 0, 0, block_rows_ * 4 * W, false};
  const double flops = 8.0 * double(H) * double(4 * W);

  for (size_t s = b.s1; s-- > b.s0;) {
    const size_t end = std::min(row1, std::max(row0, order_.alive(s)));
    const size_t continuing = std::min(end, std::max(row0, s + 1 < order_.steps() ? order_.alive(s + 1) : 0));
    for (size_t r = row0; r < end; ++r) {
      const size_t i = order_.index(r), t = order_.time(r, s, reverse), at = row_in_block(b, s, r);
      const size_t t_prev = reverse ? t + 1 : t - 1;  // of step s - 1
      BackwardRow<T>& row = rows[r - row0];
      row.dg_next = r >= continuing ? nullptr
                    : s + 1 == b.s1 ? carry_[id] + r * 4 * H
                                    : dg_ + row_in_block(b, s + 1, r) * 4 * H;
      row.dh = r >= continuing && call_.dh ? call_.dh + (id * B + i) * H : nullptr;
      row.dy = b.dy ? b.dy.at(t, i) : nullptr;
      row.gates = gates + (t * B + i) * 4 * H;
      row.c_prev = s == 0 ? c0 + i * H : cells + (t_prev * B + i) * H;
      row.c = cells + (t * B + i) * H;
      row.dc = call_.dc0 + (id * B + i) * H;
      row.dg = dg_ + at * 4 * H;
      row.dg_panel = panels_ + at * 4 * W;
      if (units.rank == 0) {  // the row of [x, h, 1] for the weight gradient
        T* xh = xh_ + at * xh_stride_;
        std::memcpy(xh, x + (t * B + i) * I, I * sizeof(T));
        std::memcpy(xh + I, s == 0 ? h0 + i * H : y + (t_prev * B + i) * D * H, H * sizeof(T));
        xh[I + H] = T(1);
      }
    }
    step.descending = s % 2;
    const std::pair<size_t, size_t> runs[2] = {{row0, continuing}, {continuing, end}};
    for (const auto& run : runs) {
      if (run.first >= run.second) continue;
      step.rows = rows + (run.first - row0);
      step.n_rows = run.second - run.first;
      sliced(units, units.begin(groups), units.end(groups), flops * double(step.n_rows), [&](size_t g0, size_t g1) {
        step.group_begin = g0;
        step.group_end = g1;
        w_.kernels.backward(step);
      });
    }
    if (!units.sync()) return;
  }
}

// Split over columns of [x, h, 1]. They are taken in slabs that stay in L2 while all panels of gradients pass by.
template <class T>
void Pass<T>::weight_gradients(const Team& all, const Block& b) {
  const size_t K = w_.sizes.input_of(b.l) + w_.sizes.hidden + 1, W = w_.kernels.width, m = w_.kernels.max_rows;
  const size_t tiles = (K + m - 1) / m, slab = std::max<size_t>(1, 96 / m);
  WeightGradient<T> g = {xh_, xh_stride_,  K, panels_, block_rows_ * 4 * W, b.n_rows, dw_[state(b.l, b.d)],
                         0,   w_.blocks(), 0, 0};
  const double flops = 8.0 * double(b.n_rows * W * std::min(m, K));
  for (size_t t = all.begin(tiles), end = all.end(tiles); t < end; t += slab) {
    g.tile_begin = t;
    g.tile_end = std::min(end, t + slab);
    const bool go = sliced(all, 0, w_.blocks(), flops * double(slab), [&](size_t begin, size_t stop) {
      g.block_begin = begin;
      g.block_end = stop;
      w_.kernels.weight_gradient(g);
    });
    if (!go) return;
  }
}

template <class T>
void Pass<T>::input_gradient(const Team& all, const Block& b) {
  const size_t I = w_.sizes.input_of(b.l), H = w_.sizes.hidden, W = w_.kernels.width;
  const size_t first = all.begin(b.n_rows), last = all.end(b.n_rows);
  for (size_t s = b.s0; s < b.s1; ++s)
    for (size_t r = 0; r < order_.alive(s); ++r) {
      const size_t at = row_in_block(b, s, r);
      if (at < first || at >= last) continue;
      sources_[at] = dg_ + at * 4 * H;
      targets_[at] = b.dx.at(order_.time(r, s, b.d == 1), order_.index(r));
    }
  if (first == last) return;
  BackProduct<T> p = {
      w_.layer(b.l, b.d).back_ih, H, I, sources_ + first, targets_ + first, last - first, 0, 0, b.add_dx};
  sliced(all, 0, n_groups(I, W), 8.0 * double(H * 4 * W) * double(p.n_rows), [&](size_t begin, size_t end) {
    p.group_begin = begin;
    p.group_end = end;
    w_.kernels.back_product(p);
  });
}

// dh0 = dgates of the first step @ weight_hh; rows without any step keep dh.
template <class T>
void Pass<T>::initial_state(const Team& all) {
  const size_t H = w_.sizes.hidden, W = w_.kernels.width, n = order_.alive(0), B = order_.batch();
  const size_t first = all.begin(n), last = all.end(n);
  if (first == last) return;
  for (size_t id = 0; id < w_.sizes.states(); ++id) {
    for (size_t r = first; r < last; ++r) {
      sources_[r] = carry_[id] + r * 4 * H;
      targets_[r] = call_.dh0 + (id * B + order_.index(r)) * H;
    }
    const PackedLayer<T>& layer = w_.layer(id / w_.sizes.directions, id % w_.sizes.directions);
    BackProduct<T> p = {layer.back_hh, H, H, sources_ + first, targets_ + first, last - first, 0, 0, false};
    const double flops = 8.0 * double(H * 4 * W) * double(p.n_rows);
    const bool go = sliced(all, 0, n_groups(H, W), flops, [&](size_t begin, size_t end) {
      p.group_begin = begin;
      p.group_end = end;
      w_.kernels.back_product(p);
    });
    if (!go) return;
  }
}

template <class T>
void Pass<T>::unpack(const Team& all) {
  const size_t H = w_.sizes.hidden, W = w_.kernels.width, P = w_.blocks();
  const size_t p0 = all.begin(P), p1 = all.end(P);
  for (size_t id = 0; id < w_.sizes.states(); ++id) {
    const ParameterGradients<T>& g = call_.gradients[id];
    const size_t I = w_.sizes.input_of(id / w_.sizes.directions), K = I + H + 1;
    unpack_panels(dw_[id], H, K, 0, I, W, p0, p1, call_.add, g.weight_ih);
    unpack_panels(dw_[id], H, K, I, H, W, p0, p1, call_.add, g.weight_hh);
    if (g.bias) unpack_panels(dw_[id], H, K, I + H, 1, W, p0, p1, call_.add, g.bias);
  }
}

}  // namespace

template <class T>
bool backward(const BackwardCall<T>& call) {
  const Tape<T>& tape = *call.tape;
  const RowOrder order(tape.steps, tape.batch, tape.ragged ? tape.lengths.data() : nullptr);
  Control control(call.interrupted);
  return Pass<T>(call, order, control).run();
}

template bool backward<float>(const BackwardCall<float>&);
template bool backward<double>(const BackwardCall<double>&);

}  // namespace fourgate
