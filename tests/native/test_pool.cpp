// The pool: calls do not wait for each other and stay within the limit, and a forked child works. Nothing here depends
// on how fast a thread is.
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "check.h"
#include "share.h"

using namespace quadgate;

namespace {

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
