#include "rnn/stream.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "cpu/dispatch.h"
#include "parallel/pool.h"
#include "rnn/forward/forward.h"
#include "rnn/scratch.h"

namespace quadgate {

template <class Real>
Stream<Real>::Stream(const Sizes& sizes, size_t batch) : sizes_(sizes), batch_(batch) {
  const size_t R = sizes.recurrent(), H = sizes.cell();
  for (int i = 0; i < 2; ++i) {
    h_[i].resize_zero(checked_mul(sizes.layers, batch, R));
    c_[i].resize_zero(checked_mul(sizes.layers, batch, H));
    rows_[i].resize_discard(sizes.layers * batch);
  }
  if (sizes.compact()) {
    const bool quantized = sizes.options.weights == WeightType::int8;
    const size_t widest = std::max({sizes.input, sizes.input_of(sizes.layers - 1), R, sizes.hidden});
    compact_work_.resize_discard(compact_work_bytes(batch, quantized ? widest : 0, kernels().f32.width));
  }
  for (int now = 0; now < 2; ++now)
    for (size_t l = 0; l < sizes.layers; ++l)
      for (size_t b = 0; b < batch; ++b) {
        const size_t at = l * batch + b;
        ForwardRow<Real>& row = rows_[now][at];
        row = {};
        row.x = l ? h_[1 - now].data() + (at - batch) * R : nullptr;
        row.h = h_[now].data() + at * R;
        row.c_prev = c_[now].data() + at * H;
        row.y = h_[1 - now].data() + at * R;
        row.c = c_[1 - now].data() + at * H;
      }
}

// True if a step is best done by this thread alone and is no more than each layer's cells: it then needs no plan, no
// threads and no scratch memory.
template <class Real>
bool Stream<Real>::small(const Weights<Real>& w) {
  const int threads = get_num_threads();
  if (threads != threads_asked_) {
    small_ = !sizes_.two_passes() && !sizes_.joined() && sizes_.options.cell.zoneout_h == 0 &&
             forward_flops(sizes_, batch_) < kSmallStepFlops &&
             choose_plan(work_of(w, 1, batch_, Pass::inference), size_t(threads)).threads() == 1;
    threads_asked_ = threads;
  }
  return small_;
}

template <class Real>
bool Stream<Real>::step(const Weights<Real>& w, const Real* x, size_t x_row, Real* y, size_t y_row,
                        Control::Callback interrupted) {
  if (!small(w)) return run(w, 1, {x, 0, x_row, 0}, nullptr, {y, 0, y_row, 0}, {}, interrupted);
  ForwardRow<Real>* rows = rows_[now_].data();
  ForwardRow<Real>* last = rows + (sizes_.layers - 1) * batch_;
  for (size_t b = 0; b < batch_; ++b) {
    rows[b].x = x + b * x_row;
    last[b].y_copy = y + b * y_row;
  }
  std::optional<ScratchLease> memory;
  const Real* floats = nullptr;
  if (w.compact() && sizes_.options.weights != WeightType::int8) {
    memory.emplace();
    if (memory->of_thread()) floats = w.kept_floats(batch_, 1);
  }
  PackedLayer<Real> wide;
  for (size_t l = 0; l < sizes_.layers; ++l) {
    if (floats) wide = w.with_floats(l, 0, floats);
    const PackedLayer<Real>& p = floats ? wide : w.layer(l, 0);
    ForwardStep<Real> step = {};
    step.bias = p.ih.bias;
    step.input_size = p.ih.n_k;
    step.hidden_size = sizes_.hidden;
    step.recurrent_size = sizes_.recurrent();
    step.rows = rows + l * batch_;
    step.n_rows = batch_;
    step.block_end = w.blocks();
    step.descending = now_ == 1;
    step.options = w.cell_options();
    step.peephole = p.peephole;
    w.forward(p, step, compact_work_.data());
  }
  now_ = 1 - now_;
  return true;
}

template <class Real>
bool Stream<Real>::run(const Weights<Real>& w, size_t steps, Plane<const Real> x, const unsigned char* resets,
                       Plane<Real> y, Plane<Real> cells, Control::Callback interrupted) {
  ForwardCall<Real> call = {};
  call.weights = &w;
  call.steps = steps;
  call.batch = batch_;
  call.x = x;
  call.resets = resets;
  call.resets_step = batch_;
  call.resets_row = 1;
  call.h0 = h_[now_].data();
  call.c0 = c_[now_].data();
  call.y = y;
  call.cells = cells;
  call.h = h_[1 - now_].data();
  call.c = c_[1 - now_].data();
  call.interrupted = interrupted;
  const bool done = forward(call);
  if (done) now_ = 1 - now_;
  return done;
}

template <class Real>
void Stream<Real>::reset(const bool* mask) {
  const size_t R = sizes_.recurrent(), H = sizes_.cell();
  for (size_t l = 0; l < sizes_.layers; ++l)
    for (size_t b = 0; b < batch_; ++b) {
      if (mask && !mask[b]) continue;
      std::fill_n(h_[now_].data() + (l * batch_ + b) * R, R, Real(0));
      std::fill_n(c_[now_].data() + (l * batch_ + b) * H, H, Real(0));
    }
}

template <class Real>
void Stream<Real>::set(const Real* h, const Real* c) {
  std::copy(h, h + h_size(), h_[now_].data());
  std::copy(c, c + c_size(), c_[now_].data());
}

template class Stream<float>;
template class Stream<double>;

}  // namespace quadgate
