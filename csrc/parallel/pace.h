// The plans of a thread's calls, and their pace. Workers spin for a short while after a job, and sleep then: where the
// next call comes before, they begin at once, so that a smaller call gains by them.
#pragma once

#include <cstdint>

#include "parallel/plan.h"

namespace quadgate {

struct ThisThread;

// Called by the first worker of a job if it slept, with the time from the posting of the job to now.
void note_wake(int64_t ns);
// kStartCycles, or more where wakes have taken longer: a few microseconds on some machines, 25 to 50 in a virtual one.
// It doubles or halves, so that plans need not be chosen anew for each wake. `asked` counts the caller's questions: now
// and then the answer is kStartCycles, so that calls which would wake nobody find out when wakes have become short.
double sleeping_start_cycles(unsigned& asked);

// Called by the first worker of a job if it was awake, with the times at which the job was posted and begun, in ns of
// turn_clock().
void note_handover(int64_t posted, int64_t begun);
// True if handing over takes so long that the threads' cores have no cache in common: on two chiplets or sockets. All
// workers count as far where the first is. In a virtual machine this may change from second to second, and calls that
// keep to one thread would not see it: so it holds for a while after the last handover.
bool workers_are_far();

// Lives as long as the call.
class Pace {
 public:
  Pace() = default;
  Pace(const Pace&) = delete;
  ~Pace() {
    if (asked_) note_end();
  }
  // choose_plan for workers that are awake, or asleep, whichever they are. `awake`, `start` and `far` of the work are
  // not read. A thread keeps its last plans, since choosing one can take longer than a small call.
  Plan plan(Work work, size_t max_threads);
  // True if this call, and some before it, began so soon after the thread's last one that asked for as many threads
  // that workers, once woken, stay awake between such calls. The first answer stands.
  bool follows_closely(size_t threads = 1) {
    if (!asked_) ask(threads);
    return follows_;
  }
  // The same where both plans differ in threads, else false. The clock, which would show in a small call, is asked only
  // if the answer matters to this call, or to the next one, which finds workers awake that this one has.
  bool follows_closely(const Plan& asleep, const Plan& awake) {
    const bool differ = asleep.threads() != awake.threads();
    return (differ || asleep.threads() > 1) && follows_closely(awake.threads()) && differ;
  }

 private:
  void ask(size_t threads);
  void note_end();

  ThisThread* thread_ = nullptr;
  size_t threads_ = 1;
  bool asked_ = false, follows_ = false;
};

}  // namespace quadgate
