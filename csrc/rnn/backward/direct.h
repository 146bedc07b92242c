// The weight gradient of a pass of one block and layer, from its factors straight into the caller's arrays.
#pragma once

#include "rnn/backward/context.h"

namespace quadgate {

// A phase of the work of all threads, for a block of n_rows. Does not stop.
template <class Real>
void direct_gradients(const Team& all, const BackwardContext<Real>& pass, size_t n_rows);

}  // namespace quadgate
