// Data that a thread keeps from one call to the next.
//
// Not thread_local: the memory of such variables of a library that is loaded late is allocated at a thread's first
// use of one, and where that fails the C library ends the process.
#pragma once

#include <atomic>
#include <cstdint>

#include "memory/buffer.h"
#include "parallel/plan.h"

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

// Widened weights of networks with compact weights; see Weights::kept_floats.
struct KeptFloats {
  struct Slot {
    uint64_t key = 0;  // of a network and which of its matrices; 0: none
    uint64_t last_call = 0;
    size_t most = 0;  // as `make` got it
    Buffer<float> floats;
  };
  static constexpr int kSlots = 16;  // a network may have two or three
  Slot slots[kSlots];
  uint64_t others[kSlots] = {};  // keys without a slot that were called last
  uint64_t calls = 0;
  // The slot of a key, or null.
  Slot* find(uint64_t key);
  // A slot for n floats of a key without one. All slots that were made with this limit or a lower one take no more
  // than `most` bytes together. Null where networks that are still called would have to leave, and for a network's
  // first call unless it `stays`, as in a stream.
  Slot* make(uint64_t key, size_t n, size_t most, bool stays = false);
};

// The plans of a thread's last calls of different kinds; see Pace.
struct KeptPlans {
  struct Pair {
    Work work = {};
    size_t max_threads = 0;  // 0: none
    Plan asleep, awake;
  };
  static constexpr unsigned kPairs = 8;
  Pair pairs[kPairs];
  unsigned oldest = 0;
};

struct ThisThread {
  JobPart part;
  Buffer<char> scratch;       // see rnn/scratch.h
  bool scratch_used = false;  // by a call that runs
  KeptFloats kept;
  bool next_ascending = false;  // the order in which the next forward layer is to read its panels
  KeptPlans plans;
  int64_t last_end = 0;       // of a call that asked for its pace, on the clock of turns
  size_t last_threads = 0;    // that it asked for
  unsigned close_calls = 0;   // calls before this one that did so, each soon after the last one's end
  unsigned starts_asked = 0;  // of sleeping_start_cycles
};

// The calling thread's, made on first use and freed when the thread ends; null where there is no memory for it. All
// uses can do without.
ThisThread* this_thread() noexcept;

}  // namespace quadgate
