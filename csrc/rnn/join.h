// The join between layers: merge of two directions, shortcut around a layer, dropout. Row by row, in both passes.
//
//   out = merge(raw);
//   residual: out += in;
//   highway: out = t out + (1 - t) in, t = sigmoid(W in + b) (Srivastava et al. 2015).
//
// The next layer's input is d(out) or, with dense connections, in and d(out) side by side; d is dropout.
#pragma once

#include "rnn/tape.h"
#include "rnn/weights.h"

namespace quadgate {

constexpr size_t kJoinRows = 48;  // the most rows of one call

// True if there is something to join behind layer l.
inline bool joins_behind(const Sizes& s, size_t l, const Masks* masks) {
  return s.joined() || (masks && !masks->dropout.empty() && l + 1 < s.layers);
}

template <class Real>
struct JoinRow {
  const Real* raw;               // (D*R) the directions' h
  const Real* in;                // (input_of(l)) the layer's input
  Real* to;                      // (O) out
  Real* head;                    // (input_of(l)) out: dense connections' copy of `in`; null without
  Real* transform;               // (O) out: t for the tape; may be null
  const unsigned char* dropped;  // (O) or null
};

// Behind layer l, for n <= kJoinRows rows. work: join_work() elements.
template <class Real>
void join_forward(const Weights<Real>& w, size_t l, const JoinRow<Real>* rows, size_t n, Real* work);

template <class Real>
struct JoinBackwardRow {
  const Real* raw;
  const Real* in;
  const Real* transform;         // from the tape
  const unsigned char* dropped;  // (O) or null
  const Real* d_to;              // (O) gradient of `to`; null: zeros
  const Real* d_head;            // (input_of(l)) gradient of `head`; null without
  Real* d_raw;                   // (D*R) out
  Real* d_in;                    // (input_of(l)) out: what reaches `in` beside the layer; null where nothing does
  Real* d_gate;                  // (O) out: gradient of the argument of t; null without
  Real* d_gate_panel;            // the same in panels, blocks `panel_stride` apart
  size_t panel_stride;
};

template <class Real>
void join_backward(const Weights<Real>& w, size_t l, const JoinBackwardRow<Real>* rows, size_t n, Real* work);

template <class Real>
size_t join_work(const Weights<Real>& w) {
  const PanelShape shape = {1, w.sizes.output(), w.kernels.width};
  return kJoinRows * shape.blocks() * shape.line() + w.compact_work(kJoinRows) / sizeof(Real);
}

}  // namespace quadgate
