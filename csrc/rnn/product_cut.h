// A split of a product of many rows over the threads of a team.
#pragma once

#include "parallel/cost.h"
#include "rnn/team.h"

namespace quadgate {

// The cut of n rows times a matrix of so many groups of columns, for `threads`: into rows, and columns, too, where
// threads would wait for the matrix if each read all of it. The parts of a column are neighbours.
struct ProductCut {
  size_t rows, groups, row_parts, column_parts, parts;
  // A group is a line of panels, of blocks of output columns or of gates; n_k: lines of a panel.
  ProductCut(size_t rows, size_t groups, size_t n_k, const KernelSizes& kernels, size_t threads);

  // f(row_begin, row_end, group_begin, group_end) for the pieces of a share; false once f was.
  template <class F>
  bool each(const Team& share, F&& f) const {
    for (size_t part = share.begin(parts), end = share.end(parts), stop; part < end; part = stop) {
      const size_t column = part / row_parts, first = column * row_parts;
      stop = std::min(end, first + row_parts);
      if (!f(rows * (part - first) / row_parts, rows * (stop - first) / row_parts, groups * column / column_parts,
             groups * (column + 1) / column_parts))
        return false;
    }
    return true;
  }
};

}  // namespace quadgate
