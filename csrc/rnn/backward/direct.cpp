#include "rnn/backward/direct.h"

#include <algorithm>
#include <cmath>

#include "cpu/caches.h"
#include "rnn/backward/columns.h"

namespace quadgate {
namespace {

// The gradients of some rows of the weights.
template <class Real>
class DirectRows {
 public:
  DirectRows(const BackwardContext<Real>& pass, size_t id, size_t n_rows, size_t first, size_t n, Real* work,
             Real* columns)
      : pass_(pass),
        out_(pass.call.gradients[id]),
        layer_(id / pass.sizes.directions),
        n_rows_(n_rows),
        first_(first),
        n_(n),
        work_(work) {
    product_.xh = pass.block.dg + first;
    product_.xh_stride = pass.n.dg_stride;
    product_.n_k = n;
    product_.tile_end = ceil_div(n, pass.w.kernels.max_rows);
    product_.columns = columns;
  }

  void run() {
    const size_t R = pass_.n.h_columns;
    matrix(x_panels(pass_, layer_, pass_.order.steps()), n_rows_, out_.weight_ih);
    if (R)
      matrix(h_panels(pass_), n_rows_ - rows_without_h(pass_, n_rows_, first_, first_ + n_, work_), out_.weight_hh);
    if (!out_.bias && R) return;
    sum_rows();
    if (out_.bias) put_row(work_, n_, pass_.call.add, out_.bias + first_);
    if (!R) zero_h();
  }

 private:
  // Whole panels write to the matrix; the last, where it is not whole, goes through memory, unless the rows of the
  // matrix are written from end to end.
  void matrix(const ColumnPanels<const Real>& panels, size_t n_rows, Real* out) {
    if (!out) return;
    const Columns& columns = panels.columns;
    const size_t whole = columns.whole(), last = whole * columns.line, rest = columns.n - last;
    product_.dg_panels = panels.panel(0);
    product_.n_rows = n_rows;
    product_.panel_stride = panels.rows * columns.line;
    out += first_ * columns.n;
    const bool in_rows = kWritesRows<Real> && n_rows <= kStoreBoundRows && whole >= kStoreBoundPanels;
    product_.rest = in_rows ? rest : 0;
    if (product_.rest) {
      product_.rest_panel = panels.panel(whole);
      product_.rest_vectors = columns.line_of(whole) / columns.width;
    }
    if (whole)
      multiply(whole, columns.line, out, columns.n, pass_.call.add ? GradientStart::add : GradientStart::from_zero);
    if (!rest || in_rows) return;
    product_.dg_panels = panels.panel(whole);
    const size_t line = columns.line_of(whole);
    multiply(1, line, work_, line, GradientStart::from_zero);
    for (size_t j = 0; j < n_; ++j) put_row(work_ + j * line, rest, pass_.call.add, out + j * columns.n + last);
  }

  void multiply(size_t panels, size_t line, Real* dw, size_t dw_line, GradientStart start) {
    product_.n_vectors = int(line / pass_.n.width);
    product_.block_end = panels;
    product_.dw = dw;
    product_.dw_stride = line;
    product_.dw_line = dw_line;
    product_.start = start;
    pass_.w.kernels.weight_gradient(product_);
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
    Real* out = out_.weight_hh + first_ * R;
    if (std::all_of(work_, work_ + n_, [](Real sum) { return std::isfinite(sum); }))
      return put_zero_product(Real(0), n_ * R, pass_.call.add, out);
    for (size_t j = 0; j < n_; ++j)
      put_zero_product(zero_product(work_[j], product_.xh + j, product_.xh_stride, n_rows_), R, pass_.call.add,
                       out + j * R);
  }

  const BackwardContext<Real>& pass_;
  const LayerParameters<Real*>& out_;
  const size_t layer_, n_rows_, first_, n_;
  Real* const work_;
  WeightGradient<Real> product_ = {};
};

}  // namespace

template <class Real>
void direct_gradients(const Team& all, const BackwardContext<Real>* passes, size_t n_rows) {
  const BackwardContext<Real>& pass = *passes;
  // A few rows of the weights at a time, so that they are written from end to end, unless [x, h] would come from beyond
  // L2 for each of them.
  const bool near = n_rows * pass.n.n_k * sizeof(Real) < l2_bytes() / 2;
  const size_t m = pass.w.kernels.max_rows, slab = std::max<size_t>(1, (near ? kDirectRows / 4 : kDirectRows) / m);
  const Parts tiles(pass.n.gate_rows, m);
  const size_t n = pass.sizes.states() * tiles.count;
  all.share(n, [&](const Team& share) {
    for (size_t at = share.begin(n), end = share.end(n), next = at; at < end; at = next) {
      const size_t id = at / tiles.count, before = id * tiles.count, first = tiles.begin(at - before);
      next = std::min({end, at + slab, before + tiles.count});
      DirectRows<Real>(passes[id], id, n_rows, first, tiles.begin(next - before) - first,
                       pass.all.threads[share.rank].panel_dw, pass.all.threads[share.rank].columns)
          .run();
    }
  });
}

template void direct_gradients<float>(const Team&, const BackwardContext<float>*, size_t);
template void direct_gradients<double>(const Team&, const BackwardContext<double>*, size_t);

}  // namespace quadgate
