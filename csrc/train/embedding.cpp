#include "train/embedding.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "memory/packing.h"

namespace quadgate {
namespace {

constexpr size_t kGatherBytes = size_t(128) << 10;  // of a piece
// Elements of a piece, and vectors of its columns. Where there are many rows, most of which stay zero, pieces of whole
// rows are taken instead: memory is written faster from end to end.
constexpr size_t kSumElements = 8192, kColumnVectors = 4, kManyPieces = 64;

}  // namespace

template <class Real>
bool gather_rows(const Real* weight, size_t columns, const int64_t* ids, size_t n, Real* out, Interrupted interrupted) {
  if (columns == 0) return true;
  const size_t rows = std::max<size_t>(1, kGatherBytes / (columns * sizeof(Real))), pieces = n_blocks(n, rows);
  Lease lease(threads_for(pieces, kElementFlops * double(n) * double(columns)));
  return for_pieces(lease, pieces, interrupted, [&](size_t piece, int) {
    for (size_t i = piece * rows; i < std::min(n, (piece + 1) * rows); ++i)
      std::memcpy(out + i * columns, weight + size_t(ids[i]) * columns, columns * sizeof(Real));
  });
}

template <class Real>
bool sum_rows(const Real* dy, size_t columns, const int64_t* ids, size_t n, size_t rows, Real* dweight,
              Interrupted interrupted) {
  if (columns == 0) return true;
  // Pointers to the rows of dy, by id, in their order within an id.
  std::vector<size_t> end(rows + 1, 0);
  for (size_t i = 0; i < n; ++i) ++end[size_t(ids[i]) + 1];
  for (size_t k = 0; k < rows; ++k) end[k + 1] += end[k];
  std::vector<const Real*> sorted(n);
  for (size_t i = 0; i < n; ++i) sorted[end[size_t(ids[i])]++] = dy + i * columns;
  // end[k] is now the end of id k, and its begin that of id k - 1.
  const Kernels<Real>& kernels = kernels_for<Real>();
  auto rows_of = [](size_t wide) { return std::max<size_t>(16, kSumElements / wide); };
  const bool whole = n <= rows && n_blocks(rows, rows_of(columns)) >= kManyPieces;
  const size_t width = whole ? columns : kColumnVectors * kernels.width, across = n_blocks(columns, width);
  const size_t rows_each = rows_of(std::min(columns, width));
  const size_t down = n_blocks(rows, rows_each);
  Lease lease(threads_for(across * down, kElementFlops * double(n + rows) * double(columns)));
  return for_pieces(lease, across * down, interrupted, [&](size_t piece, int) {
    ColumnSums<Real> sums = {};
    sums.begin = piece % across * width;
    sums.end = std::min(columns, sums.begin + width);
    const size_t row = piece / across * rows_each, row_end = std::min(rows, row + rows_each);
    if (whole) std::memset(static_cast<void*>(dweight + row * columns), 0, (row_end - row) * columns * sizeof(Real));
    for (size_t k = row; k < row_end; ++k) {
      const size_t first = k ? end[k - 1] : 0;
      sums.out = dweight + k * columns;
      sums.a = sorted.data() + first;
      sums.n_rows = end[k] - first;
      if (!whole) std::memset(static_cast<void*>(sums.out + sums.begin), 0, (sums.end - sums.begin) * sizeof(Real));
      if (sums.n_rows) kernels.column_sums(sums);
    }
  });
}

#define QG_INSTANTIATE(Real)                                                                        \
  template bool gather_rows<Real>(const Real*, size_t, const int64_t*, size_t, Real*, Interrupted); \
  template bool sum_rows<Real>(const Real*, size_t, const int64_t*, size_t, size_t, Real*, Interrupted);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
