// The products of the forward pass: input products of many steps ahead of the time loop, and those of a step.
#pragma once

#include "rnn/forward/layer.h"
#include "rnn/product_cut.h"

namespace quadgate {

// A share of `to` (cut.rows, n_blocks, V, W) = x @ the matrix + bias, which may be null, by this thread. work: as in
// Weights::project.
template <class Real>
void project_share(const Team& share, const ProductCut& cut, const Weights<Real>& w, const Packed<Real>& p,
                   const Real* bias, const Real* const* x, Real* to, char* work);

// All of these are phases of the team's work, and return false once the call is to stop.

// Makes floats of compact weights, if that pays for these steps; else `wide` stays as it is.
template <class Real>
bool float_weights(const Team& team, const ForwardContext<Real>& pass, const ForwardTask<Real>& task,
                   PackedLayer<Real>& wide);

// n rows of `to`, as above; threads share the blocks.
template <class Real>
bool project(const Team& team, const Weights<Real>& w, const Packed<Real>& p, const Real* bias, const Real* const* x,
             size_t n, Real* to, char* work);

// The cells of a step, as the epilogue of their product. `step` is complete but for its blocks and weights.
template <class Real>
bool run_cells(const Team& team, const Weights<Real>& w, const PackedLayer<Real>& layer, ForwardStep<Real>& step,
               char* work);

// The cells of a step with layer normalisation: the product with h, then row by row.
template <class Real>
bool run_normalised_cells(const Team& team, const ForwardContext<Real>& pass, const ForwardTask<Real>& task,
                          const PackedLayer<Real>& layer, const ForwardStep<Real>& step);

// h of n rows behind a projection.
template <class Real>
bool project_h(const Team& team, const ForwardContext<Real>& pass, const ForwardTask<Real>& task, size_t n);

}  // namespace quadgate
