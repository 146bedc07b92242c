#include "memory/packing.h"

#include <algorithm>
#include <cstring>

#include "memory/buffer.h"

namespace quadgate {

template <class Real>
void pack_panels(TransposeFunction<Real> transpose, const Real* weight, const PanelShape& shape, size_t n_k,
                 Real* panels) {
  const size_t W = shape.width, V = shape.vectors();
  for (size_t p = 0; p < shape.blocks(); ++p) {
    if (shape.lanes(p, V - 1) < W)
      std::memset(static_cast<void*>(panels + p * n_k * shape.line()), 0, n_k * shape.line(p) * sizeof(Real));
    for (size_t v = 0; v < V; ++v)
      if (const size_t lanes = shape.lanes(p, v))
        transpose(weight + shape.row(p, v) * n_k, n_k, panels + shape.place(p, v, n_k), shape.column(p), lanes, n_k,
                  false);
  }
}

size_t compact_panel_bytes(WeightType type, const PanelShape& shape, size_t n_k) {
  if (type != WeightType::int8) return checked_mul(n_k, shape.line() * sizeof(uint16_t));
  return checked_mul((n_k + kInt8Group - 1) / kInt8Group, shape.line() * kInt8Group);
}

namespace {

// place(k, v, u): the element of a panel for column k and lane u of vector v.
template <class Element, class F>
void pack_elements(const void* weight, const PanelShape& shape, size_t n_k, void* panels, size_t panel_bytes,
                   F&& place) {
  std::memset(panels, 0, shape.blocks() * panel_bytes);
  for (size_t p = 0; p < shape.blocks(); ++p) {
    auto* panel = reinterpret_cast<Element*>(static_cast<char*>(panels) + p * panel_bytes);
    for (size_t v = 0; v < shape.vectors(); ++v) {
      const Element* from = static_cast<const Element*>(weight) + shape.row(p, v) * n_k;
      const size_t lanes = shape.lanes(p, v);
      for (size_t k = 0; k < n_k; ++k)
        for (size_t u = 0; u < lanes; ++u) panel[place(k, v, u)] = from[u * n_k + k];
    }
  }
}

}  // namespace

void pack_compact(const void* weight, WeightType type, const PanelShape& shape, size_t n_k, void* panels,
                  int32_t* sums) {
  const size_t W = shape.width, V = shape.vectors(), bytes = compact_panel_bytes(type, shape, n_k), group = kInt8Group;
  if (type == WeightType::float16) {
    pack_elements<uint16_t>(weight, shape, n_k, panels, bytes,
                            [=](size_t k, size_t v, size_t u) { return (k * V + v) * W + u; });
  } else if (type == WeightType::bfloat16) {
    pack_elements<uint16_t>(weight, shape, n_k, panels, bytes,
                            [=](size_t k, size_t v, size_t u) { return ((k * (V / 2) + v / 2) * W + u) * 2 + v % 2; });
  } else {
    const size_t tile = kInt8Tile, whole = (n_k + group - 1) / group / tile * tile;
    pack_elements<int8_t>(weight, shape, n_k, panels, bytes, [=](size_t k, size_t v, size_t u) {
      const size_t at = k / group;
      const size_t line = at < whole ? (at / tile * V + v) * tile + at % tile : at * V + v;
      return (line * W + u) * group + k % group;
    });
    std::memset(sums, 0, shape.blocks() * shape.line() * sizeof(int32_t));
    for (size_t p = 0; p < shape.blocks(); ++p)
      for (size_t v = 0; v < V; ++v)
        for (size_t u = 0; u < shape.lanes(p, v); ++u) {
          const int8_t* row = static_cast<const int8_t*>(weight) + (shape.row(p, v) + u) * n_k;
          int32_t sum = 0;
          for (size_t k = 0; k < n_k; ++k) sum += row[k];
          sums[(p * V + v) * W + u] = sum;
        }
  }
}

template <class Real>
void pack_bias(const Real* bias, const PanelShape& shape, Real* packed) {
  std::memset(packed, 0, shape.blocks() * shape.line() * sizeof(Real));
  if (!bias) return;
  for (size_t p = 0; p < shape.blocks(); ++p)
    for (size_t v = 0; v < shape.vectors(); ++v)
      if (const size_t lanes = shape.lanes(p, v))
        std::memcpy(packed + p * shape.line() + v * shape.step(p), bias + shape.row(p, v), lanes * sizeof(Real));
}

template <class Real>
void pack_back_panels(TransposeFunction<Real> transpose, const Real* panels, const PanelShape& shape, size_t n_k,
                      Real* back) {
  const size_t W = shape.width, V = shape.vectors();
  const Parts groups = column_groups(n_k, W);
  for (size_t group = 0; group < groups.count; ++group) {
    const size_t first = groups.begin(group), nv = size_t(groups.size(group));
    const size_t n = back_line(nv, shape.half_lines);
    Real* to_group = back + first * W * shape.total();
    for (size_t p = 0; p < shape.blocks(); ++p)
      for (size_t v = 0; v < V; ++v)
        for (size_t b = 0; b < nv && shape.lanes(p, v); ++b) {
          const size_t col0 = (first + b) * W, cols = std::min(W, n_k - col0), units = shape.lanes(p, v);
          Real* to = to_group + ((b / n * shape.total() + shape.row(p, v)) * n + b % n) * W;
          const Real* from = panels + shape.place(p, v, n_k) + col0 * shape.column(p);
          transpose(from, shape.column(p), to, n * W, cols, units, false);
          for (size_t u = 0; u < units && cols < W; ++u)
            std::memset(static_cast<void*>(to + u * n * W + cols), 0, (W - cols) * sizeof(Real));
        }
  }
}

template <class Real>
void unpack_panels(TransposeFunction<Real> transpose, const Real* panels, const PanelShape& shape, size_t n_k,
                   size_t first, size_t n_cols, size_t block_begin, size_t block_end, bool add, Real* out) {
  const size_t V = shape.vectors();
  for (size_t p = block_begin; p < block_end; ++p)
    for (size_t v = 0; v < V; ++v)
      if (const size_t lanes = shape.lanes(p, v))
        transpose(panels + shape.place(p, v, n_k) + first * shape.column(p), shape.column(p),
                  out + shape.row(p, v) * n_cols, n_cols, n_cols, lanes, add);
}

template <class Real>
void drop(const unsigned char* dropped, Real kept, Real* values, size_t n) {
  for (size_t i = 0; i < n; ++i) values[i] *= dropped[i] ? Real(0) : kept;
}

template <class Real>
void drop_in_panels(const unsigned char* dropped, Real kept, const PanelShape& shape, size_t n_k, size_t first,
                    size_t n_cols, size_t block_begin, size_t block_end, Real* panels) {
  const Real scales[] = {kept, Real(0)};
  for (size_t p = block_begin; p < block_end; ++p)
    for (size_t v = 0; v < shape.vectors(); ++v) {
      const unsigned char* from = dropped + shape.row(p, v) * n_cols;
      const size_t lanes = shape.lanes(p, v), column = shape.column(p);
      Real* to = panels + shape.place(p, v, n_k) + first * column;
      for (size_t k = 0; k < n_cols; ++k, to += column)
        for (size_t u = 0; u < lanes; ++u) to[u] *= scales[from[u * n_cols + k] != 0];
    }
}

#define QG_INSTANTIATE(Real)                                                                                         \
  template void pack_panels<Real>(TransposeFunction<Real>, const Real*, const PanelShape&, size_t, Real*);           \
  template void pack_bias<Real>(const Real*, const PanelShape&, Real*);                                              \
  template void pack_back_panels<Real>(TransposeFunction<Real>, const Real*, const PanelShape&, size_t, Real*);      \
  template void unpack_panels<Real>(TransposeFunction<Real>, const Real*, const PanelShape&, size_t, size_t, size_t, \
                                    size_t, size_t, bool, Real*);                                                    \
  template void drop<Real>(const unsigned char*, Real, Real*, size_t);                                               \
  template void drop_in_panels<Real>(const unsigned char*, Real, const PanelShape&, size_t, size_t, size_t, size_t,  \
                                     size_t, Real*);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
