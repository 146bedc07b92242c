// Waiting for other threads: a word to wait on.
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
  // The same, if the value is `from`; otherwise returns false.
  bool change(uint32_t from, uint32_t to);
  // Adds 2, and wakes all who wait.
  void advance();
  // Waits until the value differs from `old`, spinning for about spin_us first, and returns it.
  uint32_t wait_while(uint32_t old, int spin_us) {
    const uint32_t value = spin_while(old, spin_us);
    return value != old ? value : sleep_while(old);
  }
  // The first part of it, which may return `old`, and the second.
  uint32_t spin_while(uint32_t old, int spin_us) const;
  uint32_t sleep_while(uint32_t old);

 private:
  static constexpr uint32_t kSleeps = 1;
  std::atomic<uint32_t> word_;
};

// The time to spin for in a group of so many threads: 0 where they cannot all run at the same time.
int spin_for(int threads, int us);

// Abandons the sleepers that a forked child has inherited from its parent.
void forget_sleepers();

}  // namespace quadgate
