// The weight gradients of a pass of one block, from their factors straight into the caller's arrays.
#pragma once

#include "rnn/backward/context.h"

namespace quadgate {

// A phase of the work of all threads. passes: of each layer and direction, with its own block of n_rows. Does not stop.
template <class Real>
void direct_gradients(const Team& all, const BackwardContext<Real>* passes, size_t n_rows);

}  // namespace quadgate
