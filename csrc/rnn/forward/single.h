// Forward calls of a single step, without a pass.
#pragma once

#include "parallel/pace.h"
#include "rnn/forward/forward.h"

namespace quadgate {

// Does the call if it is one step, whose layers are no more than their cells; false if it is not, and nothing is done
// then.
template <class Real>
bool forward_single(const ForwardCall<Real>& call, Pace& pace);

}  // namespace quadgate
