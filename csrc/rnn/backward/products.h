// The products of the backward pass: those of a step, and those over all rows of a block.
#pragma once

#include "rnn/backward/layer.h"

namespace quadgate {

// The cells' gradients of one step, as the epilogue of the product with weight_hh or a projection, for the team's share
// of groups. `step` is complete but for its groups.
template <class Real>
void cell_gradients(const Team& team, const Weights<Real>& w, BackwardStep<Real>& step);

// n rows of targets = sources @ the matrix, for the groups [begin, end). work: as in BackProduct.
template <class Real>
void back_product(const Team& team, const Weights<Real>& w, const Packed<Real>& p, const Real* const* sources,
                  Real* const* targets, size_t n, size_t begin, size_t end, Real* work);

// Adds a block's part of the gradients of one layer and direction; split over columns.
template <class Real>
void weight_gradients(const Team& all, const BackwardContext<Real>& pass, const BackwardTask<Real>& task);

// dx of a block; split over rows.
template <class Real>
void input_gradient(const Team& all, const BackwardContext<Real>& pass, const BackwardTask<Real>& task);

// The gradients of a highway's weight and of its input, of a block whose operands the join has left in `block`. The
// rows [first, end) are this thread's.
template <class Real>
void highway_gradients(const Team& all, const BackwardContext<Real>& pass, size_t l, size_t n_rows, size_t first,
                       size_t end);

// dh0 = dgates of the first step @ weight_hh, and what zoneout passed on; rows without any step keep dh.
template <class Real>
void initial_state(const Team& all, const BackwardContext<Real>& pass);

// The sums of the pass into the caller's gradients.
template <class Real>
void unpack_gradients(const Team& all, const BackwardContext<Real>& pass);

}  // namespace quadgate
