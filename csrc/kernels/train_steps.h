// Arguments of the kernels of training: losses, optimizers, activations on their way back. The rules of steps.h hold.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/steps.h"

namespace quadgate {

// Softmax of rows of logits, with the gradient of the cross-entropy: scale * (softmax - one-hot).
template <class Real>
struct SoftmaxRows {
  const Real* logits;      // (n_rows, n_classes)
  const int64_t* targets;  // (n_rows) class numbers, or a negative number for a row that does not count
  const Real* scales;      // (n_rows) factors of the gradient
  Real* gradient;          // (n_rows, n_classes) out; may be null
  Real* sums;              // (n_rows) out: the sum of exp(logit - largest); not written for rows that do not count
  Real* shifted;           // (n_rows) out: the target's logit - largest
  size_t n_rows, n_classes;
};

// One optimizer step over n elements. The gradient is multiplied by `scale`, then bounded by `bound`.
template <class Real>
struct AdamStep {
  const Real *p, *g, *m, *v;
  Real *p_out, *m_out, *v_out;
  size_t n;
  Real scale, bound;         // bound: infinity for none
  Real beta_1, beta_2;       // m' = beta_1 m + (1 - beta_1) g, v' = beta_2 v + (1 - beta_2) g^2
  Real less_1, less_2;       // 1 - beta
  Real root_scale, epsilon;  // p' = keep p - rate m' / (root_scale sqrt(v') + epsilon)
  Real rate, keep;
  bool large;  // write past the caches, which could not hold the results until they are read
};

template <class Real>
struct SgdStep {
  const Real *p, *g, *u;
  Real *p_out, *u_out;  // u' = momentum u + g; u and u_out are null without momentum
  size_t n;
  Real scale, bound;
  Real momentum, rate;
  bool nesterov, large;  // large: as AdamStep's
};

// Rows and a matrix w (n_out, n_in) with n_out of at most kNarrow, from 1 on.
constexpr size_t kNarrow = 4;

template <class Real>
struct NarrowRows {
  const Real *x, *dz;    // (n_rows, n_in), (n_rows, n_out); what a kernel does not read may be null
  const Real *w, *bias;  // bias (n_out) may be null
  Real* out;             // y (n_rows, n_out), dx (n_rows, n_in) or dw (n_out, n_in)
  size_t n_rows, n_in, n_out;
};

}  // namespace quadgate
