// Estimates of the cost model: what is known of their order, whatever the machine's constants.
#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "check.h"
#include "cpu/caches.h"
#include "cpu/throughput.h"
#include "parallel/cost.h"
#include "parallel/plan.h"
#include "work_cases.h"

using namespace quadgate;

namespace {

double cycles(double bytes, size_t steps, Pass pass) { return estimate(one_row(bytes, steps, pass), Plan()); }

// Training's forward pass finds its weights in L2 only if backward's and the gradients have room beside them, and has
// read them after one step.
void test_first_reading_in_training() {
  const double l2 = double(l2_bytes());
  double more[2];
  for (size_t i = 0; i < 2; ++i) {
    const size_t steps = i == 0 ? 1 : 100;
    CHECK(cycles(l2 / 4, steps, Pass::training_forward) == cycles(l2 / 4, steps, Pass::inference));
    more[i] = cycles(l2 / 2, steps, Pass::training_forward) - cycles(l2 / 2, steps, Pass::inference);
  }
  CHECK(more[0] > 0);
  CHECK(std::abs(more[1] - more[0]) < 1e-6 * more[0]);
}

// Many steps' products with x are made at a time, so that only the first of them reads its weights from beyond L2.
void test_input_product_ahead() {
  const double bytes = 4 * double(l2_bytes());
  CHECK(cycles(bytes, 50, Pass::inference) < 0.8 * 50 * cycles(bytes, 1, Pass::inference));
}

// Threads are as many or more where workers are awake, and where h takes part in the first step.
void test_pace_of_plans() {
  bool more = false;
  for (Pass pass : {Pass::inference, Pass::training_forward, Pass::backward})
    for (size_t rows : {1, 4, 20, 100})
      for (double bytes = 1e5; bytes < 1e7; bytes *= 1.5) {
        Work work = one_row(bytes, 1, pass);
        work.rows = rows;
        work.bare_step = pass == Pass::inference;
        const size_t asleep = choose_plan(work, 2).threads();
        work.awake = true;
        const size_t awake = choose_plan(work, 2).threads();
        CHECK(asleep <= awake);
        more = more || asleep < awake;
        const double with_h = estimate(work, Plan());
        work.no_first_h = true;
        // first_read_cycles has an edge where backward's two copies of the panels no longer fit L2: below it, a little
        // more of them is read again.
        const double edge = 0.9 * double(l2_bytes()), of_h = 4.0 * 64 * 64 * sizeof(float);
        const bool across = pass == Pass::backward && 2 * bytes > edge && 2 * (bytes - of_h) <= edge;
        CHECK(across || estimate(work, Plan()) < with_h);
      }
  CHECK(more);
}

// Threads that share the units of a single step read a part of the weights each; those of a long call would meet at
// each of its steps.
void test_one_step_is_split_over_units() {
  Work work = one_row(1e6, 1, Pass::inference);
  work.rows = 8;
  CHECK(choose_plan(work, 2).units == 2);
  work.steps = 100;
  work.rows = 200;
  CHECK(choose_plan(work, 2).rows == 2);
}

// Threads share the input products of a narrow layer, whose time loop is one thread's: more of them than it has blocks.
void test_one_loop() {
  Work work = one_row(1e6, 100, Pass::inference);
  work.input = 2000;
  work.hidden = work.recurrent = work.output = 24;
  CHECK(!choose_plan(work, 8).one_loop);  // its steps are more than their cells
  work.whole_loop = true;
  for (size_t threads : {2, 8}) {
    const Plan plan = choose_plan(work, threads);
    CHECK(plan.one_loop && plan.rows == 1 && plan.threads() > threads / 3);
    CHECK(estimate(work, plan) < 0.8 * estimate(work, Plan()));
  }
  CHECK(!choose_plan(work, 1).one_loop);
  // Backward, helpers wait for the end of the loop, or sleep through it.
  work.pass = Pass::backward;
  for (size_t steps : {10, 100, 1000}) {
    work.steps = steps;
    CHECK(!choose_plan(work, 8).one_loop && choose_plan(work, 2).helpers == 1);
  }
  work.input = 24;
  CHECK(choose_plan(work, 2).threads() == 1);
}

// Few rows of a wide input, whose steps are short beside the products of all of them: at some sizes, which depend on
// the machine, one thread has all rows, and helpers share the products. Not where there is little to share.
void test_helpers_of_rows() {
  size_t helped = 0;
  for (bool awake : {false, true})
    for (size_t steps : {1, 2, 10, 25})
      for (size_t rows : {2, 3, 4}) {
        for (size_t input = 64; input <= 8192; input += input / 2) {
          Work work = rows_of(steps, rows, input, 24, Pass::backward);
          work.awake = awake;
          const Plan plan = choose_plan(work, 2);
          helped += plan.rows == 1 && plan.helpers > 0;
          CHECK(plan.threads() <= 2 && choose_plan(work, 1).threads() == 1);
          if (input == 64 && steps == 1) CHECK(plan.threads() == 1);
        }
      }
  CHECK(helped > 0);
}

// Threads share the units of a long step if one part of the rows would be larger than the other.
void test_uneven_rows() {
  for (Pass pass : {Pass::inference, Pass::training_forward, Pass::backward})
    for (size_t rows : {5, 7, 9}) {
      const Plan plan = choose_plan(rows_of(100, rows, 512, 512, pass), 2);
      CHECK(plan.rows == 1 && plan.units == 2);
    }
}

size_t tiles(size_t rows, size_t parts) {
  size_t n = 0;
  for (size_t i = 0; i < parts; ++i) n += ceil_div(rows * (i + 1) / parts - rows * i / parts, 6);
  return n;
}

// Threads take more parts of the rows than they are in turn, where that makes no more tiles and there are enough steps.
void test_parts_in_turn() {
  const size_t parts = choose_plan(rows_of(100, 16, 64, 128, Pass::inference), 2).parts;
  CHECK(parts == 3 || parts == 0);  // 5, 5 and 6 rows instead of 8 and 8; not where L2 is slow
  CHECK(choose_plan(rows_of(100, 12, 64, 128, Pass::inference), 2).parts == 0);  // 6 and 6
  CHECK(choose_plan(rows_of(5, 16, 64, 128, Pass::inference), 2).parts == 0);
  CHECK(choose_plan(rows_of(100, 16, 64, 128, Pass::inference), 1).parts == 0);
  Work compact = rows_of(100, 16, 64, 128, Pass::inference);
  compact.rate = 2.5;
  CHECK(choose_plan(compact, 2).parts == 0);
  size_t some = 0;
  for (Pass pass : {Pass::inference, Pass::training_forward, Pass::backward})
    for (size_t rows : {2, 5, 16, 24, 40, 64, 100, 640})
      for (size_t hidden : {24, 90, 128, 512, 2048})
        for (size_t threads : {2, 3, 4, 8, 16}) {
          const Plan plan = choose_plan(rows_of(100, rows, 64, hidden, pass), threads);
          CHECK(plan.threads() <= threads && plan.row_parts() >= plan.rows && plan.row_parts() <= rows);
          if (plan.parts == 0) continue;
          ++some;
          CHECK(plan.parts > plan.rows && plan.rows == plan.threads());
          CHECK(tiles(rows, plan.parts) <= tiles(rows, plan.rows));
        }
  CHECK(some > 50);
  Plan in_turn;
  in_turn.rows = 2;
  in_turn.parts = 3;
  for (const Plan& plan : {Plan(), in_turn})
    for (size_t steps : {1, 7, 100, 1000})
      for (double flops : {1e3, 1e6, 1e9})
        for (size_t at_once : {1, 5, 16}) {
          const size_t link = link_steps(plan, steps, 10, flops / 10, at_once, 2e7);
          CHECK(link >= 1 && (link == steps || (link < steps && link % at_once == 0)));
          if (plan.parts) CHECK(link <= link_steps(Plan(), steps, 10, flops / 10, at_once, 2e7));
        }
}

// A pipeline of layers works on as many steps at a time as it has parts: one step gains nothing by it, two steps of two
// layers a quarter at most.
void test_pipelines() {
  size_t some = 0;
  Plan pipeline;
  for (size_t steps : {1, 2, 5, 20, 200})
    for (size_t rows : {1, 4, 20})
      for (size_t hidden : {24, 128, 200, 512})
        for (size_t layers : {2, 3, 8}) {
          Work work = rows_of(steps, rows, hidden, hidden, Pass::inference);
          work.layers = layers;
          for (size_t threads : {2, 3, 8}) {
            pipeline.layers = threads;
            if (steps == 1 && layers >= threads) CHECK(estimate(work, pipeline) > estimate(work, Plan()));
            const Plan plan = choose_plan(work, threads);
            CHECK(plan.layers == 1 || (steps > 1 && plan.layers <= layers));
            some += plan.layers > 1;
          }
          pipeline.layers = 2;
          if (steps == 2 && layers == 2) CHECK(estimate(work, pipeline) > 0.75 * estimate(work, Plan()));
        }
  CHECK(some > 0);
}

// Two directions side by side read the weights of both at each step. Beside a fast L3 that holds only one of them,
// threads share the units of one direction and then of the other.
void test_weights_from_memory() {
  const double l3 = double(cache_sizes().l3), l2 = double(l2_bytes()), beyond = core_throughput().beyond;
  CHECK(from_memory_cycles(1e8, 0.4 * l3, 1) == 0);
  CHECK(from_memory_cycles(l2 / 2, 100 * l3, 1) == 0);  // L2 holds them
  if (l3 == 0 || beyond <= 16) return;
  CHECK(from_memory_cycles(1e8, l3, 1) > 0);
  CHECK(from_memory_cycles(1e8, 4 * l3, 1) > from_memory_cycles(1e8, l3, 1));
  CHECK(from_memory_cycles(1e8, l3, 64) == 0);  // so many cores get no more from L3
  const size_t hidden = size_t(std::sqrt(0.4 * l3 / (4 * sizeof(float))));
  for (size_t rows : {1, 2, 4}) {
    Work work = rows_of(50, rows, 128, hidden, Pass::inference);
    work.directions = 2;
    work.output = 2 * hidden;
    work.chunks = false;
    const Plan plan = choose_plan(work, 2);
    CHECK(plan.directions == 1 && plan.units == 2);
  }
  // Of one direction that L3 does not hold, two threads read half of the weights each rather than all of them.
  const size_t large = size_t(std::sqrt(2 * l3 / (4 * sizeof(float))));
  for (size_t rows : {2, 8, 16}) CHECK(choose_plan(rows_of(50, rows, 128, large, Pass::inference), 2).units == 2);
}

// Input products ahead read weight_ih rarely, which pays more where the weights of all layers that take turns come from
// memory.
void test_ahead_from_memory() {
  const double l3 = double(cache_sizes().l3);
  size_t changed = 0;
  for (double share : {0.05, 0.2, 0.4, 2.0})  // of L3, what one layer's weights take
    for (size_t rows : {2, 4, 7, 12, 20, 24, 32, 48, 64}) {
      const size_t hidden = size_t(std::sqrt(share * std::max(l3, 1e6) / (8 * sizeof(float))));
      InputProduct p = {hidden, hidden, rows, 35, ceil_div(hidden, 16), {16, 6, sizeof(float)}, sizeof(float), 1, 1};
      const bool one = cheaper_ahead(p);
      p.layers = 4;
      const bool four = cheaper_ahead(p);
      CHECK(four || !one);
      changed += four != one;
      if (share > 1 && rows <= 32 && l3 > 0 && core_throughput().beyond > 16) CHECK(one);
    }
  if (l3 > 0 && core_throughput().beyond > 16) CHECK(changed > 0);
}

// Sums of int8 go through memory within the steps, too, so that the detour of those ahead counts a tenth. With all of
// it three rows of 256 columns and 40 or 64 units would stay within the steps, by the rates of every machine.
void test_int8_ahead() {
  for (size_t hidden : {40, 64, 256})
    for (size_t rows : {2, 3}) {
      InputProduct p = {256, hidden, rows, 100, ceil_div(hidden, 16), {16, 6, sizeof(float)}, 1, 2.5, 1};
      CHECK(cheaper_ahead(p));
    }
}

// Of a few times the last has no fewer than a quarter of the others' steps; all are of about 96 rows or of few steps.
void test_steps_ahead() {
  for (size_t rows : {1, 2, 7, 10, 16, 33, 95, 96, 97, 640})
    for (size_t steps = 2; steps < 1200; ++steps) {
      const size_t each = ahead_steps(rows, steps), last = (steps - 1) % each + 1;
      CHECK(each >= 1 && each <= steps && (each == steps || each >= 3));
      CHECK(each * rows <= std::max<size_t>(150, 5 * rows));
      CHECK(each < 8 || steps > 6 * each || 4 * last >= each);
    }
}

// The gradients of a single step from zeros leave most of the products out, so that small ones keep to one thread.
void test_backward_without_h() {
  int fewer = 0;
  for (size_t rows : {1, 8, 33, 256})
    for (size_t steps : {1, 2}) {
      Work work = one_row(1e5, steps, Pass::backward);
      work.rows = rows;
      const double whole = estimate(work, Plan());
      const size_t threads = choose_plan(work, 2).threads();
      work.no_first_h = true;
      CHECK(steps == 1 ? estimate(work, Plan()) < whole : estimate(work, Plan()) == whole);
      const size_t without = choose_plan(work, 2).threads();
      CHECK(without <= threads);
      fewer += without < threads;
    }
  CHECK(fewer > 0);
}

}  // namespace

int main() {
  test_first_reading_in_training();
  test_input_product_ahead();
  test_pace_of_plans();
  test_one_step_is_split_over_units();
  test_one_loop();
  test_helpers_of_rows();
  test_uneven_rows();
  test_parts_in_turn();
  test_pipelines();
  test_weights_from_memory();
  test_ahead_from_memory();
  test_int8_ahead();
  test_steps_ahead();
  test_backward_without_h();
  return check::result();
}
