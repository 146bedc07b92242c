// A forward call of a single step, whose layers are no more than their cells.
#include "rnn/forward/single.h"

#include <algorithm>

#include "memory/carver.h"
#include "parallel/this_thread.h"
#include "rnn/one_step.h"
#include "rnn/scratch.h"

namespace quadgate {

namespace {

// run_one_step chains layers by h and applies no masks, so with a tape it takes one layer without masks.
template <class Real>
bool can_tape(const Tape<Real>& tape) {
  const Masks& m = tape.masks;
  return tape.weights->sizes.layers == 1 && m.recurrent.empty() && m.zoneout_h.empty() && m.zoneout_c.empty();
}

}  // namespace

template <class Real>
bool forward_single(const ForwardCall<Real>& call, Pace& pace) {
  if (call.steps != 1 || call.batch == 0 || call.lengths || call.resets || call.cells) return false;
  const Weights<Real>& w = *call.weights;
  const Sizes& s = w.sizes;
  const size_t L = s.layers, B = call.batch, R = s.recurrent(), C = s.cell();
  Tape<Real>* const tape = call.tape;
  if (!only_cells(s, B) || (tape && !can_tape(*tape))) return false;
  OneStep<Real> one = {};
  one.weights = &w;
  one.batch = B;
  one.without_h = !call.h0 && w.zero_for_zero_h(B);
  Work work = tape ? work_of(w, 1, B, Pass::training_forward) : work_of_one_step(w, B, one.without_h);
  work.no_first_h = one.without_h;
  const Plan plan = pace.plan(work, size_t(get_num_threads()));
  if (!rows_or_units(plan)) return false;
  Lease lease(int(plan.threads()));
  if (tape) tape->begin(call.h0, call.c0);
  one.tape = tape;
  one.h = call.h;
  one.c = call.c;

  ScratchLease memory;
  if (memory.of_thread()) one.floats = w.kept_floats(reads_of_one_step(plan, B, one.without_h));
  const size_t n_zeros = std::max(call.h0 ? 0 : R, call.c0 ? 0 : C);
  Real* zeros = nullptr;
  memory.carve([&](Carver& carver) {
    one.rows = carver.take<ForwardRow<Real>>(L * B);
    zeros = carver.take<Real>(n_zeros);
    one.work = carver.take<char>(plan.threads() * w.compact_work(B));
  });
  std::fill_n(zeros, n_zeros, Real(0));
  for (size_t l = 0; l < L; ++l)
    for (size_t b = 0; b < B; ++b) {
      const size_t at = l * B + b;
      ForwardRow<Real>& row = one.rows[at];
      row = {};
      row.x = l ? call.h + (at - B) * R : call.x.at(0, b);
      row.h = call.h0 ? call.h0 + at * R : zeros;
      row.c_prev = call.c0 ? call.c0 + at * C : zeros;
      row.y = (tape ? tape->y[0].data() : call.h) + at * R;
      row.c = (tape && C ? tape->c[0].data() : call.c) + at * C;
      if (tape) row.gates = tape->gates[0].data() + b * s.taped();
      if (l + 1 == L) row.y_copy = call.y.at(0, b);
    }
  if (ThisThread* thread = this_thread()) one.descending = thread->next_ascending = !thread->next_ascending;
  run_one_step(one, plan, lease);
  return true;
}

template bool forward_single<float>(const ForwardCall<float>&, Pace&);
template bool forward_single<double>(const ForwardCall<double>&, Pace&);

}  // namespace quadgate
