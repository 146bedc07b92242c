// The backward pass of a whole network over what one forward pass has taped.
#pragma once

#include "network.h"
#include "sequence.h"

namespace fourgate {

template <class T>
struct BackwardCall {
  const Tape<T>* tape;
  Plane<const T> dy;  // (T,B,D*H) gradient of y; null for zeros
  const T* dh;        // (L*D,B,H) gradient of the final h; null for zeros; as dc
  const T* dc;
  Plane<T> dx;                             // (T,B,I) out; null if not wanted; zero past a row's length
  T* dh0;                                  // (L*D,B,H) out; may not be dh
  T* dc0;                                  // (L*D,B,H) out; may not be dc
  const ParameterGradients<T>* gradients;  // L*D of them, layer by layer; out
  bool add;                                // add to `gradients` rather than overwrite
  Control::Callback interrupted;
};

// False if the call was interrupted: dx, dh0 and dc0 are then undefined, `gradients` untouched. Throws std::bad_alloc.
template <class T>
bool backward(const BackwardCall<T>& call);

}  // namespace fourgate
