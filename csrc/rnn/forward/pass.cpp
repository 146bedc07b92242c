#include "rnn/forward/pass.h"

#include <cstring>

#include "cpu/caches.h"
#include "parallel/cost.h"
#include "parallel/pace.h"
#include "rnn/forward/products.h"
#include "rnn/forward/single.h"
#include "rnn/scratch.h"

namespace quadgate {

template <class Real>
ForwardSizes ForwardPass<Real>::sizes() const {
  const Options& o = s_.options;
  const size_t W = w_.kernels.width;
  ForwardSizes n = {};
  n.hidden = s_.hidden;
  n.recurrent = s_.recurrent();
  n.gate_rows = s_.gates() * s_.hidden;
  n.taped = s_.taped();
  n.panel = w_.layer(0, 0).hh.row();
  n.hr_panel = o.projection ? w_.layer(0, 0).hr.row() : 0;
  n.compact = w_.compact();
  const Reads reads = {call_.batch, call_.steps, size_t(get_num_threads()), false};
  for (size_t l = 0; l < s_.layers; ++l) n.wide = std::max(n.wide, w_.float_elements(l, w_.widened(l, reads)));
  n.compact_k = w_.quantized_k();
  n.width = W;
  n.norm = o.layer_norm != LayerNorm::none;
  n.norm_work = n.norm ? 2 * n_blocks(s_.hidden, W) * W : 0;
  n.join_work = o.shortcut == Shortcut::highway ? join_work(w_) : 0;
  n.projection = o.projection > 0;
  n.two_passes = s_.two_passes();
  n.masked = masks() && !masks()->recurrent.empty();
  n.extra = n.masked || o.cell.zoneout_h > 0 || o.cell.zoneout_c > 0;
  n.resets = call_.resets != nullptr;
  n.tape = call_.tape != nullptr;
  return n;
}

template <class Real>
bool ForwardPass<Real>::run(Pace& pace) {
  prepare_outputs();
  if (order_.steps() == 0 || order_.batch() == 0) {
    if (call_.tape) call_.tape->begin(call_.h0, call_.c0);
    return true;
  }
  context_.no_first_h = !call_.h0 && !n_.norm && w_.zero_for_zero_h(order_.batch());
  const bool never_h = context_.no_first_h && order_.steps() == 1;
  Reads reads = {order_.batch(), order_.steps(), size_t(get_num_threads()), never_h};
  FloatMatrices floats = w_.float_matrices(reads);
  if (!floats.any()) floats = w_.widened(0, reads);
  Work work =
      work_of(w_, order_.steps(), order_.batch(), call_.tape ? Pass::training_forward : Pass::inference, floats);
  work.no_first_h = context_.no_first_h;
  work.whole_loop = !n_.two_passes && !n_.norm && !n_.extra && !n_.resets;
  plan_ = pace.plan(work, size_t(get_num_threads()));
  Lease lease(int(plan_.threads()));
  if (size_t(lease.size()) < plan_.threads()) plan_ = pace.plan(work, size_t(lease.size()));
  if (w_.compact()) plan_.parts = 0;  // which weights are floats goes by the rows of a thread
  threads_ = plan_.threads();
  context_.one_loop = plan_.one_loop;
  layers_keep_x_ = call_.tape && plan_.units == 1 && !order_.ragged();
  // Two directions are joined over all rows at once.
  if (call_.tape) call_.tape->begin(call_.h0, call_.c0, order_.ragged() || s_.directions == 2 ? 1 : plan_.row_parts());
  chunk_ = chunk_steps();
  link_ = steps_of_link();

  ScratchLease memory;
  reads.rows = ceil_div(reads.rows, plan_.row_parts());
  reads.steps = chunk_;
  reads.parts = plan_.one_loop ? 1 : plan_.units;
  if (memory.of_thread()) context_.floats = w_.kept_floats(reads, call_.stays);
  Real* zeros = nullptr;
  const bool reads_zeros = !call_.h0 || !call_.c0 || call_.resets;
  const size_t n_zeros = reads_zeros ? std::max(s_.hidden, s_.recurrent()) : 0;
  memory.carve([&](Carver& carver) {
    carve(carver);
    zeros = carver.take<Real>(n_zeros);
  });
  std::fill_n(zeros, n_zeros, Real(0));
  context_.zeros = zeros;
  if (threads_ == 1) {
    thread(0);
  } else {
    control_.others = true;
    sharing_ = std::make_unique<Sharing>(threads_, lease.board(1, 0), plan_.row_parts() * plan_.directions);
    if (plan_.units > 1) teams_ = share_in_teams(lease, threads_, plan_.units);
    lease.run([this](int rank) {
      if (size_t(rank) < threads_) thread(size_t(rank));
    });
  }
  if (control_.stopped()) return false;
  finish_outputs();
  return true;
}

// States of rows without steps stay as they were; outputs of steps that no row has are zero.
template <class Real>
void ForwardPass<Real>::prepare_outputs() {
  const size_t B = order_.batch();
  auto stay = [&](const Real* from, size_t columns, Real* to) {
    for (size_t id = 0; id < s_.states(); ++id)
      for (size_t r = order_.active_rows(0); r < B; ++r) {
        const size_t at = (id * B + order_.index(r)) * columns;
        copy_or_zero(from ? from + at : nullptr, columns, to + at);
      }
  };
  stay(call_.h0, s_.recurrent(), call_.h);
  stay(call_.c0, s_.cell(), call_.c);
  zero_padding(order_, call_.steps, call_.y, s_.output());
  if (call_.cells) zero_padding(order_, call_.steps, call_.cells, s_.directions * s_.cell());
}

// With a tape, the layers wrote c there.
template <class Real>
void ForwardPass<Real>::finish_outputs() {
  if (!call_.tape || !call_.cells) return;
  const size_t C = s_.cell(), D = s_.directions;
  for (size_t d = 0; d < D; ++d) {
    const Real* from = call_.tape->c[(s_.layers - 1) * D + d].data();
    for (size_t r = 0; r < order_.batch(); ++r)
      for (size_t t = 0, b = order_.index(r); t < order_.length(r); ++t)
        std::memcpy(call_.cells.at(t, b) + d * C, from + call_.tape->rows.at(t, b) * C, C * sizeof(Real));
  }
}

// Long enough to fill the tiles of the input product, short enough that a chunk's outputs are still in L2. Chunking is
// used only when every layer runs forward in time, so that step index and time are equal.
template <class Real>
size_t ForwardPass<Real>::chunk_steps() const {
  const size_t steps = order_.steps();
  if (!s_.forward_only() || s_.layers == 1) return steps;
  const size_t row_bytes = order_.batch() * s_.output() * sizeof(Real);
  size_t fit = std::max(l2_bytes() / 4 / row_bytes, size_t(48) / order_.batch());
  if (plan_.layers > 1) fit = std::min(fit, steps / kChunks);
  return std::min(steps, std::max<size_t>(1, fit));
}

// A quarter of a millisecond or so at most, and all of the input product that runs ahead at a time.
template <class Real>
size_t ForwardPass<Real>::steps_of_link() const {
  if (threads_ == 1) return chunk_;
  constexpr double kLinkFlops = 2e7;
  const size_t rows = ceil_div(order_.batch(), plan_.row_parts());
  const double flops = product_flops(1, n_.panel, s_.input_of(s_.layers - 1) + n_.recurrent);
  return link_steps(plan_, chunk_, rows, flops, projects_ahead(rows) ? ahead_steps(rows, chunk_) : 1, kLinkFlops);
}

// True if some layer makes many steps' input products at a time for so many rows.
template <class Real>
bool ForwardPass<Real>::projects_ahead(size_t rows) const {
  return w_.projects_ahead(s_.input, rows, chunk_) || w_.projects_ahead(s_.input_of(s_.layers - 1), rows, chunk_);
}

template <class Real>
void ForwardPass<Real>::carve(Carver& carver) {
  size_t rows = 0, pre_rows = 0;  // any thread may take over any part
  for (size_t part = 0, parts = plan_.row_parts(); part < parts; ++part) {
    const size_t n = order_.part_begin(part + 1, parts) - order_.part_begin(part, parts);
    rows = std::max(rows, n);
    if (projects_ahead(n)) pre_rows = std::max(pre_rows, n * ahead_steps(n, chunk_));
  }
  thread_scratch_ = carver.make<ForwardThreadScratch<Real>>(threads_, [&](size_t) {
    return ForwardThreadScratch<Real>{carver, n_, rows, pre_rows};
  });
  team_scratch_ = carver.make<ForwardTeamScratch<Real>>(threads_ / plan_.units, [&](size_t) {
    return ForwardTeamScratch<Real>{carver, n_, rows, plan_.one_loop ? 2 * pre_rows : pre_rows};
  });
  if (call_.tape) return;
  auto plane = [&](size_t width) {
    Plane<Real> p;
    p.row = width;
    p.step = order_.batch() * width;
    p.base = carver.take<Real>(chunk_ * p.step);
    return p;
  };
  const bool one = s_.directions == 1;
  const size_t n = one ? 2 * (s_.layers - 1) : std::min<size_t>(2, s_.layers - 1);
  between_ = carver.make<Plane<Real>>(n, [&](size_t i) { return plane(s_.input_of(one ? i / 2 + 1 : s_.layers - 1)); });
  raw_ = carver.make<Plane<Real>>(!s_.joined() ? 0 : one ? s_.layers : 1, [&](size_t) { return plane(s_.raw()); });
}

template <class Real>
bool forward(const ForwardCall<Real>& call) {
  Pace pace;
  if (forward_single(call, pace)) return true;
  const RowOrder order(call.steps, call.batch, call.lengths);
  Control control(call.interrupted);
  return ForwardPass<Real>(call, order, control).run(pace);
}

template bool forward<float>(const ForwardCall<float>&);
template bool forward<double>(const ForwardCall<double>&);

}  // namespace quadgate
