#include "pack.h"

#include <algorithm>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fourgate {
namespace {

// Square tiles that a plain machine turns in registers; elsewhere, and at the edges, single elements.
#if defined(__SSE2__)
constexpr size_t tile_of(float) { return 4; }
constexpr size_t tile_of(double) { return 2; }

void turn(const float* from, size_t from_stride, float* to, size_t to_stride, bool add) {
  __m128 r[4];
  for (size_t i = 0; i < 4; ++i) r[i] = _mm_loadu_ps(from + i * from_stride);
  _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
  for (size_t i = 0; i < 4; ++i) {
    float* line = to + i * to_stride;
    _mm_storeu_ps(line, add ? _mm_add_ps(_mm_loadu_ps(line), r[i]) : r[i]);
  }
}

void turn(const double* from, size_t from_stride, double* to, size_t to_stride, bool add) {
  const __m128d a = _mm_loadu_pd(from), b = _mm_loadu_pd(from + from_stride);
  const __m128d r[2] = {_mm_unpacklo_pd(a, b), _mm_unpackhi_pd(a, b)};
  for (size_t i = 0; i < 2; ++i) {
    double* line = to + i * to_stride;
    _mm_storeu_pd(line, add ? _mm_add_pd(_mm_loadu_pd(line), r[i]) : r[i]);
  }
}
#else
template <class T>
constexpr size_t tile_of(T) {
  return 1;
}
template <class T>
void turn(const T* from, size_t, T* to, size_t, bool add) {
  *to = add ? *to + *from : *from;
}
#endif

// to[c][r] = from[r][c], or += with `add`; rows of both are `stride` elements apart.
template <class T>
void transpose(const T* from, size_t from_stride, T* to, size_t to_stride, size_t rows, size_t cols, bool add) {
  constexpr size_t n = tile_of(T());
  const size_t whole_rows = rows / n * n, whole_cols = cols / n * n;
  for (size_t c = 0; c < whole_cols; c += n)
    for (size_t r = 0; r < whole_rows; r += n)
      turn(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride, add);
  for (size_t c = 0; c < cols; ++c)
    for (size_t r = c < whole_cols ? whole_rows : 0; r < rows; ++r) {
      T& out = to[c * to_stride + r];
      out = add ? out + from[r * from_stride + c] : from[r * from_stride + c];
    }
}

}  // namespace

template <class T>
void pack_panels(const T* weight, size_t hidden, size_t n_k, size_t width, T* panels) {
  const size_t blocks = n_blocks(hidden, width);
  for (size_t p = 0; p < blocks; ++p) {
    const size_t lanes = std::min(width, hidden - p * width);
    T* panel = panels + p * n_k * 4 * width;
    if (lanes < width) std::memset(static_cast<void*>(panel), 0, n_k * 4 * width * sizeof(T));
    for (size_t g = 0; g < 4; ++g)
      transpose(weight + (g * hidden + p * width) * n_k, n_k, panel + g * width, 4 * width, lanes, n_k, false);
  }
}

template <class T>
void pack_bias(const T* bias, size_t hidden, size_t width, T* packed) {
  const size_t blocks = n_blocks(hidden, width);
  std::memset(packed, 0, blocks * 4 * width * sizeof(T));
  if (!bias) return;
  for (size_t p = 0; p < blocks; ++p)
    for (size_t g = 0; g < 4; ++g)
      std::memcpy(packed + (p * 4 + g) * width, bias + g * hidden + p * width,
                  std::min(width, hidden - p * width) * sizeof(T));
}

template <class T>
void pack_back_panels(const T* panels, size_t hidden, size_t n_k, size_t width, T* back) {
  const size_t col_blocks = n_blocks(n_k, width);
  const size_t groups = n_groups(n_k, width);
  for (size_t group = 0, first = 0, nv; group < groups; ++group, first += nv) {
    nv = col_blocks / groups + (group < col_blocks % groups);
    T* to_group = back + first * width * 4 * hidden;
    for (size_t v = 0; v < nv; ++v) {
      const size_t col0 = (first + v) * width, cols = std::min(width, n_k - col0);
      for (size_t g = 0; g < 4; ++g)
        for (size_t u0 = 0; u0 < hidden; u0 += width) {
          const size_t units = std::min(width, hidden - u0);
          const T* from = panels + ((u0 / width * n_k + col0) * 4 + g) * width;
          T* to = to_group + ((g * hidden + u0) * nv + v) * width;
          transpose(from, 4 * width, to, nv * width, cols, units, false);
          for (size_t u = 0; u < units && cols < width; ++u)
            std::memset(static_cast<void*>(to + u * nv * width + cols), 0, (width - cols) * sizeof(T));
        }
    }
  }
}

template <class T>
void unpack_panels(const T* panels, size_t hidden, size_t n_k, size_t first, size_t n_cols, size_t width,
                   size_t block_begin, size_t block_end, bool add, T* out) {
  for (size_t p = block_begin; p < block_end; ++p) {
    const size_t lanes = std::min(width, hidden - p * width);
    for (size_t g = 0; g < 4; ++g)
      transpose(panels + ((p * n_k + first) * 4 + g) * width, 4 * width, out + (g * hidden + p * width) * n_cols,
                n_cols, n_cols, lanes, add);
  }
}

#define FOURGATE_INSTANTIATE(T)                                            \
  template void pack_panels<T>(const T*, size_t, size_t, size_t, T*);      \
  template void pack_bias<T>(const T*, size_t, size_t, T*);                \
  template void pack_back_panels<T>(const T*, size_t, size_t, size_t, T*); \
  template void unpack_panels<T>(const T*, size_t, size_t, size_t, size_t, size_t, size_t, size_t, bool, T*);
FOURGATE_INSTANTIATE(float)
FOURGATE_INSTANTIATE(double)
#undef FOURGATE_INSTANTIATE

}  // namespace fourgate
