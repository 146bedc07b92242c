#include "rnn/stream.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "cpu/dispatch.h"
#include "parallel/pace.h"
#include "parallel/pool.h"
#include "rnn/forward/forward.h"
#include "rnn/one_step.h"
#include "rnn/scratch.h"

namespace quadgate {

template <class Real>
Stream<Real>::Stream(const Sizes& sizes, size_t batch) : sizes_(sizes), batch_(batch) {
  const size_t R = sizes.recurrent(), C = sizes.cell();
  for (int i = 0; i < 2; ++i) {
    h_[i].resize_zero(checked_mul(sizes.layers, batch, R));
    c_[i].resize_zero(checked_mul(sizes.layers, batch, C));
    rows_[i].resize_discard(sizes.layers * batch);
  }
  for (int now = 0; now < 2; ++now)
    for (size_t l = 0; l < sizes.layers; ++l)
      for (size_t b = 0; b < batch; ++b) {
        const size_t at = l * batch + b;
        ForwardRow<Real>& row = rows_[now][at];
        row = {};
        row.x = l ? h_[1 - now].data() + (at - batch) * R : nullptr;
        row.h = h_[now].data() + at * R;
        row.c_prev = c_[now].data() + at * C;
        row.y = h_[1 - now].data() + at * R;
        row.c = c_[1 - now].data() + at * C;
      }
}

template <class Real>
void Stream<Real>::choose_plans(const Weights<Real>& w) {
  const int threads = get_num_threads();
  const double start = sleeping_start_cycles(starts_asked_);
  const bool far = workers_are_far();
  if (threads == threads_asked_ && start == start_ && far == far_) return;
  threads_asked_ = 0;  // if there is no memory for them
  bool only = only_cells(sizes_, batch_);
  Work work = work_of_one_step(w, batch_);
  work.start = start;
  work.far = far;
  size_t most = 1;
  for (bool awake : {false, true}) {
    work.awake = awake;
    const Plan plan = plans_[awake] = choose_plan(work, size_t(threads));
    most = std::max(most, plan.threads());
    only &= rows_or_units(plan);
  }
  if (only) compact_work_.resize_discard(most * w.compact_work(batch_));
  only_cells_ = only;
  threads_asked_ = threads;
  start_ = start;
  far_ = far;
}

template <class Real>
bool Stream<Real>::step(const Weights<Real>& w, const Real* x, size_t x_row, Real* y, size_t y_row,
                        Control::Callback interrupted) {
  choose_plans(w);
  if (!only_cells_) return run(w, 1, {x, 0, x_row, 0}, nullptr, {y, 0, y_row, 0}, {}, interrupted);
  ForwardRow<Real>* rows = rows_[now_].data();
  ForwardRow<Real>* last = rows + (sizes_.layers - 1) * batch_;
  for (size_t b = 0; b < batch_; ++b) {
    rows[b].x = x + b * x_row;
    last[b].y_copy = y + b * y_row;
  }
  Pace pace;
  const Plan& plan = plans_[pace.follows_closely(plans_[0], plans_[1])];
  Lease lease(int(plan.threads()));
  std::optional<ScratchLease> memory;
  FloatWeights<Real> floats;
  if (w.compact() && sizes_.options.weights != WeightType::int8) {
    memory.emplace();
    if (memory->of_thread()) floats = w.kept_floats(reads_of_one_step(plan, batch_, false), true);
  }
  run_one_step<Real>({&w, rows, batch_, false, now_ == 1, floats, nullptr, compact_work_.data()}, plan, lease);
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
  call.stays = true;
  const bool done = forward(call);
  if (done) now_ = 1 - now_;
  return done;
}

template <class Real>
void Stream<Real>::reset(const bool* mask) {
  const size_t R = sizes_.recurrent(), C = sizes_.cell();
  for (size_t l = 0; l < sizes_.layers; ++l)
    for (size_t b = 0; b < batch_; ++b) {
      if (mask && !mask[b]) continue;
      std::fill_n(h_[now_].data() + (l * batch_ + b) * R, R, Real(0));
      std::fill_n(c_[now_].data() + (l * batch_ + b) * C, C, Real(0));
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
