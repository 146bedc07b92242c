// The split of a call over threads, chosen by its estimated cost.
#pragma once

#include <cstddef>

#include "parallel/cost.h"

namespace quadgate {

inline size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

// Training runs forward with a tape, then backward.
enum class Pass { inference, training_forward, backward };

// A call in numbers. `rows` is the batch; `steps` the longest row's.
struct Work {
  size_t steps, rows, input, hidden, layers, directions;
  size_t recurrent, output;              // columns of h, and of a layer's output
  size_t passes;                         // of a step: each meets its team once
  size_t width, max_rows, element_size;  // of the kernel table and type
  double weight_size, rate;              // bytes of a packed weight; multiply-adds in the time of one of float
  Pass pass;
  bool chunks;                  // a few steps can go through all layers before the next: not if one reads backwards
  bool narrow_last;             // a layer's last panel is half as wide, see kernels/layouts.h
  bool no_first_h = false;      // the first step has no product with h, nor its weights' gradient
  bool bare_step = false;       // a step without a pass, whose memory threads would take from each other's caches
  bool awake = false;           // workers spin already, see pace.h
  double start = kStartCycles;  // of a call whose workers sleep
  bool far = false;             // their cores have no cache in common with the caller's
  bool whole_loop = false;      // steps are no more than their cells: a thread can have many, see Plan::one_loop
  double widening = 0;          // rows whose multiply-adds take as long as widening the weights for them
};
bool operator==(const Work& a, const Work& b);

// A product of splits: rows x directions x units x layers threads. Rows share nothing until the weight gradients;
// directions and layers meet once a layer or a chunk of steps; units meet at every step, in teams of one part of the
// rows and one direction. In a backward pass there may be helpers beside them, which have no rows of their own and
// share the products over all rows and steps only.
//
// With `one_loop` the threads of a forward pass's team, which may be more than there are blocks of units, share the
// input products that are made ahead, and one of them has the time loop. A layer without such products is split over
// its units.
//
// If threads share nothing but rows and directions, `parts` may be more than `rows`: parts of the rows that threads
// take in turn, some steps at a time, so that one on a faster core does more.
struct Plan {
  size_t rows = 1, directions = 1, units = 1, layers = 1, helpers = 0;
  bool one_loop = false;
  size_t parts = 0;  // 0: as many as `rows`
  size_t threads() const { return rows * directions * units * layers + helpers; }
  size_t row_parts() const { return parts ? parts : rows; }
};

// So many chunks of steps, or a few more, go through a pipeline of layers, if there are as many steps.
constexpr size_t kChunks = 16;

// The fastest plan of at most `max_threads` threads; fewer threads if more would not pay. A backward pass is split
// over rows or units only, since its directions and layers add into shared gradients.
Plan choose_plan(const Work& work, size_t max_threads);

// Estimated cycles of the work under a plan.
double estimate(const Work& work, const Plan& plan);

// Steps that a thread does of a part of so many rows before another may go on with it, of `steps`: a multiple of
// `at_once` or all of them. row_flops: of one row and step. They have about `most_flops`; where threads take parts in
// turn less, but enough to be worth their beginning.
size_t link_steps(const Plan& plan, size_t steps, size_t rows, double row_flops, size_t at_once, double most_flops);

}  // namespace quadgate
