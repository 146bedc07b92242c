#include "rnn/one_step.h"

#include <algorithm>
#include <cstring>

#include "rnn/team.h"

namespace quadgate {
namespace {

// The arguments of a phase.
template <class Real>
struct Phase {
  const OneStep<Real>& one;
  size_t layer;
  char* work;
};

// Some rows and blocks of units of a layer.
template <class Real>
void run_part(const Phase<Real>& p, size_t index, size_t row0, size_t row1, size_t begin, size_t end) {
  const OneStep<Real>& one = p.one;
  const Weights<Real>& w = *one.weights;
  PackedLayer<Real> wide;
  if (one.floats.panels) wide = w.with_floats(index, 0, one.floats);
  const PackedLayer<Real>& layer = one.floats.panels ? wide : w.layer(index, 0);
  ForwardStep<Real> step = {};
  step.bias = layer.ih.bias;
  step.input_size = layer.ih.n_k;
  step.hidden_size = w.sizes.hidden;
  step.recurrent_size = one.without_h ? 0 : w.sizes.recurrent();
  step.rows = one.rows + index * one.batch + row0;
  step.n_rows = row1 - row0;
  step.block_begin = begin;
  step.block_end = end;
  step.descending = one.descending;
  step.options = w.cell_options();
  step.peephole = layer.peephole;
  w.forward(layer, step, p.work);
  // The thread that wrote these copies them: they would go from cache to cache for another.
  const size_t units = layer.hh.shape.row_blocks() * layer.hh.shape.width, first = begin * units;
  const size_t bytes = (std::min(end * units, step.hidden_size) - first) * sizeof(Real);
  for (size_t b = row0; one.tape && b < row1; ++b) {
    const ForwardRow<Real>& row = one.rows[b];
    const size_t at = b * step.hidden_size + first;
    std::memcpy(one.h + at, row.y + first, bytes);
    if (w.sizes.cell()) std::memcpy(one.c + at, row.c + first, bytes);
  }
}

// The phases: x to the tape; rows through all layers; blocks of units of a layer.
template <class Real>
void keep_inputs(const void* phase, size_t begin, size_t end) {
  const OneStep<Real>& one = static_cast<const Phase<Real>*>(phase)->one;
  for (size_t b = begin; one.tape && b < end; ++b) one.tape->keep_x(0, b, 1, one.rows[b].x, 0);
}
template <class Real>
void run_rows(const void* phase, size_t begin, size_t end) {
  keep_inputs<Real>(phase, begin, end);
  const auto& p = *static_cast<const Phase<Real>*>(phase);
  const Weights<Real>& w = *p.one.weights;
  for (size_t layer = p.layer; layer < w.sizes.layers; ++layer) run_part(p, layer, begin, end, 0, w.blocks());
}
template <class Real>
void run_blocks(const void* phase, size_t begin, size_t end) {
  const auto& p = *static_cast<const Phase<Real>*>(phase);
  run_part(p, p.layer, 0, p.one.batch, begin, end);
}

// Without the types of the phases, so that Sharing is compiled once for all of them.
bool share(const Team& team, size_t n, void (*f)(const void* phase, size_t begin, size_t end), const void* phase) {
  return team.ranges(n, [=](size_t begin, size_t end) { f(phase, begin, end); });
}

}  // namespace

bool only_cells(const Sizes& s, size_t batch) {
  return s.forward_only() && !s.two_passes() && !s.joined() && s.options.cell.zoneout_h == 0 &&
         forward_flops(s, batch) < kSmallStepFlops;
}

template <class Real>
void run_one_step(const OneStep<Real>& one, const Plan& plan, Lease& lease) {
  const Weights<Real>& w = *one.weights;
  const Phase<Real> all = {one, 0, one.work};
  if (lease.size() == 1) return run_rows<Real>(&all, 0, one.batch);
  const size_t work_bytes = w.compact_work(one.batch);
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
    Phase<Real> phase = all;
    if (work_bytes) phase.work += size_t(rank) * work_bytes;
    if (plan.rows > 1) {
      share(team, one.batch, run_rows<Real>, &phase);
      return;
    }
    if (one.tape && !share(team, one.batch, keep_inputs<Real>, &phase)) return;
    for (; phase.layer < w.sizes.layers; ++phase.layer)
      if (!share(team, w.blocks(), run_blocks<Real>, &phase)) return;
  });
}

#define QG_INSTANTIATE(Real) template void run_one_step<Real>(const OneStep<Real>&, const Plan&, Lease&);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
