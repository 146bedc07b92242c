// All that the layers and products of one forward pass share; constant once the pass has begun.
#pragma once

#include "parallel/plan.h"
#include "rnn/forward/forward.h"
#include "rnn/forward/scratch.h"

namespace quadgate {

template <class Real>
struct ForwardContext {
  const ForwardCall<Real>& call;
  const Weights<Real>& w;
  const Sizes& sizes;
  const RowOrder& order;
  const ForwardSizes& n;
  FloatWeights<Real> floats = {};  // as in Weights::kept_floats
  bool no_first_h = false;         // the recurrent product of the first step is zero
  bool one_loop = false;           // as in Plan
  const Real* zeros = nullptr;     // max(H, R): a state that is not given, or was reset

  size_t state(size_t l, size_t d) const { return l * sizes.directions + d; }
  // True if row r starts again at step s.
  bool is_reset(size_t r, size_t s, bool reverse) const {
    if (!call.resets || (reverse && s == 0)) return false;
    return call.resets[order.reset_time(r, s, reverse) * call.resets_step + order.index(r) * call.resets_row];
  }
};

}  // namespace quadgate
