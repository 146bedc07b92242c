// The products of the backward pass: those of a step, and those over all rows of a block.
#pragma once

#include "rnn/backward/layer.h"
#include "rnn/product_cut.h"

namespace quadgate {

// The cells' gradients of one step, as the epilogue of the product with weight_hh or a projection: a phase of the
// team's work. `step` is complete but for its groups. False once the call is to stop.
template <class Real>
bool cell_gradients(const Team& team, const Weights<Real>& w, BackwardStep<Real>& step);

// n rows of targets = sources @ the matrix, for the groups [begin, end). work: as in BackProduct.
template <class Real>
void back_product(const Team& team, const Weights<Real>& w, const Packed<Real>& p, const Real* const* sources,
                  Real* const* targets, size_t n, size_t begin, size_t end, Real* work);

// Adds a block's part of the gradients of one layer and direction, for a share of the columns of [x, h, 1], or, by
// rows, of the weights' rows.
template <class Real>
void weight_gradients(const Team& share, const BackwardContext<Real>& pass, const BackwardTask<Real>& task);

// dx of a block, for a share.
template <class Real>
void input_gradient(const Team& share, const ProductCut& cut, const BackwardContext<Real>& pass,
                    const BackwardTask<Real>& task);

// The rest are phases of the work of all threads, and return false once the call is to stop.

// The gradients of a highway's weight and of its input, of a block whose operands the join has left in `block`.
template <class Real>
bool highway_gradients(const Team& all, const BackwardContext<Real>& pass, size_t l, size_t n_rows);

// dh0 = dgates of the first step @ weight_hh, and what zoneout passed on; rows without any step keep dh.
template <class Real>
bool initial_state(const Team& all, const BackwardContext<Real>& pass);

// The sums of the pass into the caller's gradients. Does not stop.
template <class Real>
void unpack_gradients(const Team& all, const BackwardContext<Real>& pass);

}  // namespace quadgate
