// Used by the tests of the pool and of shared work.
#pragma once

#include "check.h"
#include "parallel/pool.h"
#include "parallel/sharing.h"

namespace quadgate {

using check::rounds;

// Runs f(sharing, progress) on so many threads, which share so many lanes at most.
template <class F>
void share_lanes(Lease& lease, int threads, size_t lanes, F&& f) {
  Sharing sharing(size_t(threads), lease.board(1, 0), lanes);
  lease.run([&](int rank) {
    if (rank >= threads) return;
    Progress progress;
    progress.rank = size_t(rank);
    f(sharing, progress);
  });
}

// The same with a lane each.
template <class F>
void share(Lease& lease, int threads, F&& f) {
  share_lanes(lease, threads, size_t(threads), f);
}

}  // namespace quadgate
