// Flat work in pieces, in no order.
//
// Pieces are cut by shape, never by the number of threads, and handed out one by one: a thread whose core is shared
// takes fewer of them, and no bit of a result depends on who took which.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "parallel/fork.h"
#include "parallel/pool.h"
#include "parallel/sharing.h"

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
// Throws ForkedInCall in a child that was forked meanwhile and would wait for threads that it has not got.
template <class F>
bool for_pieces(Lease& lease, size_t n, bool (*interrupted)(), F&& f) {
  using Clock = std::chrono::steady_clock;
  const uint32_t generation = ForkLock::this_generation();
  const size_t threads = size_t(lease.size());
  auto asked = Clock::now();
  auto go = [&] {
    const auto now = Clock::now();
    if (!interrupted || now - asked < std::chrono::milliseconds(50)) return true;
    asked = now;
    if (interrupted()) return false;
    if (threads > 1 && generation != ForkLock::this_generation()) throw ForkedInCall();
    return true;
  };
  if (threads == 1) {
    for (size_t piece = 0; piece < n; ++piece) {
      f(piece, 0);
      if (!go()) return false;
    }
    return true;
  }
  const size_t lanes = std::min(threads, n);
  Sharing sharing(threads, lease.board(1, 0));
  lease.run([&](int rank) {
    Progress me;
    me.rank = size_t(rank);
    sharing.phase(
        me, lanes, Taking::singly, [&](size_t lane) { return n * (lane + 1) / lanes - n * lane / lanes; },
        [&](size_t lane, size_t begin, size_t) {
          f(n * lane / lanes + begin, rank);
          return rank != 0 || go();
        });
  });
  return !sharing.stopped();
}

}  // namespace quadgate
