// The threads that share a piece of work, and the way to stop them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>

#include "parallel/barrier.h"
#include "parallel/cost.h"
#include "parallel/fork.h"

namespace quadgate {

// Stops a long call. The calling thread asks `interrupted` now and then; the others see the answer.
class Control {
 public:
  using Callback = bool (*)();
  explicit Control(Callback interrupted) : interrupted_(interrupted), generation_(ForkLock::this_generation()) {}

  bool others = false;  // true if threads beside the caller take part

  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

  // Called by rank 0 between pieces of work; `flops` is its work since the last call. Throws ForkedInCall where others
  // would be waited for that do not exist in this process.
  void poll(double flops) {
    if ((pending_ += flops) < kPollFlops || !interrupted_ || stopped()) return;
    const auto now = Clock::now();
    const bool first = last_ == Clock::time_point{}, much = pending_ >= kInterruptFlops;
    pending_ = 0;
    if (first ? !much : now - last_ < std::chrono::milliseconds(50)) {
      if (first) last_ = now;
      return;
    }
    last_ = now;
    if (interrupted_()) stop_.store(true, std::memory_order_relaxed);
    if (others && generation_ != ForkLock::this_generation()) throw ForkedInCall();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Callback interrupted_;
  const uint32_t generation_;
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

// Calls f(begin, end) over [begin, end) in slices of at most about kSliceFlops, checking in between for a stop.
template <class F>
bool sliced(const Team& team, size_t begin, size_t end, double flops_each, F&& f) {
  const size_t most = std::max<size_t>(1, size_t(std::min(kSliceFlops / (flops_each + 1), 1e9)));
  for (; begin < end; begin += std::min(most, end - begin)) {
    const size_t stop = begin + std::min(most, end - begin);
    f(begin, stop);
    team.worked(flops_each * double(stop - begin));
    if (stop < end && team.control->stopped()) return false;
  }
  return true;
}

}  // namespace quadgate
