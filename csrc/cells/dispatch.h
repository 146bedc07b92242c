// From the name of a cell to its type: the only list of cells in the kernels.
#pragma once

#include "cells/elman.h"
#include "cells/lstm.h"
#include "kernels/tiles.h"

namespace quadgate {
namespace QG_ISA {

// Calls f with a value of the cell's type. Null options are those of the plain LSTM.
template <class Real, class F>
QG_INLINE void with_cell(const CellOptions<Real>* options, F&& f) {
  switch (options ? options->type : CellType::lstm) {  // without a default: the compiler warns of a missing cell
    case CellType::elman:
      return f(Elman<Real>());
    case CellType::lstm:
      return f(Lstm<Real>());
  }
}

// Vectors in a line of panels of the cell with this index in kCellSizes.
static constexpr int line_vectors(int cell) {
  return int(kCellSizes[cell].n_gates) * row_blocks(int(kCellSizes[cell].n_gates));
}
// True if a cell before this one has the same number.
static constexpr bool line_repeated(int cell) {
  for (int k = 0; k < cell; ++k)
    if (line_vectors(k) == line_vectors(cell)) return true;
  return false;
}

// Calls f(Int<n_vectors>) for the line of any cell, which is also that of a matrix without gates.
template <int Cell = kCellTypes - 1, class F>
QG_INLINE void with_line(int n_vectors, F&& f) {
  if constexpr (Cell == 0) {
    f(Int<line_vectors(0)>{});
  } else {
    if constexpr (!line_repeated(Cell))
      if (n_vectors == line_vectors(Cell)) return f(Int<line_vectors(Cell)>{});
    with_line<Cell - 1>(n_vectors, f);
  }
}
static_assert(line_vectors(0) == kLineVectors, "the default of products");

}  // namespace QG_ISA
}  // namespace quadgate
