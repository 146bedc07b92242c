// The forward pass of a whole network over a whole sequence.
#pragma once

#include "network.h"
#include "sequence.h"

namespace fourgate {

template <class T>
struct ForwardCall {
  const Weights<T>* weights;
  size_t steps, batch;
  Plane<const T> x;        // (T,B,I)
  const int64_t* lengths;  // (B), each in 0..T; or null
  const T* h0;             // (L*D,B,H) or null for zeros; as c0
  const T* c0;
  Plane<T> y;     // (T,B,D*H) out; zero past a row's length; must not overlap any input
  T* h;           // (L*D,B,H) out; may not be h0
  T* c;           // (L*D,B,H) out; may not be c0
  Tape<T>* tape;  // made for this shape, or null
  Control::Callback interrupted;
};

// False if the call was interrupted: the outputs are then undefined. Throws std::bad_alloc.
template <class T>
bool forward(const ForwardCall<T>& call);

}  // namespace fourgate
