#include "join.h"

#include <cstring>

namespace quadgate {
namespace {

template <class T>
void merge(const Sizes& s, const T* raw, T* to) {
  const size_t R = s.recurrent();
  const T* other = raw + R;
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
      for (size_t u = 0; u < R; ++u) to[u] = T(0.5) * (raw[u] + other[u]);
      return;
  }
}

template <class T>
void merge_backward(const Sizes& s, const T* raw, const T* d_out, T* d_raw) {
  const size_t R = s.recurrent();
  T* d_other = d_raw + R;
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
      for (size_t u = 0; u < R; ++u) d_raw[u] = d_other[u] = T(0.5) * d_out[u];
      return;
  }
}

// What dropout multiplies an element by that it keeps.
template <class T>
T kept(const Options& o) {
  return o.dropout < 1 ? T(1 / (1 - o.dropout)) : T(0);
}

}  // namespace

template <class T>
void join_forward(const Weights<T>& w, size_t l, const JoinRow<T>* rows, size_t n, T* work) {
  const Sizes& s = w.sizes;
  const size_t O = s.output();
  const Packed<T>& gate = w.highway(l);
  const size_t line = gate.shape.blocks() * gate.shape.line();
  if (s.highway(l)) {
    const T* in[kJoinRows];
    for (size_t i = 0; i < n; ++i) in[i] = rows[i].in;
    w.kernels.project({gate.panels, gate.bias, O, in, work, n, gate.shape.blocks(), 0, gate.shape.blocks()});
  }
  for (size_t i = 0; i < n; ++i) {
    const JoinRow<T>& row = rows[i];
    merge(s, row.raw, row.to);
    if (l > 0 && s.options.shortcut == Shortcut::residual)
      for (size_t u = 0; u < O; ++u) row.to[u] += row.in[u];
    if (s.highway(l)) {
      T* t = row.transform ? row.transform : work + i * line;
      w.kernels.activate({kSigmoid, T(1), T(0)}, work + i * line, t, O);
      for (size_t u = 0; u < O; ++u) row.to[u] = t[u] * row.to[u] + (T(1) - t[u]) * row.in[u];
    }
    if (row.dropped)
      for (size_t u = 0; u < O; ++u) row.to[u] = row.dropped[u] ? T(0) : row.to[u] * kept<T>(s.options);
    if (row.head) std::copy(row.in, row.in + s.input_of(l), row.head);
  }
}

template <class T>
void join_backward(const Weights<T>& w, size_t l, const JoinBackwardRow<T>* rows, size_t n, T* work) {
  const Sizes& s = w.sizes;
  const size_t O = s.output(), W = w.kernels.width;
  T *d_out = work, *merged = work + O;
  for (size_t i = 0; i < n; ++i) {
    const JoinBackwardRow<T>& row = rows[i];
    if (row.d_to)
      std::copy(row.d_to, row.d_to + O, d_out);
    else
      std::fill(d_out, d_out + O, T(0));
    if (row.dropped)
      for (size_t u = 0; u < O; ++u) d_out[u] = row.dropped[u] ? T(0) : d_out[u] * kept<T>(s.options);
    if (row.d_in) {
      if (row.d_head)
        std::copy(row.d_head, row.d_head + s.input_of(l), row.d_in);
      else
        std::fill(row.d_in, row.d_in + s.input_of(l), T(0));
    }
    if (l > 0 && s.options.shortcut == Shortcut::residual) std::copy(d_out, d_out + O, row.d_in);
    if (s.highway(l)) {
      merge(s, row.raw, merged);
      const T* t = row.transform;
      const PanelShape& shape = w.highway(l).shape;
      for (size_t u = 0; u < O; ++u) {
        row.d_gate[u] = d_out[u] * (merged[u] - row.in[u]) * (t[u] - t[u] * t[u]);
        row.d_in[u] = d_out[u] * (T(1) - t[u]);
        d_out[u] *= t[u];
      }
      for (size_t p = 0; p < shape.blocks(); ++p)
        for (size_t v = 0; v < 4; ++v)
          for (size_t k = 0; k < W; ++k)
            row.d_gate_panel[p * row.panel_stride + v * W + k] =
                k < shape.lanes(p, v) ? row.d_gate[shape.row(p, v) + k] : T(0);
    }
    merge_backward(s, row.raw, d_out, row.d_raw);
  }
}

#define QG_INSTANTIATE(T)                                                                  \
  template void join_forward<T>(const Weights<T>&, size_t, const JoinRow<T>*, size_t, T*); \
  template void join_backward<T>(const Weights<T>&, size_t, const JoinBackwardRow<T>*, size_t, T*);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
