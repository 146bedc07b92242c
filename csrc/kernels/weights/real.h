// Weights that are stored in the arithmetic type itself.
//
// `Storage` is the element type of packed weights. Two places know of it: packing (memory/packing.h) arranges it, and
// `multiply` widens it a vector at a time by load_widened. Sums, states, tape and gradients are `Real`. Another storage
// type is a file like this one with its own load_widened; int8.h, whose sums are integers, has a product of its own.
#pragma once

#include "kernels/vec/vec.h"

namespace quadgate {
namespace QG_ISA {

// Vector v of a line.
template <class Real>
QG_INLINE Vec<Real> load_widened(const Real* line, int v) {
  return load(line + v * Vec<Real>::kWidth);
}

}  // namespace QG_ISA
}  // namespace quadgate
