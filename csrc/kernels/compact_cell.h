// The plain LSTM cell of one row in two parts, for networks with compact weights: they leave no tape, and the compiler
// leaves out its code.
#pragma once

#include "cells/lstm.h"

namespace quadgate {
namespace QG_ISA {

struct CompactCell {
  // A copy, which no store can change: so that the compiler knows that `gates` is null.
  static QG_INLINE ForwardRow<float> without_tape(ForwardRow<float> row) {
    row.gates = nullptr;
    return row;
  }
  // As Lstm::forward_state and forward_output.
  static QG_INLINE VF state(const CellStep<float>& s, const ForwardRow<float>& row, const float* sums, size_t panel) {
    VF a[Lstm<float>::kGates];
    for (int v = 0; v < Lstm<float>::kGates; ++v) a[v] = load(sums + v * VF::kWidth);
    const CellOptions<float>* const plain = nullptr;
    const OutputExtra<float>* const none = nullptr;
    return Lstm<float>::forward_state(s, without_tape(row), a, panel, plain, none);
  }
  static QG_INLINE void output(const CellStep<float>& s, const ForwardRow<float>& row, VF sum, VF c_new, size_t panel) {
    const CellOptions<float>* const plain = nullptr;
    const OutputExtra<float>* const none = nullptr;
    Lstm<float>::forward_output(s, without_tape(row), sum, c_new, panel, plain, none);
  }
};

}  // namespace QG_ISA
}  // namespace quadgate
