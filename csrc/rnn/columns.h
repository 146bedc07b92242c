// The columns of many rows of x or of h in panels: the operand of a product over these rows.
//
// A panel holds some neighbouring columns of all rows. Its part of one row is a line; lines of neighbouring rows are
// adjacent. Panels lie one behind the other, the last with shorter lines.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/table.h"

namespace quadgate {

// n columns in panels of `line` columns each, vectors being `width` wide. A line of the last panel has as few vectors
// as it needs, but at least `least`: kernels are compiled for no fewer.
struct Columns {
  size_t n, line, width, least;
  size_t whole() const { return n / line; }
  size_t panels() const { return (n + line - 1) / line; }
  size_t line_of(size_t panel) const {
    return panel < whole() ? line : std::max(least, (n % line + width - 1) / width) * width;
  }
  size_t row() const { return whole() * line + (n % line ? line_of(whole()) : 0); }  // elements of memory for a row
  size_t vectors() const { return row() / width; }
};

// The rows from `first` on, in panels of `rows` rows.
template <class Real>
struct ColumnPanels {
  Columns columns;
  Real* data;
  size_t rows, first;
  operator ColumnPanels<const Real>() const { return {columns, data, rows, first}; }
  Real* panel(size_t p) const { return data + p * columns.line * rows + first * columns.line_of(p); }
};

// Copies rows (columns.n) that are from_stride apart to places from `at` on in panels. Lanes behind their ends become
// zero.
template <class Real>
void copy_to_panels(const Kernels<Real>& kernels, const Real* from, size_t from_stride, size_t n_rows,
                    const ColumnPanels<Real>& panels, size_t at);
// Multiplies the row at place `at` by a mask (columns.n).
template <class Real>
void multiply_in_panels(const ColumnPanels<Real>& panels, size_t at, const Real* mask);

}  // namespace quadgate
