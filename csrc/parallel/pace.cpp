#include "parallel/pace.h"

#include <algorithm>

#include "parallel/pool.h"
#include "parallel/this_thread.h"
#include "parallel/turns.h"

namespace quadgate {
namespace {

KeptPlans::Pair choose_both(Work work, size_t max_threads) {
  KeptPlans::Pair pair = {work, max_threads, {}, {}};
  work.awake = false;
  pair.asleep = choose_plan(work, max_threads);
  work.awake = true;
  pair.awake = choose_plan(work, max_threads);
  return pair;
}

}  // namespace

Plan Pace::plan(const Work& work, size_t max_threads) {
  if (max_threads <= 1) return Plan();
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
