#include "rnn/join.h"

#include <cstring>

namespace quadgate {
namespace {

template <class Real>
void merge(const Sizes& s, const Real* raw, Real* to) {
  const size_t R = s.recurrent();
  const Real* other = raw + R;
  switch (s.options.merge) {
    case Merge::concat:
      std::copy(raw, raw + s.raw(), to);
      return;
    case Merge::sum:
      for (size_t u = 0; u < R; ++u) to[u] = raw[u] + other[u];
      return;
    case Merge::mul:
      for (size_t u = 0; u < R; ++u) to[u] = raw[u] * other[u];
      return;
    case Merge::mean:
      for (size_t u = 0; u < R; ++u) to[u] = Real(0.5) * (raw[u] + other[u]);
      return;
  }
}

template <class Real>
void merge_backward(const Sizes& s, const Real* raw, const Real* d_out, Real* d_raw) {
  const size_t R = s.recurrent();
  Real* d_other = d_raw + R;
  switch (s.options.merge) {
    case Merge::concat:
      std::copy(d_out, d_out + s.raw(), d_raw);
      return;
    case Merge::sum:
      for (size_t u = 0; u < R; ++u) d_raw[u] = d_other[u] = d_out[u];
      return;
    case Merge::mul:
      for (size_t u = 0; u < R; ++u) {
        d_raw[u] = d_out[u] * raw[R + u];
        d_other[u] = d_out[u] * raw[u];
      }
      return;
    case Merge::mean:
      for (size_t u = 0; u < R; ++u) d_raw[u] = d_other[u] = Real(0.5) * d_out[u];
      return;
  }
}

}  // namespace

template <class Real>
void join_forward(const Weights<Real>& w, size_t l, const JoinRow<Real>* rows, size_t n, Real* work) {
  const Sizes& s = w.sizes;
  const size_t O = s.output();
  const Packed<Real>& gate = w.highway(l);
  const size_t line = gate.shape.blocks() * gate.shape.line();
  if (s.highway(l)) {
    const Real* in[kJoinRows];
    for (size_t i = 0; i < n; ++i) in[i] = rows[i].in;
    Project<Real> product = {nullptr, gate.bias, O, in, work, n, gate.shape.blocks(), 0, gate.shape.blocks()};
    w.project(gate, product, reinterpret_cast<char*>(work + kJoinRows * gate.row()));
  }
  for (size_t i = 0; i < n; ++i) {
    const JoinRow<Real>& row = rows[i];
    merge(s, row.raw, row.to);
    if (l > 0 && s.options.shortcut == Shortcut::residual)
      for (size_t u = 0; u < O; ++u) row.to[u] += row.in[u];
    if (s.highway(l)) {
      Real* t = row.transform ? row.transform : work + i * line;
      w.kernels.activate({kSigmoid, Real(1), Real(0)}, work + i * line, t, O);
      for (size_t u = 0; u < O; ++u) row.to[u] = t[u] * row.to[u] + (Real(1) - t[u]) * row.in[u];
    }
    if (row.dropped)
      for (size_t u = 0; u < O; ++u)
        row.to[u] = row.dropped[u] ? Real(0) : row.to[u] * keep_scale<Real>(s.options.dropout);
    if (row.head) std::copy(row.in, row.in + s.input_of(l), row.head);
  }
}

template <class Real>
void join_backward(const Weights<Real>& w, size_t l, const JoinBackwardRow<Real>* rows, size_t n, Real* work) {
  const Sizes& s = w.sizes;
  const size_t O = s.output(), W = w.kernels.width;
  Real *d_out = work, *merged = work + O;
  for (size_t i = 0; i < n; ++i) {
    const JoinBackwardRow<Real>& row = rows[i];
    if (row.d_to)
      std::copy(row.d_to, row.d_to + O, d_out);
    else
      std::fill(d_out, d_out + O, Real(0));
    if (row.dropped)
      for (size_t u = 0; u < O; ++u)
        d_out[u] = row.dropped[u] ? Real(0) : d_out[u] * keep_scale<Real>(s.options.dropout);
    if (row.d_in) {
      if (row.d_head)
        std::copy(row.d_head, row.d_head + s.input_of(l), row.d_in);
      else
        std::fill(row.d_in, row.d_in + s.input_of(l), Real(0));
    }
    if (l > 0 && s.options.shortcut == Shortcut::residual) std::copy(d_out, d_out + O, row.d_in);
    if (s.highway(l)) {
      merge(s, row.raw, merged);
      const Real* t = row.transform;
      const PanelShape& shape = w.highway(l).shape;
      for (size_t u = 0; u < O; ++u) {
        row.d_gate[u] = d_out[u] * (merged[u] - row.in[u]) * (t[u] - t[u] * t[u]);
        row.d_in[u] = d_out[u] * (Real(1) - t[u]);
        d_out[u] *= t[u];
      }
      for (size_t p = 0; p < shape.blocks(); ++p)
        for (size_t v = 0; v < shape.vectors(); ++v)
          for (size_t k = 0; k < W; ++k)
            row.d_gate_panel[p * row.panel_stride + v * W + k] =
                k < shape.lanes(p, v) ? row.d_gate[shape.row(p, v) + k] : Real(0);
    }
    merge_backward(s, row.raw, d_out, row.d_raw);
  }
}

#define QG_INSTANTIATE(Real)                                                                           \
  template void join_forward<Real>(const Weights<Real>&, size_t, const JoinRow<Real>*, size_t, Real*); \
  template void join_backward<Real>(const Weights<Real>&, size_t, const JoinBackwardRow<Real>*, size_t, Real*);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
