#include "rnn/product_cut.h"

#include <algorithm>

#include "cpu/throughput.h"
#include "kernels/layouts.h"
#include "parallel/plan.h"

namespace quadgate {

ProductCut::ProductCut(size_t n_rows, size_t n_groups, size_t n_k, const KernelSizes& kernels, size_t threads)
    : rows(n_rows), groups(n_groups), row_parts(n_rows), column_parts(1) {
  const double bytes = double(n_k * kernels.element_size), line = double(kLineVectors * kernels.width);
  double best = 0;
  for (size_t columns = 1; columns <= std::min(groups, threads); ++columns) {
    const size_t of_rows = std::max<size_t>(1, std::min(rows, threads / columns)), n = ceil_div(rows, of_rows);
    const double g = double(ceil_div(groups, columns)), part = g * line * bytes;
    const double multiply = double(n * n_k) * g * multiply_cycles(kernels);
    const double near = double(ceil_div(n, kernels.max_rows)) * part / (kL2InTiles * core_throughput().l2);
    const double cycles =
        overlapped(std::max(multiply, near), read_cycles(part, threads)) + read_cycles(double(n) * bytes, threads);
    if (columns > 1 && cycles > 0.9 * best) continue;
    best = cycles;
    column_parts = columns;
    // More parts than threads, so that one whose core is shared can do less.
    row_parts = columns == 1 ? rows : std::min(rows, of_rows * (of_rows > 1 ? Team::kItems : 1));
  }
  parts = row_parts * column_parts;
}

}  // namespace quadgate
