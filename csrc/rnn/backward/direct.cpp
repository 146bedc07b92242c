#include "rnn/backward/direct.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/caches.h"

namespace quadgate {
namespace {

// The gradients of some rows of the weights, dw[j][k] = sum over the block's rows of dg[row][j] * [x, h][row][k].
template <class Real>
class DirectRows {
 public:
  DirectRows(const BackwardContext<Real>& pass, size_t n_rows, size_t first, size_t n, Real* work)
      : pass_(pass),
        out_(pass.call.gradients[0]),
        first_(first),
        n_(n),
        I_(pass.sizes.input),
        R_(pass.n.h_columns),
        n_rows_(n_rows),
        line_(pass.n.line),
        work_(work) {
    product_.xh = pass.block.dg + first;
    product_.xh_stride = pass.n.dg_stride;
    product_.n_k = n;
    product_.panel_stride = pass.n.block_rows * line_;
    product_.dw_stride = line_;
    product_.tile_end = ceil_div(n, pass.w.kernels.max_rows);
  }

  // Panels that lie in one matrix write to it; one that lies in both, or beyond the end, goes through memory.
  void run() {
    const size_t in_x = I_ / line_, from_h = ceil_div(I_, line_), in_h = (I_ + R_) / line_,
                 all = ceil_div(I_ + R_, line_);
    product_.n_rows = n_rows_;
    whole_panels(0, in_x, out_.weight_ih, I_, 0);
    if (in_x < from_h) split_panel(in_x);
    if (from_h < all) product_.n_rows -= rows_without_h(pass_, n_rows_, first_, first_ + n_, work_);
    if (from_h < in_h) whole_panels(from_h, in_h, out_.weight_hh, R_, I_);
    if (std::max(from_h, in_h) < all) split_panel(all - 1);
    if (!out_.bias && R_) return;
    sum_rows();
    if (out_.bias) put_row(work_, n_, pass_.call.add, out_.bias + first_);
    if (!R_) zero_h();
  }

 private:
  void multiply(size_t panel, size_t end, size_t line, Real* dw, size_t dw_line, GradientStart start) {
    product_.n_vectors = int(line / pass_.n.width);
    product_.dg_panels = pass_.block.xh + panel * product_.panel_stride;
    product_.block_end = end - panel;
    product_.dw = dw;
    product_.dw_line = dw_line;
    product_.start = start;
    pass_.w.kernels.weight_gradient(product_);
  }

  // Panels [begin, end) of the matrix whose column 0 is column `before` of [x, h].
  void whole_panels(size_t begin, size_t end, Real* matrix, size_t columns, size_t before) {
    if (matrix && begin < end)
      multiply(begin, end, line_, matrix + first_ * columns + (begin * line_ - before), columns,
               pass_.call.add ? GradientStart::add : GradientStart::from_zero);
  }

  void split_panel(size_t panel) {
    const size_t line = column_line(pass_.n, I_ + R_, panel);
    multiply(panel, panel + 1, line, work_, line, GradientStart::from_zero);
    put(panel * line_, line, out_.weight_ih, 0, I_);
    put(panel * line_, line, out_.weight_hh, I_, R_);
  }

  // The columns of `work`, which begins with column `at` of [x, h], that are those of a matrix.
  void put(size_t at, size_t line, Real* matrix, size_t before, size_t columns) {
    const size_t begin = std::max(at, before), end = std::min(at + line, before + columns);
    if (!matrix || begin >= end) return;
    for (size_t j = 0; j < n_; ++j)
      put_row(work_ + j * line + (begin - at), end - begin, pass_.call.add,
              matrix + (first_ + j) * columns + (begin - before));
  }

  // The sums of dg, in `work`.
  void sum_rows() {
    constexpr size_t kRows = 128;
    const Real* rows[kRows];
    ColumnSums<Real> sums = {};
    sums.a = rows;
    sums.out = work_;
    sums.end = n_;
    std::fill_n(work_, n_, Real(0));
    for (size_t row = 0; row < n_rows_; row += kRows) {
      sums.n_rows = std::min(kRows, n_rows_ - row);
      for (size_t r = 0; r < sums.n_rows; ++r) rows[r] = product_.xh + (row + r) * product_.xh_stride;
      pass_.w.kernels.column_sums(sums);
    }
  }

  // The gradient of weight_hh where h is zero.
  void zero_h() {
    const size_t R = pass_.n.recurrent;
    for (size_t j = 0; j < n_; ++j) put_zero_product(work_[j], R, pass_.call.add, out_.weight_hh + (first_ + j) * R);
  }

  const BackwardContext<Real>& pass_;
  const LayerParameters<Real*>& out_;
  const size_t first_, n_, I_, R_, n_rows_, line_;
  Real* const work_;
  WeightGradient<Real> product_ = {};
};

}  // namespace

template <class Real>
void put_row(const Real* from, size_t n, bool add, Real* to) {
  if (!add) return void(std::memcpy(to, from, n * sizeof(Real)));
  for (size_t k = 0; k < n; ++k) to[k] += from[k];
}

template <class Real>
void put_zero_product(Real sum, size_t n, bool add, Real* to) {
  if (std::isfinite(sum)) {
    if (!add) std::memset(static_cast<void*>(to), 0, n * sizeof(Real));
    return;
  }
  for (size_t k = 0; k < n; ++k) to[k] = std::numeric_limits<Real>::quiet_NaN();
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
void copy_row(const BackwardContext<Real>& pass, size_t input, size_t at, const Real* x, const Real* h,
              const Real* h_mask) {
  const size_t K = input + pass.n.h_columns, whole = pass.n.by_rows ? pass.n.line : pass.n.xh_stride;
  for (size_t k = 0; k < K;) {
    const bool in_x = k < input;
    const size_t lane = k % whole, line = pass.n.by_rows ? column_line(pass.n, K, k / whole) : whole;
    const size_t n = std::min(line - lane, (in_x ? input : K) - k);
    Real* to = pass.block.xh + k / whole * pass.n.block_rows * whole + at * line + lane;
    std::memcpy(to, in_x ? x + k : h + (k - input), n * sizeof(Real));
    for (size_t i = 0; h_mask && !in_x && i < n; ++i) to[i] *= h_mask[k - input + i];
    k += n;
    if (k < K) continue;
    if (pass.n.by_rows)
      std::memset(static_cast<void*>(to + n), 0, (line - lane - n) * sizeof(Real));
    else
      to[n] = Real(1);
  }
}

template <class Real>
void direct_gradients(const Team& all, const BackwardContext<Real>& pass, size_t n_rows) {
  // A few rows of the weights at a time, so that they are written from end to end, unless [x, h] would come from beyond
  // L2 for each of them.
  const bool near = n_rows * pass.n.xh_stride * sizeof(Real) < l2_bytes() / 2;
  const size_t m = pass.w.kernels.max_rows, slab = std::max<size_t>(1, (near ? kDirectRows / 4 : kDirectRows) / m);
  const Parts tiles(pass.n.gate_rows, m);
  all.share(tiles.count, [&](const Team& share) {
    for (size_t t = share.begin(tiles.count), end = share.end(tiles.count), next = t; t < end; t = next) {
      next = std::min(end, t + slab);
      DirectRows<Real>(pass, n_rows, tiles.begin(t), tiles.begin(next) - tiles.begin(t),
                       pass.all.threads[share.rank].panel_dw)
          .run();
    }
  });
}

#define QG_INSTANTIATE(Real)                                                                                         \
  template void put_row<Real>(const Real*, size_t, bool, Real*);                                                     \
  template void put_zero_product<Real>(Real, size_t, bool, Real*);                                                   \
  template size_t rows_without_h<Real>(const BackwardContext<Real>&, size_t, size_t, size_t, Real*);                 \
  template void copy_row<Real>(const BackwardContext<Real>&, size_t, size_t, const Real*, const Real*, const Real*); \
  template void direct_gradients<Real>(const Team&, const BackwardContext<Real>&, size_t);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
