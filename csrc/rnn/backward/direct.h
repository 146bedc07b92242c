// The weight gradient of a pass of one block and layer, from its factors straight into the caller's arrays.
//
// Sums lie in the order of the caller's rows, as in every gradient by rows.
#pragma once

#include "rnn/backward/context.h"

namespace quadgate {

// to = from, or to += from, for n elements of a gradient.
template <class Real>
void put_row(const Real* from, size_t n, bool add, Real* to);

// Copies a row's x (input) and h (R) to its place in the block: a row of [x, h, 1]; or, if gradients are made by rows,
// panels (n, block_rows, line) of [x, h], whose columns beyond the last are zero. h_mask: multipliers of h, or null.
template <class Real>
void copy_row(const BackwardContext<Real>& pass, size_t input, size_t at, const Real* x, const Real* h,
              const Real* h_mask);

// A phase of the work of all threads, for a block of n_rows. Does not stop.
template <class Real>
void direct_gradients(const Team& all, const BackwardContext<Real>& pass, size_t n_rows);

}  // namespace quadgate
