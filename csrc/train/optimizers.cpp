#include "train/optimizers.h"

#include <algorithm>
#include <cmath>

#include "memory/packing.h"

namespace quadgate {
namespace {

constexpr size_t kElements = 16384;  // of a piece
// Bytes of all results, parameters and means, from which on caches do not hold them until they are read again.
constexpr size_t kLargeBytes = size_t(32) << 20;

template <class Real>
bool large(const std::vector<Segment<Real>>& segments) {
  size_t n = 0;
  for (const Segment<Real>& s : segments) n += s.n * (1 + (s.first != nullptr) + (s.second != nullptr));
  return n * sizeof(Real) >= kLargeBytes;
}

// f(segment, its first element, elements, the same element's place in the results) for every part of every piece.
template <class Real, class F>
bool each_part(const std::vector<Segment<Real>>& segments, Interrupted interrupted, F&& f) {
  std::vector<size_t> begin(segments.size() + 1, 0);
  for (size_t i = 0; i < segments.size(); ++i) begin[i + 1] = begin[i] + segments[i].n;
  const size_t n = begin.back(), pieces = n_blocks(n, kElements);
  Lease lease(threads_for(pieces, 2 * kElementFlops * double(n)));
  return for_pieces(lease, pieces, interrupted, [&](size_t piece, int) {
    size_t at = piece * kElements;
    const size_t end = std::min(n, at + kElements);
    size_t i = size_t(std::upper_bound(begin.begin(), begin.end(), at) - begin.begin()) - 1;
    for (; at < end; ++i) {
      const size_t stop = std::min(end, begin[i + 1]);
      if (stop > at) f(segments[i], at - begin[i], stop - at, at);
      at = std::max(at, stop);
    }
  });
}

}  // namespace

template <class Real>
bool gradient_squares(const std::vector<const Real*>& arrays, const std::vector<size_t>& sizes,
                      std::vector<double>& squares, Interrupted interrupted) {
  struct Part {
    const Real* x;
    size_t n;
  };
  std::vector<Part> parts;
  for (size_t i = 0; i < arrays.size(); ++i)
    for (size_t at = 0; at < sizes[i]; at += kElements)
      parts.push_back({arrays[i] + at, std::min(kElements, sizes[i] - at)});
  std::vector<double> sums(parts.size());
  const Kernels<Real>& kernels = kernels_for<Real>();
  Lease lease(threads_for(parts.size(), kElementFlops / 4 * double(parts.size() * kElements)));
  const bool done = for_pieces(lease, parts.size(), interrupted, [&](size_t piece, int) {
    sums[piece] = double(kernels.squares(parts[piece].x, parts[piece].n));
  });
  squares.assign(arrays.size(), 0.0);
  size_t part = 0;
  for (size_t i = 0; i < arrays.size(); ++i)
    for (size_t at = 0; at < sizes[i]; at += kElements) squares[i] += sums[part++];
  return done;
}

template <class Real>
bool adam_step(const std::vector<Segment<Real>>& segments, const AdamNumbers& a, const Targets<Real>& to,
               Interrupted interrupted) {
  const Kernels<Real>& kernels = kernels_for<Real>();
  AdamStep<Real> common = {};
  common.bound = Real(a.bound);
  common.beta_1 = Real(a.beta_1);
  common.beta_2 = Real(a.beta_2);
  common.less_1 = Real(1 - a.beta_1);
  common.less_2 = Real(1 - a.beta_2);
  common.root_scale = Real(1 / std::sqrt(a.correction_2));
  common.epsilon = Real(a.epsilon);
  common.rate = Real(a.rate / a.correction_1);
  common.keep = Real(a.keep);
  common.large = large(segments);
  return each_part(segments, interrupted, [&](const Segment<Real>& s, size_t from, size_t n, size_t at) {
    AdamStep<Real> step = common;
    step.p = s.p + from;
    step.g = s.g + from;
    step.m = s.first + from;
    step.v = s.second + from;
    step.p_out = to.p + at;
    step.m_out = to.first + at;
    step.v_out = to.second + at;
    step.n = n;
    step.scale = Real(s.scale);
    kernels.adam(step);
  });
}

template <class Real>
bool sgd_step(const std::vector<Segment<Real>>& segments, const SgdNumbers& a, const Targets<Real>& to,
              Interrupted interrupted) {
  const Kernels<Real>& kernels = kernels_for<Real>();
  SgdStep<Real> common = {};
  common.bound = Real(a.bound);
  common.momentum = Real(a.momentum);
  common.rate = Real(a.rate);
  common.nesterov = a.nesterov;
  common.large = large(segments);
  return each_part(segments, interrupted, [&](const Segment<Real>& s, size_t from, size_t n, size_t at) {
    SgdStep<Real> step = common;
    step.p = s.p + from;
    step.g = s.g + from;
    step.u = s.first ? s.first + from : nullptr;
    step.p_out = to.p + at;
    step.u_out = to.first ? to.first + at : nullptr;
    step.n = n;
    step.scale = Real(s.scale);
    kernels.sgd(step);
  });
}

#define QG_INSTANTIATE(Real)                                                                                 \
  template bool gradient_squares<Real>(const std::vector<const Real*>&, const std::vector<size_t>&,          \
                                       std::vector<double>&, Interrupted);                                   \
  template bool adam_step<Real>(const std::vector<Segment<Real>>&, const AdamNumbers&, const Targets<Real>&, \
                                Interrupted);                                                                \
  template bool sgd_step<Real>(const std::vector<Segment<Real>>&, const SgdNumbers&, const Targets<Real>&, Interrupted);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
