// A thread's part in a job of several threads: its CPU, which is not its caller's, and its leave from the job, during
// which the caller may end it.
#pragma once

#include "parallel/this_thread.h"
#include "parallel/turns.h"
#include "parallel/wait_word.h"

namespace quadgate {

// A worker's state for its caller: the number of its jobs times 8, and one of these.
enum JobState : uint32_t {
  kIdle = 0,     // the job is done, or was ended
  kPosted = 2,   // the caller may still take it back
  kRunning = 4,  // the caller waits for it
  kAway = 6      // begun, but touches nothing of it until it is back
};

// The calling thread's.
JobPart job_part();

// Replaces the calling thread's part and returns the old one.
JobPart take_part(JobPart part);

// To be called by a thread that has slept, and so may have been woken on any CPU.
void check_cpu();

// Thrown in a worker that comes back to a job which has ended; the pool catches it. On the way out nothing of the job
// may be touched.
struct JobEnded {};

// Between the two a worker may use nothing of the job, and the caller may end it: return_to_job then throws JobEnded.
// Both do nothing in the calling thread.
void leave_job();
void return_to_job();

}  // namespace quadgate
