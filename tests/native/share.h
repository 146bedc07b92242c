// Used by the tests of the pool and of shared work.
#pragma once

#include <cstdlib>

#include "parallel/pool.h"
#include "parallel/sharing.h"

namespace quadgate {

// Fewer under emulation or a sanitizer.
inline int rounds() {
  const char* wish = std::getenv("QUADGATE_TEST_ROUNDS");
  return wish != nullptr ? std::atoi(wish) : 100000;
}

// Runs f(sharing, progress) on so many threads.
template <class F>
void share(Lease& lease, int threads, F&& f) {
  Sharing sharing(size_t(threads), lease.board(1, 0));
  lease.run([&](int rank) {
    if (rank >= threads) return;
    Progress progress;
    progress.rank = size_t(rank);
    f(sharing, progress);
  });
}

}  // namespace quadgate
