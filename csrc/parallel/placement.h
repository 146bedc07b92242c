// The CPUs on which the threads of a job run: workers keep off their caller's.
#pragma once

#include <atomic>

namespace quadgate {

// A thread's part in a job; all empty outside of jobs.
struct JobPart {
  std::atomic<int>* caller_cpu = nullptr;  // where rank 0 of the job was last seen
  bool is_worker = false;
};

// Replaces the calling thread's part and returns the old one.
JobPart take_part(JobPart part);

// To be called by a thread that has slept, and so may have been woken on any CPU.
void check_cpu();

}  // namespace quadgate
