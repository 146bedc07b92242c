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
constexpr unsigned kProbe = 256;  // one of so many calls takes wakes for short
std::atomic<int> mean_wake{kUsualWake}, doublings{0};
// In ns, without the time that reading the clock takes. Medians measured on Zen 4: 65 within a chiplet, 245 to 305 from
// one to another. One of more than kLongestHandover says little.
constexpr int kNearHandover = 140, kFarHandover = 190, kLongestHandover = 600;
constexpr int kForgotten = 170;  // then a few long ones are enough
constexpr int64_t kFarFor = 100000000;
std::atomic<int> mean_handover{kNearHandover / 2};
std::atomic<int64_t> far_until{0};  // 0: near

// A system call on some machines.
int64_t clock_cost() {
  int64_t least = kLongestHandover;
  for (int i = 0; i < 5; ++i) {
    const int64_t before = turn_clock();
    least = std::min(least, turn_clock() - before);
  }
  return least;
}

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

void note_handover(int64_t posted, int64_t begun) {
  static const int64_t of_clock = clock_cost();
  const int last = mean_handover.load(std::memory_order_relaxed);
  const int now = int(std::clamp<int64_t>(begun - posted - of_clock, 0, kLongestHandover));
  // Sixteenths, in whole numbers: rounded away from zero, so that the mean arrives.
  const int step = now - last, mean = last + (step + (step > 0 ? 15 : -15)) / 16;
  mean_handover.store(mean, std::memory_order_relaxed);
  const bool before = far_until.load(std::memory_order_relaxed) != 0;
  if (mean > (before ? kNearHandover : kFarHandover))
    far_until.store(begun + kFarFor, std::memory_order_relaxed);
  else if (before)
    far_until.store(0, std::memory_order_relaxed);
}

bool workers_are_far() {
  int64_t until = far_until.load(std::memory_order_relaxed);
  if (until == 0) return false;  // without a look at the clock, which would show in small calls
  if (turn_clock() < until) return true;
  if (far_until.compare_exchange_strong(until, 0, std::memory_order_relaxed))
    mean_handover.store(kForgotten, std::memory_order_relaxed);
  return false;
}

Plan Pace::plan(Work work, size_t max_threads) {
  if (max_threads <= 1) return Plan();
  KeptPlans::Pair now;
  const KeptPlans::Pair* pair = &now;
  if (ThisThread* thread = this_thread()) {
    work.start = sleeping_start_cycles(thread->starts_asked);
    work.far = workers_are_far();
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
