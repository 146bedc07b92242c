// Gradients that are sums over a block's rows and no matrix product: of peepholes and of layer normalisation, and of
// the bias where the weight gradient's panels have no column of ones.
#pragma once

#include "rnn/backward/layer.h"

namespace quadgate {

// Adds a block's part to the sums of one layer and direction, for a share of the columns in whole vectors.
template <class Real>
void column_sums(const Team& share, const BackwardContext<Real>& pass, const BackwardTask<Real>& task);

}  // namespace quadgate
