// Optimizer steps over many arrays, from one set of memory into another, which do not overlap. The caller keeps both
// until the call is over. All functions return false if they were interrupted; what they write is then of no use.
#pragma once

#include <vector>

#include "train/flat.h"

namespace quadgate {

// One parameter, its gradient and its means, n numbers each. The results of all parameters lie side by side in the
// vectors of the step.
template <class Real>
struct Segment {
  const Real *p, *g;
  const Real *first, *second;  // running means; null if the optimizer has fewer
  size_t n;
  double scale;  // factor of the gradient, for clipping by norm
};

// The sum of squares of each array, each summed in an order that its size fixes.
template <class Real>
bool gradient_squares(const std::vector<const Real*>& arrays, const std::vector<size_t>& sizes,
                      std::vector<double>& squares, Interrupted interrupted);

// Vectors of the results, each as long as all segments together; the second and third null if the optimizer has no such
// mean.
template <class Real>
struct Targets {
  Real *p, *first, *second;
};

// bound: of each number of a gradient, infinite for none; keep: factor of the parameter, 1 - rate * weight decay.
struct AdamNumbers {
  double bound, beta_1, beta_2, epsilon, rate, keep;
  double correction_1, correction_2;  // 1 - beta^k
};
struct SgdNumbers {
  double bound, momentum, rate;
  bool nesterov;
};

template <class Real>
bool adam_step(const std::vector<Segment<Real>>& segments, const AdamNumbers& numbers, const Targets<Real>& to,
               Interrupted interrupted);
template <class Real>
bool sgd_step(const std::vector<Segment<Real>>& segments, const SgdNumbers& numbers, const Targets<Real>& to,
              Interrupted interrupted);

}  // namespace quadgate
