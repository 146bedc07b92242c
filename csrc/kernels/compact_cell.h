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

// The same for int8, whose bits no other network has to have: i g and o tanh(c) take one division each, not two. What
// underflows above it would do so behind it, since it is scaled by 2^32.
struct Int8Cell {
  static constexpr int kInput = 0, kForget = 1, kCell = 2;
  // sigmoid(a) tanh(b)
  static QG_INLINE VF gated(VF a, VF b) { return with_sign(sigmoid_quotient(a).times(tanh_quotient(b)), b); }

  static QG_INLINE VF state(const CellStep<float>& s, const ForwardRow<float>& row, const float* sums, size_t panel) {
    const size_t u = panel * VF::kWidth;
    const int n = lanes_of<float>(panel, s.hidden_size);
    auto sum = [&](int gate) __attribute__((always_inline)) { return load(sums + gate * VF::kWidth); };
    const VF forget = sigmoid(sum(kForget));
    const VF c_new = fma(forget, load_upto(row.c_prev + u, n), gated(sum(kInput), sum(kCell)));
    store_upto(row.c + u, c_new, n);
    return c_new;
  }
  static QG_INLINE void output(const CellStep<float>& s, const ForwardRow<float>& row, VF sum, VF c_new, size_t panel) {
    const OutputExtra<float>* const none = nullptr;
    store_h(row.y, row.y_copy, gated(sum, c_new), 0.0f, none, panel * VF::kWidth,
            lanes_of<float>(panel, s.hidden_size));
  }
};

}  // namespace QG_ISA
}  // namespace quadgate
