// One layer and direction over a run of steps, forward: the time loop.
#pragma once

#include "rnn/forward/context.h"

namespace quadgate {

// Steps [s0, s1) of one layer and direction, for the rows [row0, row1) of the order. Planes are those of the whole
// batch.
template <class Real>
struct ForwardTask {
  size_t l, d, s0, s1, row0, row1;
  Plane<const Real> in;
  bool keep_x;                               // give `in` to the tape
  Plane<Real> out, copy;                     // (R): h goes to both; `copy` may be null
  Plane<Real> cells;                         // (H): c of every step; null: only the last is kept
  const Real *h0, *c0;                       // (B,R), (B,H): the state before s0; zeros with a stride of 0
  size_t h0_row, c0_row;                     // from row to row
  Real *h, *c;                               // (B,R), (B,H): the state after the last step; may be h0 and c0
  const ForwardThreadScratch<Real>* thread;  // of the calling thread
  const ForwardTeamScratch<Real>* team;      // of its team
};

// False once the call is to stop; all members of the team get the same answer.
template <class Real>
bool forward_layer(const Team& team, const ForwardContext<Real>& pass, const ForwardTask<Real>& task);

}  // namespace quadgate
