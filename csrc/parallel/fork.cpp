#include "parallel/fork.h"

#include <algorithm>
#include <chrono>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace quadgate {

namespace {
std::atomic<std::thread::id> survivor{};
}

std::atomic<uint32_t> ForkLock::generation{1};

void watch_forks() {
#if !defined(_WIN32)
  static std::atomic<bool> watching{false};
  if (watching.exchange(true)) return;
  pthread_atfork(nullptr, nullptr, [] {
    ForkLock::generation.fetch_add(1, std::memory_order_relaxed);
    survivor.store(std::this_thread::get_id(), std::memory_order_relaxed);
  });
#endif
}

bool came_through_fork() { return survivor.load(std::memory_order_relaxed) == std::this_thread::get_id(); }

bool ForkLock::take_over(uint32_t holder) {
  const uint32_t mine = generation.load(std::memory_order_relaxed);
  return holder != 0 && holder != mine && holder_.compare_exchange_strong(holder, mine, std::memory_order_acquire);
}

void ForkLock::lock() {
  auto pause = std::chrono::microseconds(1);
  while (!try_lock()) {
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(500));
  }
}

}  // namespace quadgate
