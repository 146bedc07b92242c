// The columns of many rows of x or of h in panels: the operand of a product over these rows.
//
// Panel p holds its columns of all rows, which are `line_of(p)` elements each and adjacent.
#pragma once

#include <algorithm>
#include <cstddef>

namespace quadgate {

// n columns of x or of h in panels of `line`, vectors being `width` wide. The last panel's lines have no more vectors
// than they need, but two.
struct Columns {
  size_t n, line, width;
  size_t whole() const { return n / line; }
  size_t panels() const { return (n + line - 1) / line; }
  size_t line_of(size_t panel) const {
    return panel < whole() ? line : std::max<size_t>(2, (n % line + width - 1) / width) * width;
  }
  size_t row() const { return panels() * line; }  // elements of memory for a row
  size_t vectors() const { return (n % line ? line_of(whole()) : 0) / width + whole() * (line / width); }
};

// Rows from `first` on of panels of so many rows.
template <class Real>
struct ColumnPanels {
  Columns columns;
  Real* data;
  size_t rows, first;
  operator ColumnPanels<const Real>() const { return {columns, data, rows, first}; }
  Real* panel(size_t p) const { return data + p * columns.line * rows + first * columns.line_of(p); }
};

// Copies a row (columns.n) to place `at` in panels. Lanes behind its end become zero. mask: multipliers, or null.
template <class Real>
void copy_to_panels(const ColumnPanels<Real>& panels, const Real* from, const Real* mask, size_t at);

}  // namespace quadgate
