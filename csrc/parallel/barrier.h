// Waiting for other threads of the same call: a word to wait on, and a barrier made of it.
#pragma once

#include <atomic>
#include <cstdint>

namespace quadgate {

// A word that threads wait on: they spin for a bounded time and then sleep in the kernel, so that a thread whose
// partner is not scheduled gives its core away. Bit 0 is set while a thread sleeps; values are even.
class WaitWord {
 public:
  explicit WaitWord(uint32_t value = 0) : word_(value) {}
  uint32_t load() const { return word_.load(std::memory_order_acquire) & ~kSleeps; }
  // Sets the value, which must differ from the old one, and wakes all who wait. Touches *this only once, at first.
  void set(uint32_t value);
  // Waits until the value differs from `old`, spinning for about spin_us first, and returns it.
  uint32_t wait_while(uint32_t old, int spin_us);

 private:
  static constexpr uint32_t kSleeps = 1;
  std::atomic<uint32_t> word_;
};

// All n threads of a group wait for each other, as often as they like.
class Barrier {
 public:
  explicit Barrier(int n);
  Barrier(const Barrier&) = delete;

  // Returns when all n have called it. True if any of them passed stop in this round or an earlier one; all
  // participants of a round get the same answer. All writes before it are visible to all after it.
  bool wait(bool stop = false);

 private:
  static constexpr uint32_t kStop = 2, kRound = 4;  // in release_: bit 1 is the verdict, the rest counts rounds
  const uint32_t n_;
  const int spin_us_;
  // Low half: threads that have arrived; high half: those of them that asked to stop.
  alignas(64) std::atomic<uint32_t> arrived_{0};
  alignas(64) WaitWord release_;
};

// The time to spin for in a group of so many threads: 0 where they cannot all run at the same time.
int spin_for(int threads, int us);

// Abandons the sleepers that a forked child has inherited from its parent.
void forget_sleepers();

}  // namespace quadgate
