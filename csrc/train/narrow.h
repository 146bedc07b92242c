// A dense layer of a few outputs: kernels/narrow.h on the pool. Both functions return false if they were interrupted.
#pragma once

#include "kernels/train_steps.h"
#include "train/flat.h"

namespace quadgate {

// y = x w^T + bias.
template <class Real>
bool narrow_forward(const NarrowRows<Real>& rows, Interrupted interrupted);

// dw, and dx unless it is null. dw is summed over parts of the rows that their number fixes.
template <class Real>
bool narrow_backward(const NarrowRows<Real>& rows, Real* dx, Real* dw, Interrupted interrupted);

}  // namespace quadgate
