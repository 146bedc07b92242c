// The backward pass of a whole network over the tape of one forward pass.
#pragma once

#include "rnn/rows.h"
#include "rnn/tape.h"
#include "rnn/team.h"
#include "rnn/weights.h"

namespace quadgate {

template <class Real>
struct BackwardCall {
  const Tape<Real>* tape;
  Plane<const Real> dy;      // (T,B,O) gradient of y; null for zeros
  Plane<const Real> dcells;  // (T,B,D*H) gradient of the last layer's c at every step; null for zeros
  const Real* dh;            // (L*D,B,R) gradient of the final h; null for zeros
  const Real* dc;            // (L*D,B,H) the same of c
  Plane<Real> dx;            // (T,B,I) out; null if not wanted; zero past a row's length
  Real* dh0;                 // (L*D,B,R) out; may not be dh; null if not wanted
  Real* dc0;                 // (L*D,B,H) out; may not be dc; without dh0 of no meaning
  Real* dh_norm;             // (L*D,T,B) out: norms of the gradients of h and of c at every step; or both null
  Real* dc_norm;
  const LayerParameters<Real*>* gradients;     // L*D of them, layer by layer; out
  const HighwayParameters<Real*>* d_highways;  // L of them; out
  bool add;                                    // add to the gradients rather than overwrite
  Control::Callback interrupted;
};

// False if the call was interrupted: dx, dh0 and dc0 are then undefined, the parameters' gradients untouched. Throws
// std::bad_alloc.
template <class Real>
bool backward(const BackwardCall<Real>& call);

}  // namespace quadgate
