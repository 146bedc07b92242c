// Weights that are stored in the arithmetic type itself.
//
// `Storage` is the element type of packed weights. Two places know of it: packing (memory/packing.h) narrows to it, and
// `multiply` widens it a vector at a time by load_widened. Sums, states, tape and gradients are `Real`. Another storage
// type is a file like this one with its own load_widened; one that has a scale for each row multiplies the sums by it
// between the product and the bias.
#pragma once

#include "kernels/vec/vec.h"

namespace quadgate {
namespace QG_ISA {

template <class Real>
QG_INLINE Vec<Real> load_widened(const Real* weights) {
  return load(weights);
}

}  // namespace QG_ISA
}  // namespace quadgate
