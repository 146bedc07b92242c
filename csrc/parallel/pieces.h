// Flat work in pieces: no order among them, no barrier.
//
// Pieces are cut by shape, never by the number of threads, and handed out from a counter: a thread whose core is shared
// takes fewer of them, and no bit of a result depends on who took which.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>

#include "parallel/pool.h"

namespace quadgate {

// Flops that a further thread must have to be worth waking.
constexpr double kFlopsPerThread = 1e6;

// Threads to ask for, for n pieces of so many flops in all.
inline int threads_for(size_t n, double flops) {
  const double most = std::min(double(n), flops / kFlopsPerThread);
  return int(std::max(1.0, std::min(most, double(get_num_threads()))));
}

// Calls f(piece, rank) once for every piece below n, on the threads of the lease. The calling thread asks `interrupted`
// (may be null) between pieces, at most every 50 ms; false if it said so, in which case some pieces were not done.
template <class F>
bool for_pieces(Lease& lease, size_t n, bool (*interrupted)(), F&& f) {
  using Clock = std::chrono::steady_clock;
  struct alignas(64) Counter {
    std::atomic<size_t> next{0};
    std::atomic<bool> stop{false};
  } counter;
  lease.run([&](int rank) {
    auto asked = Clock::now();
    for (;;) {
      const size_t piece = counter.next.fetch_add(1, std::memory_order_relaxed);
      if (piece >= n || counter.stop.load(std::memory_order_relaxed)) return;
      f(piece, rank);
      if (rank != 0 || !interrupted) continue;
      const auto now = Clock::now();
      if (now - asked < std::chrono::milliseconds(50)) continue;
      asked = now;
      if (interrupted()) counter.stop.store(true, std::memory_order_relaxed);
    }
  });
  return !counter.stop.load(std::memory_order_relaxed);
}

}  // namespace quadgate
