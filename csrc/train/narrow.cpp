#include "train/narrow.h"

#include <algorithm>

#include "memory/buffer.h"
#include "memory/packing.h"

namespace quadgate {
namespace {

constexpr size_t kElements = 65536;                  // of x in a piece
constexpr size_t kPartRows = 2048, kMostParts = 64;  // of a weight gradient; no more parts than that

// Rows [begin, end).
template <class Real>
NarrowRows<Real> part_of(NarrowRows<Real> rows, size_t begin, size_t end) {
  rows.x += begin * rows.n_in;
  if (rows.dz) rows.dz += begin * rows.n_out;
  rows.n_rows = end - begin;
  return rows;
}

}  // namespace

template <class Real>
bool narrow_forward(const NarrowRows<Real>& all, Interrupted interrupted) {
  const Kernels<Real>& kernels = kernels_for<Real>();
  const size_t rows = std::max<size_t>(16, kElements / all.n_in), pieces = n_blocks(all.n_rows, rows);
  Lease lease(threads_for(pieces, kElementFlops * double(all.n_rows) * double(all.n_in)));
  return for_pieces(lease, pieces, interrupted, [&](size_t piece, int) {
    NarrowRows<Real> part = part_of(all, piece * rows, std::min(all.n_rows, (piece + 1) * rows));
    part.out = all.out + piece * rows * all.n_out;
    kernels.narrow_forward(part);
  });
}

template <class Real>
bool narrow_backward(const NarrowRows<Real>& all, Real* dx, Real* dw, Interrupted interrupted) {
  const Kernels<Real>& kernels = kernels_for<Real>();
  const size_t size = all.n_in * all.n_out;
  const size_t part_rows = std::max(kPartRows, n_blocks(all.n_rows, kMostParts));
  const size_t parts = std::max<size_t>(1, n_blocks(all.n_rows, part_rows));
  const size_t rows = std::max<size_t>(16, kElements / all.n_in), pieces = dx ? n_blocks(all.n_rows, rows) : 0;
  Buffer<Real> sums(checked_mul(parts, size));
  Lease lease(threads_for(parts + pieces, kElementFlops * double(all.n_rows) * double(all.n_in)));
  const bool done = for_pieces(lease, parts + pieces, interrupted, [&](size_t piece, int) {
    if (piece < parts) {
      NarrowRows<Real> part = part_of(all, piece * part_rows, std::min(all.n_rows, (piece + 1) * part_rows));
      part.out = sums.data() + piece * size;
      kernels.narrow_weight_gradient(part);
      return;
    }
    piece -= parts;
    NarrowRows<Real> part = part_of(all, piece * rows, std::min(all.n_rows, (piece + 1) * rows));
    part.out = dx + piece * rows * all.n_in;
    kernels.narrow_input_gradient(part);
  });
  if (!done) return false;
  std::copy_n(sums.data(), size, dw);
  for (size_t part = 1; part < parts; ++part)
    for (size_t i = 0; i < size; ++i) dw[i] += sums[part * size + i];
  return true;
}

#define QG_INSTANTIATE(Real)                                                \
  template bool narrow_forward<Real>(const NarrowRows<Real>&, Interrupted); \
  template bool narrow_backward<Real>(const NarrowRows<Real>&, Real*, Real*, Interrupted);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
