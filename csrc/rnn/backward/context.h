// All that the layers and products of one backward pass share; constant once the pass has begun.
//
// Rows go backward through the network in blocks of steps, last steps first.
#pragma once

#include <vector>

#include "parallel/plan.h"
#include "rnn/backward/backward.h"
#include "rnn/backward/scratch.h"

namespace quadgate {

// The steps cut into blocks of about `wanted` rows. In a block the rows of a later step come first.
class StepBlocks {
 public:
  StepBlocks(const RowOrder& order, size_t wanted) : order_(order) {
    const size_t steps = order.batch() ? order.steps() : 0;
    before_.assign(steps + 1, 0);
    for (size_t s = steps; s-- > 0;) before_[s] = s + 1 == steps ? 0 : before_[s + 1] + order.active_rows(s + 1);
    const size_t n = std::min(steps, (order.total() + wanted - 1) / wanted);
    bounds_.assign(1, steps);
    for (size_t i = 1; i <= n; ++i) bounds_.push_back(steps - steps * i / n);
    for (size_t i = 0; i < count(); ++i) {
      most_rows_ = std::max(most_rows_, rows(begin(i), end(i)));
      most_steps_ = std::max(most_steps_, end(i) - begin(i));
    }
  }
  // Block i has the steps [begin, end); block 0 has the last ones.
  size_t count() const { return bounds_.size() - 1; }
  size_t begin(size_t i) const { return bounds_[i + 1]; }
  size_t end(size_t i) const { return bounds_[i]; }
  size_t most_rows() const { return most_rows_; }
  size_t most_steps() const { return most_steps_; }
  // Rows of all steps in [s0, s1).
  size_t rows(size_t s0, size_t s1) const { return before_[s0] + order_.active_rows(s0) - before_[s1 - 1]; }
  // The step of a row of a block that ends with step s1.
  size_t step_of(size_t s1, size_t row) const {
    size_t s = s1 - 1;
    while (before_[s] - before_[s1 - 1] + order_.active_rows(s) <= row) --s;
    return s;
  }
  // The place of step s of row r (of the order) in a block that ends with step s1.
  size_t row_in_block(size_t s1, size_t s, size_t r) const { return before_[s] - before_[s1 - 1] + r; }

 private:
  const RowOrder& order_;
  std::vector<size_t> before_;  // rows of all steps later than s
  std::vector<size_t> bounds_;  // descending: T ... 0
  size_t most_rows_ = 0, most_steps_ = 0;
};

template <class Real>
struct BackwardContext {
  const BackwardCall<Real>& call;
  const Tape<Real>& tape;
  const Weights<Real>& w;
  const Sizes& sizes;
  const RowOrder& order;
  const StepBlocks& blocks;
  const Plan& plan;
  const BackwardSizes& n;
  const BackwardStepScratch<Real>& step;
  const BackwardBlockScratch<Real>& block;
  const BackwardScratch<Real>& all;

  size_t state(size_t l, size_t d) const { return l * sizes.directions + d; }
  // A state's initial h and c of batch row i. The same zeros for all rows where there were none.
  const Real* h0(size_t id, size_t i) const {
    return tape.zero_h0 ? all.zeros : tape.h0.data() + (id * order.batch() + i) * n.recurrent;
  }
  const Real* c0(size_t id, size_t i) const {
    return tape.zero_c0 ? all.zeros : tape.c0.data() + (id * order.batch() + i) * sizes.cell();
  }
  // Elements between the blocks of a block's rows in panels.
  size_t panel_stride(const PanelShape& shape) const { return n.block_rows * shape.line(); }
  // True if row r starts again at step s.
  bool is_reset(size_t r, size_t s, bool reverse) const {
    if (tape.resets.empty() || (reverse && s == 0)) return false;
    return tape.resets[order.reset_time(r, s, reverse) * order.batch() + order.index(r)];
  }
};

}  // namespace quadgate
