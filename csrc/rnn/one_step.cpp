#include "rnn/one_step.h"

#include "rnn/team.h"

namespace quadgate {
namespace {

// Some rows, and blocks of units.
struct Part {
  size_t row0, row1, begin, end;
};

// That part of layer l.
template <class Real>
void run_layer(const OneStep<Real>& one, size_t l, const Part& part, char* work) {
  const Weights<Real>& w = *one.weights;
  PackedLayer<Real> wide;
  if (one.floats) wide = w.with_floats(l, 0, one.floats);
  const PackedLayer<Real>& p = one.floats ? wide : w.layer(l, 0);
  ForwardStep<Real> step = {};
  step.bias = p.ih.bias;
  step.input_size = p.ih.n_k;
  step.hidden_size = w.sizes.hidden;
  step.recurrent_size = one.without_h ? 0 : w.sizes.recurrent();
  step.rows = one.rows + l * one.batch + part.row0;
  step.n_rows = part.row1 - part.row0;
  step.block_begin = part.begin;
  step.block_end = part.end;
  step.descending = one.descending;
  step.options = w.cell_options();
  step.peephole = p.peephole;
  w.forward(p, step, work);
}

// Rows [begin, end).
template <class Real>
void keep_inputs(const OneStep<Real>& one, size_t begin, size_t end) {
  for (size_t b = begin; one.tape && b < end; ++b) one.tape->keep_x(0, b, one.rows[b].x);
}

// Rows [begin, end) through all layers.
template <class Real>
void run_rows(const OneStep<Real>& one, size_t begin, size_t end, char* work) {
  keep_inputs(one, begin, end);
  const Weights<Real>& w = *one.weights;
  for (size_t l = 0; l < w.sizes.layers; ++l) run_layer(one, l, {begin, end, 0, w.blocks()}, work);
}

// All rows, by threads that share the units.
template <class Real>
void run_units(const OneStep<Real>& one, const Team& team, char* work) {
  auto keep = [&](size_t begin, size_t end) { keep_inputs(one, begin, end); };
  if (one.tape && !team.ranges(one.batch, keep)) return;
  const Weights<Real>& w = *one.weights;
  for (size_t l = 0; l < w.sizes.layers; ++l) {
    auto layer = [&](size_t begin, size_t end) { run_layer(one, l, {0, one.batch, begin, end}, work); };
    if (!team.ranges(w.blocks(), layer)) return;
  }
}

}  // namespace

bool only_cells(const Sizes& s, size_t batch) {
  return s.forward_only() && !s.two_passes() && !s.joined() && s.options.cell.zoneout_h == 0 &&
         forward_flops(s, batch) < kSmallStepFlops;
}

template <class Real>
void run_one_step(const OneStep<Real>& one, const Plan& plan, Lease& lease) {
  if (lease.size() == 1) return run_rows(one, 0, one.batch, one.work);
  const size_t work_bytes = one.weights->compact_work(one.batch);
  Control control(nullptr);
  Sharing sharing(size_t(lease.size()), lease.board(1, 0));
  lease.run([&](int rank) {
    Progress progress;
    Team team;
    team.rank = progress.rank = size_t(rank);
    team.size = sharing.threads();
    team.sharing = &sharing;
    team.progress = &progress;
    team.control = &control;
    char* work = work_bytes ? one.work + size_t(rank) * work_bytes : nullptr;
    if (plan.rows > 1)
      team.ranges(one.batch, [&](size_t begin, size_t end) { run_rows(one, begin, end, work); });
    else
      run_units(one, team, work);
  });
}

#define QG_INSTANTIATE(Real) template void run_one_step<Real>(const OneStep<Real>&, const Plan&, Lease&);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
