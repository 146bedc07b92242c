#include "memory/packing.h"

#include <algorithm>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "memory/buffer.h"

namespace quadgate {
namespace {

// Stores one element, or adds it: only gradients are added.
template <class Real>
void put(Real from, Real& to, bool add) {
  to = add ? to + from : from;
}

template <class Real>
void transpose_tile(const Real* from, size_t, Real* to, size_t, bool add) {
  put(*from, *to, add);
}

// Side of the square tiles transposed in SSE registers; on other machines, and at the edges, elements are moved one by
// one.
template <class Real>
constexpr size_t kTile = 1;
#if defined(__SSE2__)
template <>
constexpr size_t kTile<float> = 4;
template <>
constexpr size_t kTile<double> = 2;

void transpose_tile(const float* from, size_t from_stride, float* to, size_t to_stride, bool add) {
  __m128 r[4];
  for (size_t i = 0; i < 4; ++i) r[i] = _mm_loadu_ps(from + i * from_stride);
  _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
  for (size_t i = 0; i < 4; ++i) {
    float* line = to + i * to_stride;
    _mm_storeu_ps(line, add ? _mm_add_ps(_mm_loadu_ps(line), r[i]) : r[i]);
  }
}

void transpose_tile(const double* from, size_t from_stride, double* to, size_t to_stride, bool add) {
  const __m128d a = _mm_loadu_pd(from), b = _mm_loadu_pd(from + from_stride);
  const __m128d r[2] = {_mm_unpacklo_pd(a, b), _mm_unpackhi_pd(a, b)};
  for (size_t i = 0; i < 2; ++i) {
    double* line = to + i * to_stride;
    _mm_storeu_pd(line, add ? _mm_add_pd(_mm_loadu_pd(line), r[i]) : r[i]);
  }
}
#endif

// to[c][r] = from[r][c], or += with `add`; rows of both are `stride` elements apart. kLines of `from` at a time: with
// 256 bytes between them, as in a panel, more would not stay in 32 KB of L1 until all their columns are done.
constexpr size_t kLines = 96;

template <class Real>
void transpose(const Real* from, size_t from_stride, Real* to, size_t to_stride, size_t rows, size_t cols, bool add) {
  constexpr size_t n = kTile<Real>;
  const size_t whole_rows = rows / n * n, whole_cols = cols / n * n;
  for (size_t first = 0; first < whole_rows; first += kLines) {
    for (size_t c = 0; c < cols; ++c)  // prefetch destination lines, usually out of cache
      for (size_t r = first; r < std::min(rows, first + kLines); r += 64 / sizeof(Real))
        __builtin_prefetch(to + c * to_stride + r, 1, 3);
    for (size_t c = 0; c < whole_cols; c += n)
      for (size_t r = first; r < std::min(whole_rows, first + kLines); r += n)
        transpose_tile(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride, add);
  }
  for (size_t c = 0; c < cols; ++c)
    for (size_t r = c < whole_cols ? whole_rows : 0; r < rows; ++r)
      put(from[r * from_stride + c], to[c * to_stride + r], add);
}

}  // namespace

template <class Real>
void pack_panels(const Real* weight, const PanelShape& shape, size_t n_k, Real* panels) {
  const size_t W = shape.width, V = shape.vectors();
  for (size_t p = 0; p < shape.blocks(); ++p) {
    Real* panel = panels + p * n_k * shape.line();
    if (shape.lanes(p, V - 1) < W) std::memset(static_cast<void*>(panel), 0, n_k * shape.line() * sizeof(Real));
    for (size_t v = 0; v < V; ++v)
      if (const size_t lanes = shape.lanes(p, v))
        transpose(weight + shape.row(p, v) * n_k, n_k, panel + v * W, shape.line(), lanes, n_k, false);
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
    pack_elements<int8_t>(weight, shape, n_k, panels, bytes, [=](size_t k, size_t v, size_t u) {
      return ((k / group * V + v) * W + u) * group + k % group;
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
        std::memcpy(packed + (p * shape.vectors() + v) * shape.width, bias + shape.row(p, v), lanes * sizeof(Real));
}

template <class Real>
void pack_back_panels(const Real* panels, const PanelShape& shape, size_t n_k, Real* back) {
  const size_t W = shape.width, V = shape.vectors();
  const Parts groups = column_groups(n_k, W);
  for (size_t group = 0; group < groups.count; ++group) {
    const size_t first = groups.begin(group), nv = size_t(groups.size(group));
    Real* to_group = back + first * W * shape.total();
    for (size_t b = 0; b < nv; ++b) {
      const size_t col0 = (first + b) * W, cols = std::min(W, n_k - col0);
      for (size_t p = 0; p < shape.blocks(); ++p)
        for (size_t v = 0; v < V; ++v) {
          const size_t units = shape.lanes(p, v);
          if (!units) continue;
          const Real* from = panels + ((p * n_k + col0) * V + v) * W;
          Real* to = to_group + (shape.row(p, v) * nv + b) * W;
          transpose(from, shape.line(), to, nv * W, cols, units, false);
          for (size_t u = 0; u < units && cols < W; ++u)
            std::memset(static_cast<void*>(to + u * nv * W + cols), 0, (W - cols) * sizeof(Real));
        }
    }
  }
}

template <class Real>
void unpack_panels(const Real* panels, const PanelShape& shape, size_t n_k, size_t first, size_t n_cols,
                   size_t block_begin, size_t block_end, bool add, Real* out) {
  const size_t V = shape.vectors();
  for (size_t p = block_begin; p < block_end; ++p)
    for (size_t v = 0; v < V; ++v)
      if (const size_t lanes = shape.lanes(p, v))
        transpose(panels + ((p * n_k + first) * V + v) * shape.width, shape.line(), out + shape.row(p, v) * n_cols,
                  n_cols, n_cols, lanes, add);
}

template <class Real>
void transpose_matrix(const Real* from, size_t from_stride, Real* to, size_t to_stride, size_t rows, size_t cols) {
  transpose(from, from_stride, to, to_stride, rows, cols, false);
}

#define QG_INSTANTIATE(Real)                                                                                      \
  template void pack_panels<Real>(const Real*, const PanelShape&, size_t, Real*);                                 \
  template void pack_bias<Real>(const Real*, const PanelShape&, Real*);                                           \
  template void pack_back_panels<Real>(const Real*, const PanelShape&, size_t, Real*);                            \
  template void unpack_panels<Real>(const Real*, const PanelShape&, size_t, size_t, size_t, size_t, size_t, bool, \
                                    Real*);                                                                       \
  template void transpose_matrix<Real>(const Real*, size_t, Real*, size_t, size_t, size_t);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
