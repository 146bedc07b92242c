// The threads that share a piece of work, and the way to stop them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <vector>

#include "parallel/cost.h"
#include "parallel/fork.h"
#include "parallel/pool.h"
#include "parallel/sharing.h"

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

// One thread's place among those that share a piece of work, and its share where that is cut beforehand.
struct Team {
  size_t rank = 0, size = 1;
  Sharing* sharing = nullptr;    // of `size` threads; null when size is 1
  Progress* progress = nullptr;  // of this thread in it
  Control* control = nullptr;
  bool caller = true;  // runs on the thread that made the call
  // The share: parts [first, last) of `of`.
  size_t first = 0, last = 1, of = 1;

  size_t begin(size_t n) const { return n * first / of; }
  size_t end(size_t n) const { return n * last / of; }
  // The same thread with a share of everything.
  Team whole() const {
    Team one = *this;
    one.first = 0;
    one.last = one.of = 1;
    return one;
  }
  // The same thread with the parts [begin, stop) of n.
  Team part(size_t begin, size_t stop, size_t n) const {
    Team some = *this;
    some.first = begin;
    some.last = stop;
    some.of = n;
    return some;
  }
  bool go() const { return !control->stopped(); }
  void worked(double flops) const {
    if (caller) control->poll(flops);
  }

  // The rest are phases of the team's work: all its threads call them in the same order with the same sizes. They
  // return when all of the phase is done, by whomever; false once the call is to stop.

  // f(share) for shares that make up the whole. n: into how many pieces the work can be cut at most. `taking`: `halves`
  // if a share takes so long that parts of it have time to begin.
  template <class F>
  bool share(size_t n, F&& f, Taking taking = Taking::any) const {
    if (size == 1 || n == 0) {
      if (n) f(*this);
      return go();
    }
    const size_t lanes = std::min(size, n), items = std::min(kItems, n / lanes);
    return sharing->phase(
        *progress, lanes, taking, [=](size_t) { return items; },
        [&](size_t lane, size_t begin, size_t end) {
          f(part(lane * items + begin, lane * items + end, lanes * items));
          return go();
        });
  }
  // one() by one of the threads, if `has_one`, and beside it f(share) for shares that make up the whole, if n > 0. one
  // returns false once the call is to stop, and its thread helps with the shares afterwards. Requires size > 1.
  template <class One, class F>
  bool beside(bool has_one, One&& one, size_t n, F&& f) const {
    const size_t ones = has_one, lanes = std::min(size - ones, n), items = lanes ? std::min(kItems, n / lanes) : 0;
    return sharing->phase(
        *progress, ones + lanes, has_one ? Taking::singly : Taking::any,
        [=](size_t lane) { return lane < ones ? 1 : items; },
        [&](size_t lane, size_t begin, size_t end) {
          if (lane < ones) return one() && go();
          f(part((lane - ones) * items + begin, (lane - ones) * items + end, lanes * items));
          return go();
        });
  }
  // f(begin, end) for ranges that make up [0, n).
  template <class F>
  bool ranges(size_t n, F&& f) const {
    return share(n, [&](const Team& part) { f(part.begin(n), part.end(n)); });
  }
  // f(chain, begin, end) for links that make up all `links` of each of `n` chains. A chain's links are done in order.
  // Of more chains than threads those that are behind go first, so that all end together. f returns false once the call
  // is to stop.
  template <class F>
  bool chains(size_t n, size_t links, F&& f) const {
    if (size > 1)
      return sharing->phase(
          *progress, n, n > size ? Taking::evenly : Taking::in_order, [=](size_t) { return links; },
          [&](size_t chain, size_t begin, size_t end) { return f(chain, begin, end) && go(); });
    for (size_t chain = 0; chain < n; ++chain)
      if (!f(chain, size_t(0), links)) return false;
    return go();
  }
  // Waits for the threads that say that others must wait for them; all threads must know which these are.
  template <class Awaited>
  bool meet(Awaited&& awaited) const {
    if (size == 1) return go();
    return sharing->phase(
        *progress, size, Taking::alone, [&](size_t thread) { return size_t(awaited(thread)); },
        [&](size_t, size_t, size_t) { return go(); });
  }
  // This thread in its team of `n` neighbours. The arguments must outlive the result.
  Team in_team(size_t n, Sharing& of_team, Progress& in_it) const {
    Team team = *this;
    team.rank = in_it.rank = rank % n;
    team.size = n;
    team.sharing = &of_team;
    team.progress = &in_it;
    return team;
  }
  // This thread by itself.
  Team alone() const {
    Team one = *this;
    one.size = 1;
    one.sharing = nullptr;
    one.progress = nullptr;
    return one;
  }

  static constexpr size_t kItems = 4;  // that a thread's share is cut into
};

// For teams of `size` neighbours among the threads of a lease; none if that is one team.
inline std::vector<std::unique_ptr<Sharing>> share_in_teams(const Lease& lease, size_t threads, size_t size) {
  std::vector<std::unique_ptr<Sharing>> teams;
  for (size_t first = 0; size < threads && first < threads; first += size)
    teams.push_back(std::make_unique<Sharing>(size, lease.board(first ? int(first) : 1, 1)));
  return teams;
}

// Calls f(begin, end) over a share of [0, n) in slices of at most about kSliceFlops, checking in between for a stop.
template <class F>
bool sliced(const Team& share, size_t n, double flops_each, F&& f) {
  const size_t most = std::max<size_t>(1, size_t(std::min(kSliceFlops / (flops_each + 1), 1e9))), end = share.end(n);
  for (size_t begin = share.begin(n), stop = begin; begin < end; begin = stop) {
    stop = begin + std::min(most, end - begin);
    f(begin, stop);
    share.worked(flops_each * double(stop - begin));
    if (stop < end && !share.go()) return false;
  }
  return true;
}

}  // namespace quadgate
