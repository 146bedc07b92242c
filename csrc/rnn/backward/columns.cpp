#include "rnn/backward/columns.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace quadgate {

template <class Real>
void copy_rows(const BackwardContext<Real>& pass, size_t l, size_t at, size_t n_rows, const Real* x, const Real* h,
               size_t h_stride, const Real* h_mask) {
  const BackwardSizes& n = pass.n;
  const Kernels<Real>& kernels = pass.w.kernels;
  const size_t input = pass.sizes.input_of(l);
  if (n.by_rows) {
    if (!n.x_on_tape || l > 0) copy_to_panels<Real>(kernels, x, input, n_rows, block_x_panels(pass, l), at);
    copy_to_panels<Real>(kernels, h, h_stride, n_rows, h_panels(pass), at);
    if (h_mask) multiply_in_panels(h_panels(pass), at, h_mask);
    return;
  }
  for (size_t r = 0; r < n_rows; ++r) {
    Real *to = pass.block.xh + (at + r) * n.xh_stride, *to_h = to + input;
    std::memcpy(to, x + r * input, input * sizeof(Real));
    std::memcpy(to_h, h + r * h_stride, n.h_columns * sizeof(Real));
    for (size_t i = 0; h_mask && i < n.h_columns; ++i) to_h[i] *= h_mask[i];
    to_h[n.h_columns] = Real(1);
  }
}

template <class Real>
size_t rows_without_h(const BackwardContext<Real>& pass, size_t n_rows, size_t begin, size_t end, Real* work) {
  const size_t n = pass.order.active_rows(0);
  if (!pass.tape.zero_h0) return 0;
  constexpr size_t kRows = 64, kColumns = 64;
  const Real* rows[kRows];
  ColumnSums<Real> sums = {};
  sums.a = rows;
  sums.out = work;
  for (; begin < end; begin += sums.end) {
    sums.end = std::min(kColumns, end - begin);
    std::fill_n(work, sums.end, Real(0));
    for (size_t row = n_rows - n; row < n_rows; row += sums.n_rows) {
      sums.n_rows = std::min(kRows, n_rows - row);
      for (size_t r = 0; r < sums.n_rows; ++r) rows[r] = pass.block.dg + (row + r) * pass.n.dg_stride + begin;
      pass.w.kernels.column_sums(sums);
    }
    if (!std::all_of(work, work + sums.end, [](Real sum) { return std::isfinite(sum); })) return 0;
  }
  return n;
}

template <class Real>
void put_row(const Real* from, size_t n, bool add, Real* to) {
  if (!add) return void(std::memcpy(to, from, n * sizeof(Real)));
  for (size_t k = 0; k < n; ++k) to[k] += from[k];
}

template <class Real>
Real zero_product(Real sum, const Real* dg, size_t stride, size_t n_rows) {
  Real product = 0;
  for (size_t row = 0; !std::isfinite(sum) && row < n_rows; ++row) product += dg[row * stride] * Real(0);
  return product;
}

template <class Real>
void put_zero_product(Real product, size_t n, bool add, Real* to) {
  if (std::isnan(product))
    std::fill_n(to, n, std::numeric_limits<Real>::quiet_NaN());
  else if (!add)
    std::memset(static_cast<void*>(to), 0, n * sizeof(Real));
}

#define QG_INSTANTIATE(Real)                                                                                    \
  template void copy_rows<Real>(const BackwardContext<Real>&, size_t, size_t, size_t, const Real*, const Real*, \
                                size_t, const Real*);                                                           \
  template size_t rows_without_h<Real>(const BackwardContext<Real>&, size_t, size_t, size_t, Real*);            \
  template void put_row<Real>(const Real*, size_t, bool, Real*);                                                \
  template Real zero_product<Real>(Real, const Real*, size_t, size_t);                                          \
  template void put_zero_product<Real>(Real, size_t, bool, Real*);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
