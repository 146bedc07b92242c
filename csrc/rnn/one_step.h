// One step of a network whose layers are no more than their cells: the calls in which all that surrounds the kernels
// shows. Streams make such steps, and forward calls of one step.
#pragma once

#include "parallel/pool.h"
#include "rnn/tape.h"
#include "rnn/weights.h"

namespace quadgate {

template <class Real>
struct OneStep {
  const Weights<Real>* weights;
  ForwardRow<Real>* rows;  // (L,B), complete; a layer's x is the y of the one below
  size_t batch;
  bool without_h;                   // h is zero, and its product is left out
  bool descending;                  // as in ForwardStep
  FloatWeights<Real> floats;        // of compact weights
  Tape<Real>* tape;                 // keeps x of the only layer; or null
  char* work;                       // compact_work(batch) bytes for each thread; not read where that is 0
  Real *h = nullptr, *c = nullptr;  // (B,R), (B,H): with a tape, copies of the rows' y and c, which lie on it
};

// True if steps of so many rows are done in this way: each layer is one product and the cell, one direction forward in
// time, and a step is too short to be interrupted.
bool only_cells(const Sizes& sizes, size_t batch);

// The plan of such a step without a tape: work for choose_plan.
template <class Real>
Work work_of_one_step(const Weights<Real>& weights, size_t batch, bool without_h = false) {
  const FloatMatrices floats = weights.float_matrices({batch, 1, size_t(get_num_threads()), without_h});
  Work work = work_of(weights, 1, batch, Pass::inference, floats);
  work.bare_step = true;
  return work;
}

// The part of such a step that one thread reads under a plan.
inline Reads reads_of_one_step(const Plan& plan, size_t batch, bool without_h) {
  return {ceil_div(batch, plan.rows), 1, plan.rows > 1 ? 1 : plan.units, without_h};
}

// True if the threads of a plan have parts of the rows, or share the units of each layer, and nothing else.
inline bool rows_or_units(const Plan& plan) { return plan.threads() == (plan.rows > 1 ? plan.rows : plan.units); }

// By the threads of the lease, as the plan has it, which may be for more.
template <class Real>
void run_one_step(const OneStep<Real>& step, const Plan& plan, Lease& lease);

}  // namespace quadgate
