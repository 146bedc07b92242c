// The backward pass of a whole network over what one forward pass has taped.
#pragma once

#include "network.h"
#include "sequence.h"

namespace quadgate {

template <class T>
struct BackwardCall {
  const Tape<T>* tape;
  Plane<const T> dy;      // (T,B,O) gradient of y; null for zeros
  Plane<const T> dcells;  // (T,B,D*H) gradient of the last layer's c at every step; null for zeros
  const T* dh;            // (L*D,B,R) gradient of the final h; null for zeros
  const T* dc;            // (L*D,B,H) the same of c
  Plane<T> dx;            // (T,B,I) out; null if not wanted; zero past a row's length
  T* dh0;                 // (L*D,B,R) out; may not be dh
  T* dc0;                 // (L*D,B,H) out; may not be dc
  T* dh_norm;             // (L*D,T,B) out: norms of the gradients of h and of c at every step; or both null
  T* dc_norm;
  const LayerParameters<T*>* gradients;     // L*D of them, layer by layer; out
  const HighwayParameters<T*>* d_highways;  // L of them; out
  bool add;                                 // add to the gradients rather than overwrite
  Control::Callback interrupted;
};

// False if the call was interrupted: dx, dh0 and dc0 are then undefined, the parameters' gradients untouched. Throws
// std::bad_alloc.
template <class T>
bool backward(const BackwardCall<T>& call);

}  // namespace quadgate
