// From the name of a cell to its type: the only list of cells in the kernels.
#pragma once

#include "cells/elman.h"
#include "cells/lstm.h"

namespace quadgate {
namespace QG_ISA {

// Calls f with a value of the cell's type. Null options are those of the plain LSTM.
template <class Real, class F>
QG_INLINE void with_cell(const CellOptions<Real>* options, F&& f) {
  if (options && options->type == CellType::elman)
    f(Elman<Real>());
  else
    f(Lstm<Real>());
}

}  // namespace QG_ISA
}  // namespace quadgate
