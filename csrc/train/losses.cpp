#include "train/losses.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "memory/packing.h"

namespace quadgate {
namespace {

constexpr size_t kRows = 128, kElements = 16384;  // of a piece, at most
constexpr double kExpFlops = 60;                  // of an element

}  // namespace

template <class Real>
bool cross_entropy(CrossEntropy<Real>& c, Interrupted interrupted) {
  const Kernels<Real>& kernels = kernels_for<Real>();
  const size_t n = c.n_classes, rows = std::max<size_t>(1, std::min(kRows, kElements / n));
  const size_t pieces = n_blocks(c.n_rows, rows);
  std::vector<double> totals(pieces);
  Lease lease(threads_for(pieces, kExpFlops * double(c.n_rows) * double(n)));
  const bool done = for_pieces(lease, pieces, interrupted, [&](size_t piece, int) {
    const size_t first = piece * rows, count = std::min(rows, c.n_rows - first);
    int64_t targets[kRows];
    Real scales[kRows], sums[kRows], shifted[kRows];
    for (size_t r = 0; r < count; ++r) {
      const double weight = c.weights ? c.weights[first + r] : 1.0;
      targets[r] = c.targets[first + r];
      scales[r] = Real(weight / c.divisor);
    }
    SoftmaxRows<Real> s = {};
    s.logits = c.logits + first * n;
    s.targets = targets;
    s.scales = scales;
    s.gradient = c.gradient ? c.gradient + first * n : nullptr;
    s.sums = sums;
    s.shifted = shifted;
    s.n_rows = count;
    s.n_classes = n;
    kernels.softmax_rows(s);
    double total = 0;
    for (size_t r = 0; r < count; ++r)
      if (targets[r] >= 0)
        total += (c.weights ? c.weights[first + r] : 1.0) * (std::log(double(sums[r])) - double(shifted[r]));
    totals[piece] = total;
  });
  c.total = 0;
  for (const double total : totals) c.total += total;
  return done;
}

template bool cross_entropy<float>(CrossEntropy<float>&, Interrupted);
template bool cross_entropy<double>(CrossEntropy<double>&, Interrupted);

}  // namespace quadgate
