#include "parallel/job_part.h"

#include <utility>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

namespace quadgate {
namespace {

#if defined(__linux__)

int this_cpu() { return sched_getcpu(); }

// Leaves the CPU that the caller runs on, and keeps off it. When all CPUs are busy the scheduler may wake a worker on
// its caller's CPU, and then see no reason to move it: from there on each phase would cost a spin and a switch.
void keep_off(int cpu) {
  cpu_set_t allowed;  // of the process, not this thread's part of it
  if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(getpid(), sizeof allowed, &allowed) != 0) return;
  CPU_CLR(size_t(cpu), &allowed);
  if (CPU_COUNT(&allowed) > 0) sched_setaffinity(0, sizeof allowed, &allowed);
}

#else

int this_cpu() { return -1; }
void keep_off(int) {}

#endif

}  // namespace

JobPart job_part() {
  const ThisThread* own = this_thread();
  return own == nullptr ? JobPart() : own->part;
}

JobPart take_part(JobPart part) {
  ThisThread* own = this_thread();
  return own == nullptr ? JobPart() : std::exchange(own->part, part);
}

void check_cpu() {
  const JobPart own = job_part();
  if (own.caller_cpu == nullptr) return;
  const int here = this_cpu();
  if (own.state == nullptr)
    own.caller_cpu->store(here, std::memory_order_relaxed);
  else if (here >= 0 && here == own.caller_cpu->load(std::memory_order_relaxed))
    keep_off(here);
}

void leave_job() {
  const JobPart own = job_part();
  if (own.state != nullptr) own.state->set(own.job | kAway);
}

void return_to_job() {
  const JobPart own = job_part();
  if (own.state != nullptr && !own.state->change(own.job | kAway, own.job | kRunning)) throw JobEnded();
}

}  // namespace quadgate
