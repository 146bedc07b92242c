// A network with its state inside, fed a step or a few steps at a time.
#pragma once

#include "kernels/vec/inline.h"
#include "rnn/rows.h"
#include "rnn/team.h"
#include "rnn/weights.h"

namespace quadgate {

// One direction only. Not safe for concurrent use; the owner locks.
template <class Real>
class Stream {
 public:
  // State starts as zeros. All that a step needs is allocated here or by the first step with a number of threads.
  QG_SMALL Stream(const Sizes& sizes, size_t batch);

  // x: rows of (I), x_row elements apart; y: rows of (O) out, y_row apart. x and y must not overlap. The weights must
  // have this stream's sizes. resets: (T,B) bytes or null. cells: rows of (H) out, the last layer's c, or null. False
  // if interrupted; then, and when it throws, the state is as before.
  bool step(const Weights<Real>& weights, const Real* x, size_t x_row, Real* y, size_t y_row,
            Control::Callback interrupted);
  bool run(const Weights<Real>& weights, size_t steps, Plane<const Real> x, const unsigned char* resets, Plane<Real> y,
           Plane<Real> cells, Control::Callback interrupted);

  // mask: (B), or null for all rows: their state becomes zero.
  void reset(const bool* mask);

  // (L,B,R) and (L,B,H), valid until the next call that changes the state.
  const Real* h() const { return h_[now_].data(); }
  const Real* c() const { return c_[now_].data(); }
  void set(const Real* h, const Real* c);
  size_t batch() const { return batch_; }
  size_t h_size() const { return sizes_.layers * batch_ * sizes_.recurrent(); }
  size_t c_size() const { return sizes_.layers * batch_ * sizes_.cell(); }

 private:
  void choose_plans(const Weights<Real>& weights);

  Sizes sizes_;
  size_t batch_;
  Buffer<Real> h_[2], c_[2];  // now and next: a step that fails leaves `now` alone
  int now_ = 0;
  Buffer<char> compact_work_;         // of each thread of a step
  Buffer<ForwardRow<Real>> rows_[2];  // (L,B) for now_ = 0 and 1, complete but for x of layer 0 and y_copy of the last
  // For the number of threads, the cost of a start and the distance that calls had last: true if a step needs no pass,
  // and its plans for workers that sleep and for workers that are awake.
  int threads_asked_ = 0;
  double start_ = 0;
  unsigned starts_asked_ = 0;  // of sleeping_start_cycles
  bool far_ = false;
  bool only_cells_ = false;
  Plan plans_[2];
};

}  // namespace quadgate
