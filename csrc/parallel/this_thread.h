// Data that a thread keeps from one call to the next.
//
// Not thread_local: the memory of such variables of a library that is loaded late is allocated at a thread's first
// use of one, and where that fails the C library ends the process.
#pragma once

#include <atomic>
#include <cstdint>

#include "memory/buffer.h"

namespace quadgate {

class Turns;
class WaitWord;

// A thread's part in a job; all empty outside of jobs.
struct JobPart {
  std::atomic<int>* caller_cpu = nullptr;  // where rank 0 of the job was last seen
  WaitWord* state = nullptr;               // of a worker; null in the calling thread
  uint32_t job = 0;                        // its number, times 8
  Turns* turns = nullptr;                  // of a worker
};

struct ThisThread {
  JobPart part;
  Buffer<char> scratch;       // see rnn/scratch.h
  bool scratch_used = false;  // by a call that runs
  // Widened weights of the network of that number, and the one with compact weights that the thread called last; 0:
  // none (rnn/weights.h).
  Buffer<float> floats;
  uint64_t floats_of = 0, compact_before = 0;
  bool last_ascending = false;  // the order in which the last forward layer read its panels
};

// The calling thread's, made on first use and freed when the thread ends; null where there is no memory for it. All
// uses can do without.
ThisThread* this_thread() noexcept;

}  // namespace quadgate
