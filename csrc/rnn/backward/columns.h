// Gradients of weights in the order of the weights' rows: dw[j] = sum over rows of dg[row][j] * [x, h][row].
//
// The columns of x, and those of h, lie in panels. Neighbouring rows of a panel are adjacent: they are the lines that
// products read.
#pragma once

#include "rnn/backward/context.h"

namespace quadgate {

// A block's panels of x of layer l, where that does not lie on the tape.
template <class Real>
ColumnPanels<Real> block_x_panels(const BackwardContext<Real>& pass, size_t l) {
  return {pass.n.columns(pass.sizes.input_of(l)), pass.block.xh, pass.n.block_rows, 0};
}
// The panels of x of layer l, and those of h, for a block that ends with step s1.
template <class Real>
ColumnPanels<const Real> x_panels(const BackwardContext<Real>& pass, size_t l, size_t s1) {
  if (pass.n.x_on_tape && l == 0) return pass.tape.x_panels(s1 - 1);
  return block_x_panels(pass, l);
}
template <class Real>
ColumnPanels<Real> h_panels(const BackwardContext<Real>& pass) {
  return {pass.n.columns(pass.n.h_columns), pass.block.xh + pass.n.block_rows * pass.n.x_row, pass.n.block_rows, 0};
}

// Copies the x (input_of(l)) and h (h_columns) of n_rows rows, the latter h_stride apart, to their places in the block
// from `at` on: to panels, except x that lies in the tape's; or to rows of [x, h, 1] where gradients are not made by
// rows. h_mask: multipliers of h for a single row, or null.
template <class Real>
void copy_rows(const BackwardContext<Real>& pass, size_t l, size_t at, size_t n_rows, const Real* x, const Real* h,
               size_t h_stride, const Real* h_mask);

// Returns the number of rows at the end of a block that products of dg with h may leave out. The block begins with the
// first step; its rows count if the call had no h0 and their dg is finite in columns [begin, end). work: a thread's
// product_work or panel_dw.
template <class Real>
size_t rows_without_h(const BackwardContext<Real>& pass, size_t n_rows, size_t begin, size_t end, Real* work);

// to = from, or to += from, for n elements of a gradient.
template <class Real>
void put_row(const Real* from, size_t n, bool add, Real* to);

// The product of a column of dg with zeros: 0, or NaN if an element is infinite or NaN. sum: of the column, which need
// not be read again if that is finite; finite elements may overflow in it.
template <class Real>
Real zero_product(Real sum, const Real* dg, size_t stride, size_t n_rows);

// The same as put_row for a row of the gradient of weight_hh where all rows of h are zero. product: its zero_product.
template <class Real>
void put_zero_product(Real product, size_t n, bool add, Real* to);

}  // namespace quadgate
