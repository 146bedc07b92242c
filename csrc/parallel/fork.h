// Locks that can be used after a fork. A child has only the thread that called fork: a mutex that another thread held
// at that moment stays locked in the child.
#pragma once

#include <atomic>
#include <cstdint>
#include <stdexcept>

namespace quadgate {

// Counts the forks that led to this process. Call it once before threads start; later calls do nothing.
void watch_forks();

// True in the thread that came through the last fork, the only one whose id no other thread can have now. False where
// there was no fork.
bool came_through_fork();

// A call of several threads was forked by one of them, in a signal handler: the child has none of the others.
struct ForkedInCall : std::runtime_error {
  ForkedInCall() : std::runtime_error("the process was forked in the middle of a call of several threads") {}
};

// A lock for rare or uncontended use: taking it is one exchange, waiting for it is polling. In a forked child it is
// free if a thread that does not exist there held it; what it guards must therefore be valid at every moment.
class ForkLock {
 public:
  ForkLock() = default;
  ForkLock(const ForkLock&) = delete;

  bool try_lock() {
    uint32_t free = 0;
    return holder_.compare_exchange_strong(free, generation.load(std::memory_order_relaxed), std::memory_order_acquire,
                                           std::memory_order_relaxed) ||
           take_over(free);
  }
  void lock();
  void unlock() { holder_.store(0, std::memory_order_release); }

  static uint32_t this_generation() { return generation.load(std::memory_order_relaxed); }

 private:
  friend void watch_forks();
  // Second try, for a holder in a parent process.
  bool take_over(uint32_t holder);

  static std::atomic<uint32_t> generation;  // 1 in the first process, one more in each child
  std::atomic<uint32_t> holder_{0};         // the generation of the thread that has it; 0: free
};

}  // namespace quadgate
