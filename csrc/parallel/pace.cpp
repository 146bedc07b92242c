#include "parallel/pace.h"

#include <algorithm>
#include <atomic>

#include "parallel/cost.h"
#include "parallel/pool.h"
#include "parallel/this_thread.h"
#include "parallel/turns.h"

namespace quadgate {
namespace {

// Two threads, of which one is woken, take as long as one in calls of some three times the wake (measured at 30 to 160
// us), and by the estimate in calls of twice the start: so a ns of a wake is about 5 cycles of the start.
constexpr double kCyclesOfWake = 5;
// In ns. A wake counts for twice the mean and kMargin at most: a thread that was put off its core says little.
constexpr int kUsualWake = 3000, kLongestWake = 40000, kMargin = 5000;
constexpr unsigned kProbe = 256;  // one of so many calls takes wakes for short, and workers for near
std::atomic<int> mean_wake{kUsualWake}, doublings{0};
// In ns. Measured on Zen 4, from median to median: 90 within a chiplet, 270 to 330 from one to another. One of more
// than kLongestHandover says little.
constexpr int kNearHandover = 160, kFarHandover = 210, kLongestHandover = 600;
std::atomic<int> mean_handover{kNearHandover / 2};
std::atomic<bool> far_workers{false};

KeptPlans::Pair choose_both(Work work, size_t max_threads) {
  KeptPlans::Pair pair = {work, max_threads, {}, {}};
  work.awake = false;
  pair.asleep = choose_plan(work, max_threads);
  work.awake = true;
  pair.awake = choose_plan(work, max_threads);
  return pair;
}

}  // namespace

void note_wake(int64_t ns) {
  const int last = mean_wake.load(std::memory_order_relaxed);
  const int64_t most = std::min(2 * last + kMargin, kLongestWake);
  const int now = int(std::max<int64_t>(0, std::min(ns, most))), mean = last + (now - last) / 8;
  mean_wake.store(mean, std::memory_order_relaxed);
  const int before = doublings.load(std::memory_order_relaxed);
  int n = before;
  while (kCyclesOfWake * mean > 1.7 * kStartCycles * double(1 << n)) ++n;
  while (n > 0 && kCyclesOfWake * mean < 0.6 * kStartCycles * double(1 << n)) --n;
  if (n != before) doublings.store(n, std::memory_order_relaxed);
}

double sleeping_start_cycles(unsigned& asked) {
  const int n = doublings.load(std::memory_order_relaxed);
  return n > 0 && ++asked % kProbe == 0 ? kStartCycles : kStartCycles * double(1 << n);
}

void note_handover(int64_t ns) {
  const int last = mean_handover.load(std::memory_order_relaxed);
  const int now = int(std::max<int64_t>(0, std::min<int64_t>(ns, kLongestHandover)));
  // Sixteenths, in whole numbers: rounded away from zero, so that the mean arrives.
  const int step = now - last, mean = last + (step + (step > 0 ? 15 : -15)) / 16;
  mean_handover.store(mean, std::memory_order_relaxed);
  const bool before = far_workers.load(std::memory_order_relaxed);
  const bool far = mean > (before ? kNearHandover : kFarHandover);
  if (far != before) far_workers.store(far, std::memory_order_relaxed);
}

bool workers_are_far(unsigned& asked) { return far_workers.load(std::memory_order_relaxed) && ++asked % kProbe != 0; }

Plan Pace::plan(Work work, size_t max_threads) {
  if (max_threads <= 1) return Plan();
  KeptPlans::Pair now;
  const KeptPlans::Pair* pair = &now;
  if (ThisThread* thread = this_thread()) {
    work.start = sleeping_start_cycles(thread->starts_asked);
    work.far = workers_are_far(thread->far_asked);
    KeptPlans& kept = thread->plans;
    pair = std::find_if(kept.pairs, kept.pairs + KeptPlans::kPairs,
                        [&](const KeptPlans::Pair& one) { return one.max_threads == max_threads && one.work == work; });
    if (pair == kept.pairs + KeptPlans::kPairs) {
      KeptPlans::Pair& oldest = kept.pairs[kept.oldest++ % KeptPlans::kPairs];
      oldest = choose_both(work, max_threads);
      pair = &oldest;
    }
  } else {
    now = choose_both(work, max_threads);
  }
  return follows_closely(pair->asleep, pair->awake) ? pair->awake : pair->asleep;
}

void Pace::ask(size_t threads) {
  asked_ = true;
  threads_ = threads;
  thread_ = this_thread();
  if (!thread_) return;
  // Workers that the last call had no use for have slept since one before it.
  const bool close = thread_->last_threads >= threads && turn_clock() - thread_->last_end < int64_t(kIdleSpinUs) * 1000;
  thread_->close_calls = close ? thread_->close_calls + 1 : 0;
  // If a wake takes long, more calls must have followed each other before one wakes the workers for the next ones.
  follows_ = thread_->close_calls > unsigned(doublings.load(std::memory_order_relaxed));
}

void Pace::note_end() {
  if (!thread_) return;
  thread_->last_end = turn_clock();
  thread_->last_threads = threads_;
}

}  // namespace quadgate
