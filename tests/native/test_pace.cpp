// The pace that threads know from the calls before, and the plans that they keep.
#include <algorithm>
#include <chrono>
#include <initializer_list>
#include <thread>

#include "check.h"
#include "parallel/pace.h"
#include "parallel/plan.h"
#include "parallel/turns.h"
#include "work_cases.h"

using namespace quadgate;

namespace {

// A call that follows another at once finds workers awake, one after a pause does not. Any single call may come late.
void test_pace() {
  { CHECK(!Pace().follows_closely()); }
  int close = 0;
  for (int i = 0; i < 1000; ++i) close += Pace().follows_closely();
  CHECK(close > 0);
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    CHECK(!Pace().follows_closely());
  }
}

// After long wakes calls whose workers sleep have fewer threads, after short ones more; wakes of about one length
// change nothing.
void test_wakes() {
  auto start = [] {
    unsigned asked = 0;
    return sleeping_start_cycles(asked);
  };
  auto notes = [&](int n, int64_t ns) {
    for (int i = 0; i < n; ++i) note_wake(ns);
    return start();
  };
  CHECK(notes(100, 2000) == kStartCycles);
  CHECK(notes(1, 1000000) == kStartCycles);  // a few late wakes say little
  CHECK(notes(3, 1000000) <= 2 * kStartCycles);
  const double costly = notes(100, 30000);
  CHECK(costly >= 4 * kStartCycles);
  for (int i = 0; i < 1000; ++i) CHECK(notes(1, i % 2 ? 24000 : 36000) == costly);
  size_t fewer = 0;
  for (size_t rows : {1, 4, 20, 100})
    for (double bytes = 1e5; bytes < 1e7; bytes *= 1.5)
      for (bool awake : {false, true})
        for (Pass pass : {Pass::inference, Pass::backward}) {
          Work work = one_row(bytes, 5, pass);
          work.rows = rows;
          work.awake = awake;
          const size_t threads = choose_plan(work, 4).threads();
          work.start = costly;
          const size_t with_costly = choose_plan(work, 4).threads();
          CHECK(with_costly <= threads && (!awake || with_costly == threads));
          fewer += with_costly < threads;
        }
  CHECK(fewer > 0);
  // Calls that would wake nobody find out that wakes have become short.
  unsigned asked = 0;
  for (int i = 0; i < 20000; ++i)
    if (sleeping_start_cycles(asked) == kStartCycles) note_wake(2000);
  CHECK(start() == kStartCycles);
}

// Workers count as far once most handovers take long, as near again soon after that has ended, and also if there is
// none for a while.
void test_handovers() {
  int64_t of_clock = 1000000;
  for (int i = 0; i < 100; ++i) {
    const int64_t before = turn_clock();
    of_clock = std::min(of_clock, turn_clock() - before);
  }
  auto note = [=](int64_t ns, int times) {
    for (int i = 0; i < times; ++i) {
      const int64_t now = turn_clock();
      note_handover(now - ns - of_clock, now);
    }
  };
  CHECK(!workers_are_far());
  note(50, 50);
  note(1000000, 3);  // threads that were put off their cores
  CHECK(!workers_are_far());
  note(300, 50);
  CHECK(workers_are_far());
  note(165, 50);  // neither
  CHECK(workers_are_far() || of_clock > 100);
  note(50, 50);
  CHECK(!workers_are_far());
  note(165, 50);
  CHECK(!workers_are_far() || of_clock > 100);
  note(0, 50);
  note(250, 400);  // the mean arrives
  CHECK(workers_are_far());
  // Calls that keep to one thread find out that workers are near now; if they are not, a few handovers tell.
  std::this_thread::sleep_for(std::chrono::milliseconds(120));
  CHECK(!workers_are_far());
  note(300, 8);
  CHECK(workers_are_far());
  note(0, 50);

  int fewer = 0;
  for (Pass pass : {Pass::inference, Pass::training_forward, Pass::backward})
    for (size_t rows : {1, 8, 32, 256})
      for (double bytes : {1e5, 5e5, 2e6})
        for (bool awake : {false, true}) {
          Work work = one_row(bytes, 20, pass);
          work.rows = rows;
          work.awake = awake;
          const size_t threads = choose_plan(work, 2).threads();
          work.far = true;
          const size_t with_far = choose_plan(work, 2).threads();
          CHECK(with_far <= threads);
          fewer += with_far < threads;
        }
  CHECK(fewer > 0);
}

// A call that follows one with fewer threads does not find all of its own awake.
void test_pace_of_threads() {
  const Plan one;
  Plan two, four;
  two.rows = 2;
  four.rows = 4;
  int closely = 0, after_two = 0;
  for (int i = 0; i < 100; ++i) closely += Pace().follows_closely(one, four);
  CHECK(closely > 0);
  for (int i = 0; i < 100; ++i) {
    CHECK(!Pace().follows_closely(two, two));  // no matter, but noted
    after_two += Pace().follows_closely(one, four);
  }
  CHECK(after_two == 0);
  closely = 0;
  for (int i = 0; i < 100; ++i) {
    CHECK(!Pace().follows_closely(two, two));
    closely += Pace().follows_closely(one, two);
  }
  CHECK(closely > 0);
}

// A thread's kept plans are those that choose_plan finds for its pace, for more kinds of work than are kept.
void test_kept_plans() {
  int differ = 0;
  for (int round = 0; round < 4; ++round)
    for (double bytes : {1e5, 1e6})
      for (size_t rows = 1; rows <= 20; ++rows)
        for (size_t most = 1; most <= 3; ++most) {
          if (round == 0 && rows == 1) std::this_thread::sleep_for(std::chrono::milliseconds(2));
          Work work = one_row(bytes, 1, Pass::inference);
          work.rows = rows;
          work.bare_step = true;
          Pace pace;
          const bool close = pace.follows_closely();
          const Plan kept = pace.plan(work, most), asleep = choose_plan(work, most);
          work.awake = true;
          const Plan awake = choose_plan(work, most);
          differ += awake.threads() != asleep.threads();
          const Plan& want = close && awake.threads() != asleep.threads() ? awake : asleep;
          CHECK(kept.rows == want.rows && kept.units == want.units && kept.layers == want.layers);
          CHECK(kept.directions == want.directions && kept.helpers == want.helpers);
        }
  CHECK(differ > 0);
}

}  // namespace

int main() {
  test_pace();
  test_wakes();
  test_handovers();
  test_pace_of_threads();
  test_kept_plans();
  return check::result();
}
