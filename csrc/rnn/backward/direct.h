// The weight gradient of a pass of one block and layer, from its factors straight into the caller's arrays.
//
// Sums lie in the order of the caller's rows, as in every gradient by rows.
#pragma once

#include "rnn/backward/context.h"

namespace quadgate {

// to = from, or to += from, for n elements of a gradient.
template <class Real>
void put_row(const Real* from, size_t n, bool add, Real* to);

// The same for a row of the gradient of weight_hh where all rows of h are zero: zeros; NaN where a gradient of the
// gate, which have this sum, is infinite or NaN.
template <class Real>
void put_zero_product(Real sum, size_t n, bool add, Real* to);

// How many rows at the end of a block that begins with the first step may be left out of products of dg with h: those
// of that step if it had no h, and their dg is finite in columns [begin, end). work: a thread's product_work or
// panel_dw.
template <class Real>
size_t rows_without_h(const BackwardContext<Real>& pass, size_t n_rows, size_t begin, size_t end, Real* work);

// Elements of a line of a panel of [x, h], which has so many columns: the last panel has no more vectors than it needs,
// but two.
inline size_t column_line(const BackwardSizes& n, size_t columns, size_t panel) {
  const size_t rest = columns - panel * n.line;
  return rest >= n.line ? n.line : std::max<size_t>(2, ceil_div(rest, n.width)) * n.width;
}

// Copies a row's x (input) and h (h_columns) to its place in the block: a row of [x, h, 1]; or, if gradients are made
// by rows, panels (n, block_rows, line) of [x, h], whose columns beyond the last are zero. h_mask: multipliers of h, or
// null.
template <class Real>
void copy_row(const BackwardContext<Real>& pass, size_t input, size_t at, const Real* x, const Real* h,
              const Real* h_mask);

// A phase of the work of all threads, for a block of n_rows. Does not stop.
template <class Real>
void direct_gradients(const Team& all, const BackwardContext<Real>& pass, size_t n_rows);

}  // namespace quadgate
