#include "parallel/turns.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <time.h>
#endif

namespace quadgate {
namespace {

constexpr int64_t kUs = 1000, kMs = 1000 * kUs;
// Turns are milliseconds; interrupts take less than this.
constexpr int64_t kLost = kMs / 2;
// OpenBLAS's workers spin for a tenth of a second after a product.
constexpr int64_t kRemembered = 150 * kMs;
// Pieces shorter than this are not worth a look at the thread's CPU time.
constexpr int64_t kLook = kMs;
constexpr int64_t kShortestTurn = kMs, kLongestTurn = 20 * kMs;

std::atomic<int64_t> shared_until{0};

// -1 where it cannot be had.
int64_t cpu_time() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
  timespec t;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0) return int64_t(t.tv_sec) * 1000 * kMs + t.tv_nsec;
#endif
  return -1;
}

}  // namespace

int64_t turn_clock() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

bool cpus_are_shared() {
  int64_t until = shared_until.load(std::memory_order_relaxed);
  if (until == 0) return false;  // without a look at the clock, which would show in short steps
  if (turn_clock() < until) return true;
  shared_until.compare_exchange_strong(until, 0, std::memory_order_relaxed);
  return false;
}

void Turns::share(int64_t now) { shared_until.store(now + kRemembered, std::memory_order_relaxed); }

int64_t Turns::begin(int64_t handed_out) {
  skipped_ = 0;
  job_ = last_ = turn_ = turn_clock();
  if (job_ - handed_out > kLost) share(job_);
  return job_;
}

void Turns::worked(bool look) {
  if (!look && ++skipped_ % 8) return;
  const int64_t now = turn_clock(), wall = now - last_;
  piece_ = wall;
  last_ = now;
  if (wall < kLook && now - cpu_seen_ < 4 * kLook) return;
  const int64_t cpu = cpu_time();
  if (cpu < 0) return;
  // This thread may have slept before the job, but not computed.
  const int64_t since = std::max(job_, cpu_seen_), off = cpu_ < 0 ? 0 : now - since - (cpu - cpu_);
  if (off > kLost) {
    const int64_t on = std::max(now - wall - turn_, int64_t(0)) + (wall - off) / 2;
    length_ = std::clamp(on, kShortestTurn, kLongestTurn);
    piece_ = std::max<int64_t>(wall - off, 0);
    turn_ = now - piece_;
    share(now);
  }
  cpu_ = cpu;
  cpu_seen_ = now;
}

bool Turns::due() const { return length_ != 0 && last_ + piece_ + piece_ / 4 > turn_ + length_; }

void Turns::give_way() {
  const int64_t before = turn_clock();
  std::this_thread::yield();
  const int64_t now = turn_clock();
  if (now - before > kLost) share(now);
  // The turn was at least this long.
  length_ = std::min(length_ + length_ / 16, kLongestTurn);
  resume();
}

void Turns::resume() {
  last_ = turn_ = cpu_seen_ = turn_clock();
  cpu_ = cpu_time();
}

}  // namespace quadgate
