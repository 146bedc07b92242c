// The CPUs on which the threads of a job run: workers keep off their caller's.
#pragma once

#include "parallel/this_thread.h"

namespace quadgate {

// Replaces the calling thread's part and returns the old one.
JobPart take_part(JobPart part);

// To be called by a thread that has slept, and so may have been woken on any CPU.
void check_cpu();

}  // namespace quadgate
