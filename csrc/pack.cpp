#include "pack.h"

#include <algorithm>
#include <cstring>

namespace fourgate {
namespace {

// k is walked in short runs, so that the W rows of a block and the panel lines they go to all stay in L1.
constexpr size_t kRun = 16;

}  // namespace

template <class T>
void pack_panels(const T* weight, size_t hidden, size_t n_k, size_t width, T* panels) {
  const size_t blocks = n_blocks(hidden, width);
  for (size_t p = 0; p < blocks; ++p) {
    const size_t lanes = std::min(width, hidden - p * width);
    T* panel = panels + p * n_k * 4 * width;
    if (lanes < width) std::memset(panel, 0, n_k * 4 * width * sizeof(T));
    for (size_t g = 0; g < 4; ++g)
      for (size_t k0 = 0; k0 < n_k; k0 += kRun) {
        const size_t k1 = std::min(n_k, k0 + kRun);
        for (size_t u = 0; u < lanes; ++u) {
          const T* row = weight + (g * hidden + p * width + u) * n_k;
          T* to = panel + g * width + u;
          for (size_t k = k0; k < k1; ++k) to[k * 4 * width] = row[k];
        }
      }
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
  for (size_t group = 0; group < n_groups(n_k, width); ++group) {
    const size_t nv = std::min<size_t>(4, col_blocks - group * 4);
    T* to_group = back + group * 4 * width * 4 * hidden;
    for (size_t v = 0; v < nv; ++v) {
      const size_t col0 = (group * 4 + v) * width, cols = std::min(width, n_k - col0);
      for (size_t g = 0; g < 4; ++g)
        for (size_t u0 = 0; u0 < hidden; u0 += width) {
          const size_t units = std::min(width, hidden - u0);
          const T* from = panels + ((u0 / width * n_k + col0) * 4 + g) * width;
          T* to = to_group + ((g * hidden + u0) * nv + v) * width;
          for (size_t u = 0; u < units; ++u) {
            T* line = to + u * nv * width;
            for (size_t c = 0; c < cols; ++c) line[c] = from[c * 4 * width + u];
            for (size_t c = cols; c < width; ++c) line[c] = T(0);
          }
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
      for (size_t k0 = 0; k0 < n_cols; k0 += kRun) {
        const size_t k1 = std::min(n_cols, k0 + kRun);
        for (size_t u = 0; u < lanes; ++u) {
          const T* from = panels + ((p * n_k + first) * 4 + g) * width + u;
          T* row = out + (g * hidden + p * width + u) * n_cols;
          if (add)
            for (size_t k = k0; k < k1; ++k) row[k] += from[k * 4 * width];
          else
            for (size_t k = k0; k < k1; ++k) row[k] = from[k * 4 * width];
        }
      }
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
