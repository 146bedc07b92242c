// The weight gradients of a pass of one block, from their factors straight into the caller's arrays.
#pragma once

#include "rnn/backward/context.h"

namespace quadgate {

// A phase of the work of all threads, for the layer and direction with this id, whose block of n_rows is that of
// `pass`. Does not stop.
template <class Real>
void direct_gradients(const Team& all, const BackwardContext<Real>& pass, size_t id, size_t n_rows);

}  // namespace quadgate
