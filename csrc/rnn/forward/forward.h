// The forward pass of a whole network over a whole sequence.
#pragma once

#include "rnn/rows.h"
#include "rnn/tape.h"
#include "rnn/team.h"
#include "rnn/weights.h"

namespace quadgate {

template <class Real>
struct ForwardCall {
  const Weights<Real>* weights;
  size_t steps, batch;
  Plane<const Real> x;             // (T,B,I)
  const int64_t* lengths;          // (B), each in 0..T; or null
  const unsigned char* resets;     // (T,B) by the strides; 1 where a row starts again before a step; or null
  size_t resets_step, resets_row;  // strides
  const Real* h0;                  // (L*D,B,R) or null for zeros
  const Real* c0;                  // (L*D,B,H) or null for zeros
  Plane<Real> y;                   // (T,B,O) out; zero past a row's length; must not overlap any input
  Plane<Real> cells;               // (T,B,D*H) out: c of the last layer at every step; null if not wanted
  Real* h;                         // (L*D,B,R) out; may not be h0
  Real* c;                         // (L*D,B,H) out; may not be c0
  Tape<Real>* tape;                // made for this shape, or null; with it, training-only options act
  Control::Callback interrupted;
  bool stays = false;  // a stream's, which others will follow: see Weights::kept_floats
};

// False if the call was interrupted: the outputs are then undefined. Throws std::bad_alloc.
template <class Real>
bool forward(const ForwardCall<Real>& call);

}  // namespace quadgate
