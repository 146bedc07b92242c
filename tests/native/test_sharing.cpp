// Shared work is done once and in order, without those who are absent; a stop and errors reach all. Nothing here
// depends on how fast a thread is.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "share.h"

using namespace quadgate;

namespace {

// Every item is done once, and what it writes is there for all in the next phase: an item adds up its neighbours of the
// phase before.
void test_phases_order_memory() {
  for (int threads = 2; threads <= 4; ++threads) {
    Lease lease(threads);
    CHECK(lease.size() == threads);
    const size_t lanes = size_t(threads), items = 3, n = lanes * items;
    const int phases = rounds() / 10;
    std::vector<unsigned> now(2 * n, 1), expected(2 * n, 1);
    share(lease, threads, [&](Sharing& sharing, Progress& me) {
      for (int i = 0; i < phases; ++i) {
        const unsigned* from = now.data() + (i % 2 ? n : 0);
        unsigned* to = now.data() + (i % 2 ? 0 : n);
        sharing.phase(
            me, lanes, i % 2 ? Taking::any : Taking::halves, [&](size_t) { return items; },
            [&](size_t lane, size_t begin, size_t end) {
              for (size_t at = lane * items + begin; at < lane * items + end; ++at)
                to[at] = from[at] + from[(at + 1) % n];
              return true;
            });
      }
    });
    for (int i = 0; i < phases; ++i)
      for (size_t at = 0; at < n; ++at) {
        const unsigned* from = expected.data() + (i % 2 ? n : 0);
        expected[(i % 2 ? 0 : n) + at] = from[at] + from[(at + 1) % n];
      }
    CHECK(now == expected);
  }
}

// The links of a chain are done one after the other, whoever does them.
void test_chains_are_in_order() {
  for (int threads = 2; threads <= 4; ++threads) {
    Lease lease(threads);
    const size_t lanes = size_t(threads), links = 50;
    bool ordered = true;
    for (int i = 0; i < rounds() / 500; ++i) {
      std::vector<size_t> next(lanes, 0);  // plain: the next link's thread must see it
      std::atomic<bool> right{true};
      share(lease, threads, [&](Sharing& sharing, Progress& me) {
        sharing.phase(
            me, lanes, Taking::in_order, [&](size_t lane) { return links - lane; },
            [&](size_t lane, size_t begin, size_t end) {
              if (next[lane] != begin) right = false;
              next[lane] = end;
              return true;
            });
      });
      for (size_t lane = 0; lane < lanes; ++lane) ordered = ordered && right && next[lane] == links - lane;
    }
    CHECK(ordered);
  }
}

// So are those of more chains than threads, which all end together: what is left of one is never more than one thread's
// share of all that is left, but for the links that others have now, and one.
void test_chains_in_turn() {
  for (int threads = 2; threads <= 4; ++threads)
    for (size_t lanes = size_t(threads) + 1; lanes <= 2 * size_t(threads); ++lanes)
      for (int present : {1, threads}) {
        Lease lease(threads);
        const size_t links = 50;
        bool right = true;
        for (int i = 0; i < rounds() / 2000; ++i) {
          std::vector<size_t> next(lanes, 0);  // plain: the next link's thread must see it
          std::atomic<bool> ordered{true}, even{true};
          share_lanes(lease, threads, lanes, [&](Sharing& sharing, Progress& me) {
            if (int(me.rank) >= present) return;
            sharing.phase(
                me, lanes, Taking::evenly, [&](size_t) { return links; },
                [&](size_t lane, size_t begin, size_t end) {
                  if (next[lane] != begin) ordered = false;
                  next[lane] = end;
                  if (present > 1) return true;
                  size_t most = 0, all = 0;
                  for (size_t done : next) {
                    most = std::max(most, links - done);
                    all += links - done;
                  }
                  if (most * size_t(threads) > all + size_t(threads)) even = false;
                  return true;
                });
          });
          right = right && ordered && even;
          for (size_t done : next) right = right && done == links;
        }
        CHECK(right);
      }
}

// A call does not need its workers: rank 0 does all of the work of those who have not come or do not come back.
void test_work_of_the_absent() {
  Lease lease(4);
  for (int i = 0; i < rounds() / 100; ++i) {
    std::atomic<size_t> done{0};
    const int present = 1 + i % 4;
    size_t phases_of_caller = 0;
    share(lease, 4, [&](Sharing& sharing, Progress& me) {
      if (me.rank != 0 && int(me.rank) >= present) return;
      for (int k = 0; k < 5; ++k) {
        sharing.phase(
            me, 4, k % 2 ? Taking::any : Taking::in_order, [](size_t) { return size_t(4); },
            [&](size_t, size_t begin, size_t end) {
              done += end - begin;
              return true;
            });
        if (me.rank == 0) ++phases_of_caller;
      }
    });
    if (done != 80 || phases_of_caller != 5) CHECK(!"the caller finishes the work");
  }
  CHECK(true);
}

// A worker that sleeps when its job ends does not touch what was of the job: the next one begins at once, with its own
// memory in the same place.
void test_jobs_end_without_their_workers() {
  Lease lease(3);
  long total = 0;
  const int n = rounds() / 100;
  for (int i = 0; i < n; ++i) {
    std::vector<int> of_this_job(300, i);
    std::atomic<long> sum{0};
    share(lease, 3, [&](Sharing& sharing, Progress& me) {
      for (int k = 0; k < 3; ++k)
        sharing.phase(
            me, 3, Taking::any, [](size_t lane) { return size_t(lane == 0); },
            [&](size_t, size_t, size_t) {
              // Long enough, at times, for those who wait to go to sleep.
              if (i % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
              for (int value : of_this_job) sum += value == i;
              return true;
            });
    });
    total += sum;
  }
  CHECK(total == 900L * n);
}

// Threads that others must wait for.
void test_meetings() {
  for (int threads = 2; threads <= 4; ++threads) {
    Lease lease(threads);
    std::vector<int> slots(size_t(threads), -1);
    bool right = true;
    for (int i = 0; i < rounds() / 500; ++i) {
      std::atomic<int> wrong{0};
      share(lease, threads, [&](Sharing& sharing, Progress& me) {
        auto all = [](size_t) { return size_t(1); };
        sharing.phase(me, size_t(threads), Taking::alone, all, [&](size_t lane, size_t, size_t) {
          if (lane != me.rank) ++wrong;
          slots[lane] = i;
          return true;
        });
        for (int value : slots) wrong += value != i;
        sharing.phase(me, size_t(threads), Taking::alone, all, [](size_t, size_t, size_t) { return true; });
      });
      right = right && wrong == 0;
    }
    CHECK(right);
  }
}

// Once an item asks to stop, no thread begins another phase's work, and all return.
void test_stop() {
  for (int threads = 2; threads <= 4; ++threads) {
    Lease lease(threads);
    for (int trial = 0; trial < rounds() / 500; ++trial) {
      const size_t who = size_t(trial % threads), when = size_t(trial % 7);
      std::vector<size_t> stopped_at(size_t(threads), when);  // of those who come at all
      share(lease, threads, [&](Sharing& sharing, Progress& me) {
        for (size_t i = 0; i < 10; ++i) {
          const bool go = sharing.phase(
              me, size_t(threads), Taking::any, [](size_t) { return size_t(2); },
              [&](size_t lane, size_t, size_t) { return i != when || lane != who; });
          if (go) continue;
          stopped_at[me.rank] = i;
          return;
        }
        stopped_at[me.rank] = 10;
      });
      // Who had seen a phase complete may go to the next one before it sees the stop, but no further than it.
      for (size_t at : stopped_at)
        if (at > when) CHECK(!"all stop in the phase that was stopped");
    }
  }
  CHECK(true);
}

void test_exceptions() {
  Lease lease(4);
  for (size_t thrower = 0; thrower < 4; ++thrower) {
    std::string text;
    try {
      share(lease, 4, [&](Sharing& sharing, Progress& me) {
        for (int i = 0; i < 3; ++i)
          sharing.phase(
              me, 4, Taking::any, [](size_t) { return size_t(1); },
              [&](size_t lane, size_t, size_t) {
                if (i == 1 && lane >= thrower) throw std::runtime_error("an item");
                return true;
              });
      });
    } catch (const std::runtime_error& e) {
      text = e.what();
    }
    CHECK(text == "an item");
    int ran = 0;
    lease.run([&](int rank) {  // nothing is left over
      if (rank == 0) ran = 1;
    });
    CHECK(ran == 1);
  }
}

}  // namespace

int main() {
  set_num_threads(4);
  test_phases_order_memory();
  test_chains_are_in_order();
  test_chains_in_turn();
  test_work_of_the_absent();
  test_jobs_end_without_their_workers();
  test_meetings();
  test_stop();
  test_exceptions();
  return check::result();
}
