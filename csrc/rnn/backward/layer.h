// One layer and direction over a block of steps, backward: the time loop, then the products over all of its rows.
//
// The time loop leaves the gates' gradients of the block's rows, also in panels unless weights' gradients are made by
// rows. Plain products use them up: with [x, h, 1] for the weights, with weight_ih for the gradient of the input, which
// is the dy of the layer below.
#pragma once

#include "rnn/backward/context.h"

namespace quadgate {

// Steps [s0, s1) of one layer and direction.
template <class Real>
struct BackwardTask {
  size_t l, d, s0, s1;
  size_t n_rows;         // steps of all rows in it
  Plane<const Real> dy;  // (R); may be null
  Plane<Real> dx;        // may be null
  bool add_dx;           // dx += rather than dx =
};

// Phases of the work of all threads. team: those that share the units of a part of the rows, or this thread alone.
// False once the call is to stop.
template <class Real>
bool backward_layer(const Team& all, const Team& team, const BackwardContext<Real>& pass,
                    const BackwardTask<Real>& task);

}  // namespace quadgate
