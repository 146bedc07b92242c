// The cost model: the work and the time of a call, estimated where there are several ways to do it.
//
// Estimates choose between plans (parallel/plan.h) and between schedules of the input product; they never change a
// result's bits. All times are cycles of one core near 3.5 GHz.
//
// To measure the constants anew, on a quiet machine:
//   core_throughput()   bench/ceilings.py prints the rate of multiply-adds and of reads from each cache. Divide the
//                       first by the clock for `multiply_adds`, the rates of L2 and L3 by it for `l2` and `beyond`.
//                       `ahead`, and the constants of cheaper_ahead: times of forward passes with and without input
//                       products ahead at some hundred shapes, 2 to 640 rows; those that choose the slower way least.
//   kBarrierCycles,     its round trip between two cores, times the two ways and the spread of their arrival; a call
//   kStartCycles        of two threads against one where there is next to no work.
//   kAwakeStartCycles,  the same in calls that follow each other at once: of a step without a pass, and of any other.
//   kAwakeCallCycles
//   kPerMemberCycles    the same round trip with more cores.
//   kSharedReads        bench/ceilings.py with all cores: their rate from beyond L2 together, over that of one.
//   kCellCycles,        time per step over hidden sizes and batches, minus the multiply-adds or reads, whichever is
//   kStepCycles         more: the slope over rows and blocks, and the rest.
//   kOverlap            the share of the shorter of both that is not hidden, at shapes where they are about equal.
// Then compare the plans' times with those of one thread at the shapes of bench/shapes.py. bench/NOTES.md has the
// figures and the machines they came from.
#pragma once

#include <algorithm>
#include <cstddef>

namespace quadgate {

// Multiply-adds of a product of (rows, k) and (k, columns), times two.
inline double product_flops(size_t rows, size_t columns, size_t k) { return 2.0 * double(rows * columns) * double(k); }

// Amounts of work, in flops, from which or up to which something pays. 1e5 flops take 0.4 us at full speed, and up to
// 100 us on the slowest machine without vector units.
constexpr double kReleaseGilFlops = 5e5;  // below, a switch of the GIL costs more than the call
constexpr double kKernelCallFlops = 2e6;  // steps done inside one kernel call: some 10 us, between which none can stop
constexpr double kSmallStepFlops = 1e8;   // a stream's step that need not be interruptible
constexpr double kPollFlops = 2e6;  // between two readings of the clock: 10 us at full speed, a few ms at the slowest
constexpr double kInterruptFlops = 1e8;  // if done before the first reading, signals are checked at once
constexpr double kDirectFlops = 5e9;     // of a weight gradient that need not be interruptible: 30 ms at full speed
constexpr double kSliceFlops = 4e9;      // the most between two checks for a stop

// Work that is no product, in flops per element.
constexpr double kJoinFlops = 4, kJoinBackwardFlops = 10, kColumnSumFlops = 20;

constexpr double kCellCycles = 60;          // pointwise part of one row and block
constexpr double kTransposeCycles = 0.5;    // of an element of a gradient that is moved from panels to its array
constexpr double kStepCycles = 150;         // latency that nothing hides at the end of a step
constexpr double kBarrierCycles = 3000;     // two threads wait for the end of a phase
constexpr double kPerMemberCycles = 220;    // each further thread of it: a line that goes from core to core
constexpr double kStartCycles = 15000;      // waking a worker that sleeps and waiting for its end, at least: see pace.h
constexpr double kAwakeStartCycles = 3000;  // the same where it still spins after the call before
constexpr double kAwakeCallCycles = 9000;   // and takes the call's memory and results from the caller's cache
constexpr double kPerThreadCycles = 1000;   // each further thread that gets a job
constexpr double kL2InTiles = 0.58;         // of the rate of L2, what a tile of few rows gets
constexpr double kOverlap = 0.35;           // of the shorter of multiplying and reading, the part that is not hidden

// Cycles of work that is bound by multiply-adds or by reads, which run beside each other, but never quite.
inline double overlapped(double multiply, double read) {
  return std::max(multiply, read) + kOverlap * std::min(multiply, read);
}

// Sizes of a table of kernels that costs depend on: lanes of a vector, rows of its largest tile, bytes of an element.
struct KernelSizes {
  size_t width, max_rows, element_size;
};

// Cycles of the multiply-adds for one k of one block and row.
double multiply_cycles(const KernelSizes& kernels);

// Cycles in which so many threads wait for the end of a phase.
inline double phase_cycles(size_t threads) {
  return kBarrierCycles + kPerMemberCycles * double(threads > 2 ? threads - 2 : 0);
}

// The rate of reads from beyond L2 of all cores together, as a multiple of one core's alone.
constexpr double kSharedReads = 4;

// Cycles in which a core reads `bytes` that it reads repeatedly, in alternating order, while so many cores do the same.
double read_cycles(double bytes, size_t cores);

// Cycles that the first reading of `bytes` takes beyond read_cycles where, since the last one, each core has read and
// written `others` bytes in the same order as before: it finds all of them in L2, or none.
double first_read_cycles(double bytes, double others, size_t cores);

// Cycles that reading `bytes` of weights takes beyond read_cycles where all cores together read `all` in each step,
// which are more than L3 keeps.
double from_memory_cycles(double bytes, double all, size_t cores);

// Steps whose input products are made at a time: of 64 to 144 rows, enough to read the weights rarely, little enough to
// stay in cache; at least three steps, and none left over at the end that would need the weights once more.
inline size_t ahead_steps(size_t rows, size_t steps) {
  const size_t wanted = std::max<size_t>(3, 96 / rows),
               times = std::max<size_t>(1, (2 * steps + wanted - 1) / (2 * wanted));
  return (steps + times - 1) / times;
}

// A layer's input product ahead of the time loop, many steps' rows at a time, or within each step as more k.
struct InputProduct {
  size_t input, recurrent;  // columns of x and of h
  size_t rows, steps, n_blocks;
  KernelSizes kernels;
  double weight_size, rate;  // as in Work
  size_t layers;             // whose weights a few steps read in turn
};

// Compares estimated cycles of both ways for one k of one block: true if ahead is cheaper.
bool cheaper_ahead(const InputProduct& product);

}  // namespace quadgate
