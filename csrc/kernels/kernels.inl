// The source of every instruction set: an isa_*.cpp names the set and includes this file.
//
// forward.inl and backward.inl are mirrors: a product over k into a register tile, then the pointwise part on the sums.
// See kernels.h for shapes and for the order of summation that all tile shapes share.
#include "gate.h"
#include "kernels.h"
#include "microkernel.h"

namespace quadgate {
namespace QG_ISA {
namespace {

template <class T>
QG_INLINE int lanes_of(size_t block, size_t n) {
  constexpr size_t W = Vec<T>::kWidth;
  size_t left = n - block * W;
  return int(left < W ? left : W);
}

// Each uses the one before:
// clang-format off
#include "forward.inl"
#include "backward.inl"
#include "norm.inl"
// clang-format on

// ---- weights ----

// The product of the forward pass with other operands: k runs over rows, and the panel is the gates' gradient.
template <class T>
void weight_gradient(const WeightGradient<T>& s) {
  constexpr size_t W = Vec<T>::kWidth;
  const Tiles tiles(s.n_k, kMaxRows);
  for (size_t block = s.block_begin; block < s.block_end; ++block)
    for (size_t t = s.tile_begin; t < s.tile_end; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            constexpr int MR = decltype(mr)::value;
            T* dw = s.dw + block * s.dw_stride + tiles.begin(t) * 4 * W;
            Vec<T> a[1][MR][4];
            const T* x[MR];
            for (int r = 0; r < MR; ++r) {
              for (int v = 0; v < 4; ++v) a[0][r][v] = load(dw + (r * 4 + v) * W);
              x[r] = s.xh + tiles.begin(t) + r;
            }
            const T* panel = s.dg_panels + block * s.panel_stride;
            const Ahead<T> ahead = {panel, block + 1 < s.block_end ? panel + s.panel_stride : nullptr,
                                    s.tile_end - s.tile_begin};
            multiply(a, x, 0, s.xh_stride, panel, 0, s.n_rows, ahead.slice(t - s.tile_begin, s.n_rows, 4));
            for (int r = 0; r < MR; ++r)
              for (int v = 0; v < 4; ++v) store(dw + (r * 4 + v) * W, a[0][r][v]);
          });
}

template <class T>
void column_sums(const ColumnSums<T>& s) {
  constexpr size_t W = Vec<T>::kWidth;
  for (size_t u = s.begin; u < s.end; u += W) {
    const int n = int(s.end - u < W ? s.end - u : W);
    Vec<T> sum = load_upto(s.out + u, n);
    for (size_t r = 0; r < s.n_rows; ++r) {
      Vec<T> a = load_upto(s.a[r] + u, n);
      sum = s.b ? fma(a, load_upto(s.b[r] + u, n), sum) : sum + a;
    }
    store_upto(s.out + u, sum, n);
  }
}

// ---- the activations by themselves ----

template <class T>
void activate_all(const Activation<T>& f, const T* x, T* y, size_t n) {
  constexpr size_t W = Vec<T>::kWidth;
  for (size_t i = 0; i < n; i += W) {
    int lanes = lanes_of<T>(i / W, n);
    store_upto(y + i, activate(f, load_upto(x + i, lanes)), lanes);
  }
}

template <class T>
constexpr Kernels<T> functions() {
  return {size_t(Vec<T>::kWidth), size_t(kMaxRows),   forward<T>,     advance<T>,      project<T>,
          projected<T>,           normalised<T>,      backward<T>,    back_product<T>, projected_backward<T>,
          normalised_backward<T>, weight_gradient<T>, column_sums<T>, activate_all<T>};
}

}  // namespace

extern const KernelTable table;
const KernelTable table = {QG_ISA_NAME, functions<float>(), functions<double>()};

}  // namespace QG_ISA
}  // namespace quadgate
