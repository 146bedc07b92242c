// Threads: shared work is done once and in order, without those who are absent; a stop and errors reach all; calls do
// not wait for each other; a forked child works. Nothing here depends on how fast a thread is.
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "check.h"
#include "parallel/pool.h"
#include "parallel/sharing.h"

using namespace quadgate;

namespace {

// Fewer under emulation or a sanitizer.
int rounds() {
  const char* wish = std::getenv("QUADGATE_TEST_ROUNDS");
  return wish != nullptr ? std::atoi(wish) : 100000;
}

void test_limits() {
  CHECK(get_num_threads() >= 1);
  CHECK_THROWS(set_num_threads(0), std::invalid_argument);
  CHECK_THROWS(set_num_threads(-3), std::invalid_argument);
  set_num_threads(4);
  CHECK(get_num_threads() == 4);
  for (int wanted = -1; wanted <= 4; ++wanted) {
    Lease lease(wanted);
    CHECK(lease.size() == (wanted < 1 ? 1 : wanted));
  }
  CHECK(Lease(9).size() == 4);
  set_num_threads(2);
  CHECK(Lease(9).size() == 2);
  set_num_threads(4);
}

void test_run_calls_every_rank_at_most_once() {
  for (int wanted = 1; wanted <= 4; ++wanted) {
    Lease lease(wanted);
    std::vector<int> calls(size_t(lease.size()), 0);  // plain: run itself must order the accesses
    int n = rounds() / 10;
    bool on_caller = true, once = true;
    std::thread::id caller = std::this_thread::get_id();
    for (int i = 0; i < n; ++i) {
      std::fill(calls.begin(), calls.end(), 0);
      lease.run([&](int rank) {
        ++calls[size_t(rank)];
        if (rank == 0) on_caller = on_caller && std::this_thread::get_id() == caller;
      });
      once = once && calls[0] == 1;
      for (int c : calls) once = once && c <= 1;
    }
    CHECK(once);
    CHECK(on_caller);
  }
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

void test_short_leases() {
  int n = rounds() / 10;
  bool right = true;
  for (int i = 0; i < n; ++i) {
    Lease lease(2 + i % 3);
    const size_t threads = size_t(lease.size());
    std::vector<size_t> one(threads, 0);
    share(lease, int(threads), [&](Sharing& sharing, Progress& me) {
      sharing.phase(
          me, threads, Taking::any, [](size_t) { return size_t(1); },
          [&](size_t lane, size_t, size_t) {
            one[lane] = 1;
            return true;
          });
    });
    for (size_t v : one) right = right && v == 1;
  }
  CHECK(right);
}

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
            me, lanes, Taking::any, [&](size_t) { return items; },
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

// Many callers at once: each gets the workers that are free, none waits for another, and together they stay within the
// limit.
void test_many_callers() {
  std::atomic<int> extra{0}, most{0};
  std::atomic<long> sum{0};
  int n = rounds() / 50;
  std::vector<std::thread> callers;
  for (int c = 0; c < 6; ++c)
    callers.emplace_back([&] {
      for (int i = 0; i < n; ++i) {
        Lease lease(3);
        int now = extra += lease.size() - 1;
        for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
        }
        std::atomic<int> items{0};
        if (lease.size() == 1)
          items = 2;
        else
          share(lease, lease.size(), [&](Sharing& sharing, Progress& me) {
            sharing.phase(
                me, 2, Taking::any, [](size_t) { return size_t(1); },
                [&](size_t, size_t, size_t) {
                  ++items;
                  return true;
                });
          });
        sum += items - 1;
        extra -= lease.size() - 1;
      }
    });
  for (std::thread& t : callers) t.join();
  CHECK(sum == 6L * n);
  CHECK(most <= get_num_threads() - 1);
}

void test_lease_in_a_lease() {
  Lease outer(2);
  std::atomic<int> inner_runs{0};
  outer.run([&](int) {
    Lease inner(4);
    inner.run([&](int) { ++inner_runs; });
  });
  CHECK(inner_runs >= 1);
  Lease moved(std::move(outer));
  CHECK(moved.size() == 2 && outer.size() == 1);
  int ran[2] = {0, 0};
  moved.run([&](int rank) { ran[rank] = 1; });
  CHECK(ran[0] == 1);
}

// A worker that finds itself on its caller's CPU moves to another.
void test_workers_keep_off_the_caller() {
#if defined(__linux__)
  cpu_set_t all;
  if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 2) {
    std::printf("skipped: workers on CPUs of their own need two CPUs\n");
    return;
  }
  Lease rest(4);  // all that exist already: the worker in question is started by the pinned thread, so on its CPU
  set_num_threads(5);
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu)
      if (CPU_ISSET(size_t(cpu), &all)) CPU_SET(size_t(cpu), &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    Lease lease(2);
    CHECK(lease.size() == 2);
    int cpus[2] = {-1, -1};
    share(lease, 2, [&](Sharing& sharing, Progress& me) {
      sharing.phase(
          me, 2, Taking::alone, [](size_t) { return size_t(1); },
          [&](size_t lane, size_t, size_t) {
            cpus[lane] = sched_getcpu();
            return true;
          });
    });
    CHECK(cpus[0] >= 0 && cpus[1] >= 0 && cpus[0] != cpus[1]);
  }).join();
  set_num_threads(4);
#endif
}

// 0 if the pool works here.
int use_pool() {
  Lease lease(3);
  if (lease.size() != 3) return 2;
  std::atomic<int> ran{0};
  for (int i = 0; i < 100; ++i)
    share(lease, 3, [&](Sharing& sharing, Progress& me) {
      sharing.phase(
          me, 3, Taking::alone, [](size_t) { return size_t(1); },
          [&](size_t, size_t, size_t) {
            ++ran;
            return true;
          });
    });
  return ran == 300 ? 0 : 3;
}

template <class Body>
int status_of_child(Body body) {
  pid_t child = fork();
  if (child == 0) {
    alarm(120);  // a child that hangs is a failure, not a test that never ends
    _exit(body());
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

void test_fork() {
  CHECK(use_pool() == 0);
  CHECK(status_of_child(use_pool) == 0);
  CHECK(status_of_child([] { return status_of_child(use_pool) == 0 && use_pool() == 0 ? 0 : 1; }) == 0);
  CHECK(use_pool() == 0);
}

void test_fork_while_another_thread_runs() {
  std::atomic<bool> end{false};
  std::thread busy([&] {
    while (!end) {
      Lease lease(4);
      if (lease.size() > 1)
        share(lease, lease.size(), [&](Sharing& sharing, Progress& me) {
          for (int i = 0; i < 50; ++i)
            sharing.phase(
                me, 2, Taking::any, [](size_t) { return size_t(1); }, [](size_t, size_t, size_t) { return true; });
        });
    }
  });
  for (int i = 0; i < 20; ++i) CHECK(status_of_child(use_pool) == 0);
  end = true;
  busy.join();
}

void test_fork_inside_a_lease() {
  Lease lease(2);
  lease.run([](int) {});
  CHECK(status_of_child([&] {
          try {
            lease.run([](int) {});
          } catch (const std::runtime_error&) {
            return use_pool();
          }
          return 1;
        }) == 0);
  int ran[2] = {0, 0};
  lease.run([&](int rank) { ran[rank] = 1; });
  CHECK(ran[0] == 1);
}

// If the system refuses threads, a call runs on those it gets.
void test_no_more_threads() {
  int status = status_of_child([] {
    rlimit none = {1, 1};
    if (setrlimit(RLIMIT_NPROC, &none) != 0) return 1;
    // The limit does not bind root.
    if (geteuid() == 0 && setuid(65534) != 0) return 77;
    bool refused = false;
    try {
      std::thread([] {}).join();
    } catch (const std::system_error&) {
      refused = true;
    }
    if (!refused) return 77;
    Lease lease(3);
    int ran = 0;
    lease.run([&](int) { ++ran; });
    return lease.size() == 1 && ran == 1 ? 0 : 2;
  });
  if (status == 77 << 8)
    std::printf("skipped: this system does not limit threads\n");
  else
    CHECK(status == 0);
}

}  // namespace

int main() {
  test_limits();
  test_run_calls_every_rank_at_most_once();
  test_short_leases();
  test_phases_order_memory();
  test_chains_are_in_order();
  test_work_of_the_absent();
  test_jobs_end_without_their_workers();
  test_meetings();
  test_stop();
  test_exceptions();
  test_many_callers();
  test_lease_in_a_lease();
  test_workers_keep_off_the_caller();
  // Emulators and ThreadSanitizer cannot start threads in the child of a process with several.
  const char* wish = std::getenv("QUADGATE_TEST_FORK");
  if (wish == nullptr || std::string(wish) != "0") {
    test_fork();
    test_fork_while_another_thread_runs();
    test_fork_inside_a_lease();
    test_no_more_threads();
  } else {
    std::printf("skipped: fork\n");
  }
  return check::result();
}
