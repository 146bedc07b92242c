// Softmax cross-entropy with its gradient.
#pragma once

#include <cstdint>

#include "train/flat.h"

namespace quadgate {

template <class Real>
struct CrossEntropy {
  const Real* logits;      // (n_rows, n_classes)
  const int64_t* targets;  // (n_rows) below n_classes; negative for rows that do not count
  const double* weights;   // (n_rows); null: all 1
  size_t n_rows, n_classes;
  double divisor;  // the gradient is that of the total divided by this
  Real* gradient;  // (n_rows, n_classes) out, apart from the inputs; may be null
  double total;    // out: the sum of weight times loss, in an order that the shape fixes
};

// Fills in `gradient` and `total`. False if interrupted; both are then of no use.
template <class Real>
bool cross_entropy(CrossEntropy<Real>& c, Interrupted interrupted);

}  // namespace quadgate
