#include "parallel/wait_word.h"

#include <chrono>

#include "cpu/available_cpus.h"
#include "parallel/job_part.h"

#if defined(__linux__) && !defined(QG_NO_FUTEX)
#define QG_FUTEX 1
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <condition_variable>
#include <mutex>
#endif
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace quadgate {
namespace {

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");  // `yield` does nothing on most cores; this waits for some tens of cycles
#endif
}

#if defined(QG_FUTEX)

void sleep_on(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
void wake_all(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

#else

// Sleepers meet at a bucket chosen by the word's address. Never destroyed, and abandoned by a forked child, in
// which no thread would ever unlock a mutex that was held.
struct Bucket {
  std::mutex lock;
  std::condition_variable changed;
};
constexpr size_t kBuckets = 64;
std::atomic<Bucket*> buckets{nullptr};

Bucket& bucket_of(const void* word) {
  Bucket* all = buckets.load(std::memory_order_acquire);
  if (all == nullptr) {
    Bucket* made = new Bucket[kBuckets];
    if (buckets.compare_exchange_strong(all, made))
      all = made;
    else
      delete[] made;
  }
  return all[(reinterpret_cast<uintptr_t>(word) >> 6) % kBuckets];
}
void sleep_on(std::atomic<uint32_t>& word, uint32_t value) {
  Bucket& bucket = bucket_of(&word);
  std::unique_lock<std::mutex> hold(bucket.lock);
  while (word.load(std::memory_order_relaxed) == value) bucket.changed.wait(hold);
}
void wake_all(std::atomic<uint32_t>* word) {
  Bucket& bucket = bucket_of(word);
  // The word has changed already: a thread that saw its old value under the lock sleeps once the lock is ours.
  std::lock_guard<std::mutex> hold(bucket.lock);
  bucket.changed.notify_all();
}
#endif

}  // namespace

#if defined(QG_FUTEX)
void forget_sleepers() {}
#else
void forget_sleepers() { buckets.store(nullptr, std::memory_order_relaxed); }
#endif

// Spinning is of use only while the partners run at the same time.
int spin_for(int threads, int us) { return threads <= available_cpus() ? us : 0; }

void WaitWord::set(uint32_t value) {
  // Once the new value is out, a waiter may go on and end the word's life: only its address is used then.
  if (word_.exchange(value, std::memory_order_acq_rel) & kSleeps) wake_all(&word_);
}

bool WaitWord::change(uint32_t from, uint32_t to) {
  uint32_t value = from;
  while (!word_.compare_exchange_strong(value, to, std::memory_order_acq_rel))
    if ((value & ~kSleeps) != from) return false;
  if (value & kSleeps) wake_all(&word_);
  return true;
}

void WaitWord::advance() {
  if (!(word_.fetch_add(2, std::memory_order_acq_rel) & kSleeps)) return;
  word_.fetch_and(~kSleeps, std::memory_order_acq_rel);
  wake_all(&word_);
}

uint32_t WaitWord::spin_while(uint32_t old, int spin_us) const {
  using Clock = std::chrono::steady_clock;
  constexpr int kLooks = 32;  // between looks at the clock
  if (spin_us <= 0) return load();
  Clock::time_point deadline{};
  do {
    for (int i = 0; i < kLooks; ++i) {
      const uint32_t value = load();
      if (value != old) return value;
      pause();
    }
    if (deadline == Clock::time_point{}) deadline = Clock::now() + std::chrono::microseconds(spin_us);
  } while (Clock::now() < deadline);
  return old;
}

uint32_t WaitWord::sleep_while(uint32_t old) {
  for (;;) {
    uint32_t value = old;
    if (!word_.compare_exchange_strong(value, old | kSleeps, std::memory_order_acq_rel, std::memory_order_acquire) &&
        value != (old | kSleeps))
      return value & ~kSleeps;
    sleep_on(word_, old | kSleeps);
    check_cpu();
  }
}

}  // namespace quadgate
