#include "rnn/one_step.h"

#include "rnn/team.h"

namespace quadgate {
namespace {

// Blocks [begin, end) of layer l.
template <class Real>
void run_blocks(const OneStep<Real>& one, size_t l, size_t begin, size_t end, char* work) {
  const Weights<Real>& w = *one.weights;
  PackedLayer<Real> wide;
  if (one.floats) wide = w.with_floats(l, 0, one.floats);
  const PackedLayer<Real>& p = one.floats ? wide : w.layer(l, 0);
  ForwardStep<Real> step = {};
  step.bias = p.ih.bias;
  step.input_size = p.ih.n_k;
  step.hidden_size = w.sizes.hidden;
  step.recurrent_size = one.without_h ? 0 : w.sizes.recurrent();
  step.rows = one.rows + l * one.batch;
  step.n_rows = one.batch;
  step.block_begin = begin;
  step.block_end = end;
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

}  // namespace

bool only_cells(const Sizes& s, size_t batch) {
  return s.forward_only() && !s.two_passes() && !s.joined() && s.options.cell.zoneout_h == 0 &&
         forward_flops(s, batch) < kSmallStepFlops;
}

template <class Real>
void run_one_step(const OneStep<Real>& one, Lease& lease) {
  const Weights<Real>& w = *one.weights;
  const size_t layers = w.sizes.layers, work_bytes = w.compact_work(one.batch);
  if (lease.size() == 1) {
    keep_inputs(one, 0, one.batch);
    for (size_t l = 0; l < layers; ++l) run_blocks(one, l, 0, w.blocks(), one.work);
    return;
  }
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
    auto keep = [&](size_t begin, size_t end) { keep_inputs(one, begin, end); };
    if (one.tape && !team.ranges(one.batch, keep)) return;
    char* work = work_bytes ? one.work + size_t(rank) * work_bytes : nullptr;
    for (size_t l = 0; l < layers; ++l)
      if (!team.ranges(w.blocks(), [&](size_t begin, size_t end) { run_blocks(one, l, begin, end, work); })) return;
  });
}

#define QG_INSTANTIATE(Real) template void run_one_step<Real>(const OneStep<Real>&, Lease&);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
