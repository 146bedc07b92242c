// The kernels of one instruction set: isa/*.cpp names the set and includes this file, which defines its table.
//
// Everything else here is in anonymous namespaces or always inlined: what an instruction set compiles is its own.
#pragma once

#include "kernels/backward.h"
#include "kernels/compact.h"
#include "kernels/forward.h"
#include "kernels/gradients.h"
#include "kernels/narrow.h"
#include "kernels/norm.h"
#include "kernels/project.h"
#include "kernels/table.h"
#include "kernels/train.h"
#include "kernels/transpose.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// An activation alone, on an array.
template <class Real>
void activate_all(const Activation<Real>& f, const Real* x, Real* y, size_t n) {
  constexpr size_t W = Vec<Real>::kWidth;
  for (size_t i = 0; i < n; i += W) {
    int lanes = lanes_of<Real>(i / W, n);
    store_upto(y + i, activate(f, load_upto(x + i, lanes)), lanes);
  }
}

template <class Real>
constexpr Kernels<Real> functions() {
  using Cell = Lstm<Real>;  // layer normalisation is of this one
  return {size_t(Vec<Real>::kWidth),
          size_t(kMaxRows),
          kCopyColumns<Real>,
          kHalfLines<Real>,
          forward<Real>,
          advance<Real>,
          project<Real, Real>,
          projected<Real>,
          normalised<Cell>,
          backward<Real>,
          back_product<Real>,
          projected_backward<Real>,
          normalised_backward<Cell>,
          weight_gradient<Real>,
          column_sums<Real>,
          rows_to_panels<Real>,
          transpose<Real>,
          activate_all<Real>,
          slopes<Real>,
          softmax_rows<Real>,
          adam<Real>,
          sgd<Real>,
          squares<Real>,
          narrow_forward<Real>,
          narrow_input_gradient<Real>,
          narrow_weight_gradient<Real>};
}

constexpr CompactKernels compact_functions() {
  return {
      compact_forward,
      compact_project,
      {{nullptr, nullptr, nullptr, nullptr, nullptr, 1, 1, nullptr},
       {float_product<Float16>, nullptr, widen<Float16>, nullptr, nullptr, 1, 1, nullptr, kFewTileRows<Float16>},
       {float_product<BFloat16>, nullptr, widen<BFloat16>, nullptr, nullptr, 1, 1, nullptr, kFewTileRows<BFloat16>, 1},
       kInt8}};
}

}  // namespace

extern const KernelTable table;
const KernelTable table = {QG_ISA_NAME, functions<float>(), functions<double>(), compact_functions()};

}  // namespace QG_ISA
}  // namespace quadgate
