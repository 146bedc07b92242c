// Shared by the flat work of training: kernels of a type, and the way to stop.
#pragma once

#include "cpu/dispatch.h"
#include "parallel/pieces.h"

namespace quadgate {

template <class Real>
const Kernels<Real>& kernels_for();
template <>
inline const Kernels<float>& kernels_for<float>() {
  return kernels().f32;
}
template <>
inline const Kernels<double>& kernels_for<double>() {
  return kernels().f64;
}

// The check for signals that a long call makes now and then; null for none.
using Interrupted = bool (*)();

// Work of elements that are read and written once, in flops of a product that takes as long.
constexpr double kElementFlops = 16;

}  // namespace quadgate
