// What the time loops of both passes share: where rows lie, in which order they run, and how a call is interrupted.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "parallel/barrier.h"
#include "parallel/pool.h"

namespace quadgate {

// A sequence of rows in memory: step t of batch row b starts at base + (t - t0) * step + b * row, its elements
// adjacent.
template <class Real>
struct Plane {
  Real* base = nullptr;
  size_t step = 0, row = 0, t0 = 0;
  Real* at(size_t t, size_t b) const { return base + (t - t0) * step + b * row; }
  explicit operator bool() const { return base != nullptr; }
};

// Batch rows in the order in which they run: longest first, so that the rows alive at a step are always a prefix.
class RowOrder {
 public:
  // lengths: (batch), each at most `steps`, or null: all rows have `steps` steps. Not kept.
  RowOrder(size_t steps, size_t batch, const int64_t* lengths) : steps_(steps), batch_(batch), total_(steps * batch) {
    if (!lengths) return;
    index_.resize(batch);
    std::iota(index_.begin(), index_.end(), size_t(0));
    std::stable_sort(index_.begin(), index_.end(), [&](size_t a, size_t b) { return lengths[a] > lengths[b]; });
    length_.resize(batch);
    alive_.assign(steps, 0);
    total_ = 0;
    for (size_t r = 0; r < batch; ++r) {
      length_[r] = size_t(lengths[index_[r]]);
      total_ += length_[r];
      if (length_[r]) ++alive_[length_[r] - 1];
    }
    for (size_t s = steps; s-- > 1;) alive_[s - 1] += alive_[s];
    steps_ = batch ? length_[0] : 0;
  }
  size_t steps() const { return steps_; }  // of the longest row
  size_t batch() const { return batch_; }
  size_t total() const { return total_; }  // steps of all rows together
  bool ragged() const { return !length_.empty(); }
  size_t index(size_t r) const { return index_.empty() ? r : index_[r]; }
  size_t length(size_t r) const { return length_.empty() ? steps_ : length_[r]; }
  // How many rows have a step s.
  size_t alive(size_t s) const { return alive_.empty() ? (s < steps_ ? batch_ : 0) : (s < steps_ ? alive_[s] : 0); }
  // The time of step s of row r: a reverse pass starts at the row's own end.
  size_t time(size_t r, size_t s, bool reverse) const { return reverse ? length(r) - 1 - s : s; }

  // First row of part i of n: parts of about equal work, whose rows lie next to each other in the order.
  size_t part_begin(size_t i, size_t n) const {
    if (!ragged()) return batch_ * i / n;
    size_t r = 0, sum = 0;
    while (r < batch_ && sum * n < total_ * i) sum += length_[r++];
    return i == n ? batch_ : r;
  }

 private:
  size_t steps_, batch_, total_;
  std::vector<size_t> index_, length_, alive_;
};

// n elements of an array that may be absent, which stands for zeros.
template <class Real>
void copy_or_zero(const Real* from, size_t n, Real* to) {
  if (from)
    std::copy(from, from + n, to);
  else
    std::fill(to, to + n, Real(0));
}

// Zeros for the steps that lie past each row's length; `width` elements a step.
template <class Real>
void zero_padding(const RowOrder& order, size_t steps, const Plane<Real>& plane, size_t width) {
  if (!order.ragged()) return;
  for (size_t r = 0; r < order.batch(); ++r)
    for (size_t t = order.length(r); t < steps; ++t) copy_or_zero<Real>(nullptr, width, plane.at(t, order.index(r)));
}

// Lets a long call be stopped. The calling thread asks `interrupted` now and then; the others see the answer.
class Control {
 public:
  using Callback = bool (*)();
  explicit Control(Callback interrupted) : interrupted_(interrupted) {}

  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

  // Called by rank 0 between pieces of work; `flops` is what it has done since the last call.
  void poll(double flops) {
    if ((pending_ += flops) < kFlopsBetweenLooks || !interrupted_ || stopped()) return;
    const auto now = Clock::now();
    const bool first = last_ == Clock::time_point{}, much = pending_ >= kFlopsMuch;
    pending_ = 0;
    if (first ? !much : now - last_ < std::chrono::milliseconds(50)) {
      if (first) last_ = now;
      return;
    }
    last_ = now;
    if (interrupted_()) stop_.store(true, std::memory_order_relaxed);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr double kFlopsBetweenLooks = 2e6;  // 10 us at full speed, a few ms at the slowest
  static constexpr double kFlopsMuch = 1e8;          // the same for the time between two questions
  Callback interrupted_;
  Clock::time_point last_{};  // the clock is first read when there has been work: a short call is over by then
  double pending_ = 0;
  std::atomic<bool> stop_{false};
};

// One thread's place among those that share a piece of work.
struct Team {
  size_t rank = 0, size = 1;
  Barrier* barrier = nullptr;  // of `size` threads; null when size is 1
  Control* control = nullptr;
  bool caller = true;  // runs on the thread that made the call

  // False once the call is to stop: all members of the team get the same answer.
  bool sync() const { return barrier ? !barrier->wait(control->stopped()) : !control->stopped(); }
  void worked(double flops) const {
    if (caller) control->poll(flops);
  }
  size_t begin(size_t n) const { return n * rank / size; }
  size_t end(size_t n) const { return n * (rank + 1) / size; }
};

// Calls f(begin, end) over [begin, end) in slices of at most about kSliceFlops, asking in between whether to stop.
template <class F>
bool sliced(const Team& team, size_t begin, size_t end, double flops_each, F&& f) {
  constexpr double kSliceFlops = 4e9;
  const size_t most = std::max<size_t>(1, size_t(std::min(kSliceFlops / (flops_each + 1), 1e9)));
  for (; begin < end; begin += std::min(most, end - begin)) {
    const size_t stop = begin + std::min(most, end - begin);
    f(begin, stop);
    team.worked(flops_each * double(stop - begin));
    if (stop < end && team.control->stopped()) return false;
  }
  return true;
}

// Hands out aligned pieces of one block of memory. Past its end it goes on counting, and gives null.
class Carver {
 public:
  Carver(char* base, size_t size) : base_(base), size_(size) {}
  template <class Real>
  Real* take(size_t n) {
    const size_t at = used_;
    used_ = checked(used_, n, sizeof(Real));
    return used_ <= size_ ? reinterpret_cast<Real*>(base_ + at) : nullptr;
  }
  size_t used() const { return used_; }

 private:
  static size_t checked(size_t used, size_t n, size_t size) {
    if (n > (SIZE_MAX / 2 - used) / size) throw std::bad_alloc();
    return (used + n * size + 63) / 64 * 64;
  }
  char* base_;
  size_t size_, used_ = 0;
};

}  // namespace quadgate
