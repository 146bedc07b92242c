#include "parallel/pace.h"

#include <algorithm>
#include <atomic>

#include "parallel/cost.h"
#include "parallel/pool.h"
#include "parallel/this_thread.h"
#include "parallel/turns.h"

namespace quadgate {
namespace {

// Two threads with a sleeping worker take as long as one from twice this time on: measured at calls of 30 to 160 us.
constexpr double kCyclesOfWake = 5;                     // for each ns
constexpr int kUsualWake = 3000, kLongestWake = 40000;  // ns
std::atomic<int> mean_wake{kUsualWake}, doublings{0};

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
  const int now = int(std::max<int64_t>(0, std::min<int64_t>(ns, kLongestWake))), mean = last + (now - last) / 8;
  mean_wake.store(mean, std::memory_order_relaxed);
  int n = doublings.load(std::memory_order_relaxed);
  while (kCyclesOfWake * mean > 1.7 * kStartCycles * double(1 << n)) ++n;
  while (n > 0 && kCyclesOfWake * mean < 0.6 * kStartCycles * double(1 << n)) --n;
  doublings.store(n, std::memory_order_relaxed);
}

double sleeping_start_cycles() { return kStartCycles * double(1 << doublings.load(std::memory_order_relaxed)); }

Plan Pace::plan(Work work, size_t max_threads) {
  if (max_threads <= 1) return Plan();
  work.start = sleeping_start_cycles();
  KeptPlans::Pair now;
  const KeptPlans::Pair* pair = &now;
  if (ThisThread* thread = this_thread()) {
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
  // The clock, which would show in a small call, is asked only if the answer matters.
  return pair->awake.threads() != pair->asleep.threads() && follows_closely() ? pair->awake : pair->asleep;
}

void Pace::ask() {
  asked_ = true;
  thread_ = this_thread();
  follows_ = thread_ && turn_clock() - thread_->last_end < int64_t(kIdleSpinUs) * 1000;
}

void Pace::note_end() {
  if (thread_) thread_->last_end = turn_clock();
}

}  // namespace quadgate
