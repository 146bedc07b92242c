// Work that the threads of a job share so that none waits for one that is not scheduled.
//
// A job is a sequence of phases, the same for all of its threads. A phase is a number of lanes, and each lane a number
// of items. A thread takes the items of its own lane, and then what other threads have not taken of theirs; or it goes
// from lane to lane. A phase is over when all of its items are done, and not when all threads have arrived: a thread
// that comes late finds it done and goes on. So the caller alone does all of the work if it must.
//
// Items must not depend on who does them. What a thread writes in one phase, all threads can read in later phases.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "parallel/turns.h"
#include "parallel/wait_word.h"

namespace quadgate {

class Sharing;

// One thread's progress through the phases of a job.
struct Progress {
  size_t rank = 0;
  uint32_t phase = 0;   // number of phases that it has come to
  uint64_t target = 0;  // items of all of them
};

// The way in which the items of a lane are taken.
enum class Taking {
  any,       // in any order, by several threads at a time; kMost at once while no thread's CPU is shared
  halves,    // the same, but half of what is left at once, so that threads end together
  singly,    // the same, but always one by one
  in_order,  // one after the other, not always by the same thread
  evenly,    // the same, a quarter at once, by threads that go from lane to lane; there may be more lanes than threads
  alone      // by the lane's own thread
};

// The words that the threads of a job look at while they wait, on one cache line. It lives for ever, as a worker may
// wait on it beyond the end of the job.
struct alignas(64) Board {
  WaitWord news;  // changes when a phase is over, and when a thread leaves items that it could have done
  std::atomic<bool> stopped{false};
  std::atomic<uint64_t> done{0};  // items of all phases
};

class Sharing {
 public:
  // For `threads` threads, and phases of up to `lanes` lanes, by default one a thread. No other job may use the board.
  Sharing(size_t threads, Board& board, size_t lanes = 0)
      : threads_(threads),
        board_(board),
        spin_us_(spin_for(int(threads), kSpinUs)),
        many_(std::max(threads, lanes) > kFew ? new Lane[std::max(threads, lanes)] : nullptr),
        lanes_(many_ ? many_.get() : few_) {
    board.stopped.store(false, std::memory_order_relaxed);
    board.done.store(0, std::memory_order_relaxed);
  }
  Sharing(const Sharing&) = delete;

  size_t threads() const { return threads_; }

  // One phase. count(lane) -> the number of items of a lane below `lanes`; f(lane, begin, end) -> bool does some of a
  // lane's items, and returns false to stop the job. Returns false once the job is to stop. Threads must call it with
  // equal arguments, in the same order.
  template <class Count, class F>
  bool phase(Progress& me, size_t lanes, Taking taking, Count&& count, F&& f) {
    ++me.phase;
    uint64_t total = 0;
    for (size_t i = 0; i < lanes; ++i) total += count(i);
    if (total == 0) return !stopped();
    me.target += total;
    size_t lane = me.rank % lanes;
    for (;;) {
      const uint32_t news = board_.news.load();
      if (board_.done.load(std::memory_order_acquire) >= me.target) return !stopped();
      if (stopped()) return false;
      const bool shared = cpus_are_shared();
      Taken taken = {0, 0};
      if (taking == Taking::evenly) {
        size_t next = next_lane(me.phase, lanes, lane, count);
        if (next == lanes) next = next_lane(me.phase, lanes, lane, count);  // one may have become free meanwhile
        if (next < lanes) {
          lane = next;
          taken = take(lane, me.phase, count(lane), taking, shared);
          if (taken.begin == taken.end) continue;  // another thread was faster
        }
      }
      for (size_t i = 0; i < lanes && taking != Taking::evenly && taken.begin == taken.end; ++i) {
        lane = (me.rank + i) % lanes;
        const bool own = lane == me.rank;
        if (!own && (taking == Taking::alone || (i < 2 && !shared && news_comes(news)))) break;
        taken = take(lane, me.phase, count(lane), taking, shared || !own || taking == Taking::singly);
      }
      if (taken.begin == taken.end) {
        wait(news);
        continue;
      }
      if (!run(lane, taken, f)) return false;
      finish(me, lane, taken, taking, shared);
    }
  }

  // Makes all threads return false from their next phase, or from the one in which they wait.
  void stop();
  bool stopped() const { return board_.stopped.load(std::memory_order_relaxed); }

 private:
  struct Taken {
    size_t begin, end;
  };

  // Of a lane of `count` items: those not taken, and whether a thread has one now, in a phase in which these come in
  // order.
  struct LaneState {
    size_t left;
    bool busy;
  };
  LaneState state_of(size_t lane, uint32_t phase, size_t count) const;
  // The lane for a thread whose last one was `last`, of those with items left that no thread has; `lanes` if there is
  // none. The same again, unless another has so much left that the phase might have to wait for it: then the one with
  // most. Each change of the thread moves memory between cores.
  template <class Count>
  size_t next_lane(uint32_t phase, size_t lanes, size_t last, Count&& count) const {
    size_t best = lanes, most = 0, all = 0;
    bool again = false;
    for (size_t i = 0; i < lanes; ++i) {
      const size_t lane = (last + i) % lanes, n = count(lane);
      const LaneState state = state_of(lane, phase, n);
      all += state.left;
      if (state.busy || state.left == 0) continue;
      again = again || i == 0;
      if (state.left > most) {
        best = lane;
        most = state.left;
      }
    }
    return again && 5 * most * threads_ < 4 * all ? last : best;  // 0.8 of a thread's share of all
  }

  // A lane's next items, one or several; none if there are none, or another thread has those before.
  Taken take(size_t lane, uint32_t phase, size_t count, Taking taking, bool one);
  template <class F>
  bool run(size_t lane, const Taken& taken, F&& f) {
    try {
      if (f(lane, taken.begin, taken.end)) return true;
    } catch (...) {
      stop();
      throw;
    }
    stop();
    return false;
  }
  void finish(const Progress& me, size_t lane, const Taken& taken, Taking taking, bool shared);
  // Gives the owner of a lane the time to come for it; true if there was news meanwhile.
  bool news_comes(uint32_t news) const { return board_.news.spin_while(news, spin_us_ > 0 ? kPatienceUs : 0) != news; }
  void wait(uint32_t news);

  // As long as most waits last, and short beside the milliseconds that a descheduled thread stays away. To wake a
  // thread takes up to 0.1 ms, and a virtual core that halts may have to wait for a real one.
  static constexpr int kSpinUs = 500, kPatienceUs = 4;
  // Items at once: few enough that a thread soon sees that its CPU is shared, and leaves the rest to others.
  static constexpr size_t kMost = 16;
  struct alignas(64) Lane {
    std::atomic<uint64_t> taken{0};  // phase << 32 | busy << 31 | items
  };

  const size_t threads_;
  Board& board_;
  const int spin_us_;
  static constexpr size_t kFew = 4;  // lanes without an allocation
  Lane few_[kFew];
  const std::unique_ptr<Lane[]> many_;
  Lane* const lanes_;
};

}  // namespace quadgate
