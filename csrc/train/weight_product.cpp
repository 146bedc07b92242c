#include "train/weight_product.h"

#include <algorithm>
#include <cstring>

#include "cpu/caches.h"
#include "kernels/layouts.h"

namespace quadgate {
namespace {

// Up to kFewTiles tiles of elements each piece copies its own panels, and takes kCopyTiles of them: with only 4 tiles,
// copying took a third of the time.
constexpr size_t kFewTiles = 32, kCopyTiles = 16;
// Rows of a block. Of shared panels: with fewer, dw would be read and written more often. Of a piece's own, so that
// they stay in L2, and of dz's, for few tiles, in L1.
constexpr size_t kSharedRows = 1024, kOwnRows = 512, kSwappedRows = 128;
// Pieces at least, for threads of unequal speed; tiles of a range of shared panels.
constexpr size_t kPieces = 16, kLeastTiles = 4, kMostTiles = 128;
// Of a piece, at most: some 10 ms of one core, between which a call can be stopped.
constexpr double kPieceFlops = 2e9;
// Bytes of a row of dz above which columns are copied: a tile reads a few elements of each row, and rows that far apart
// share few sets of a cache and lie on many pages.
constexpr size_t kCopyAbove = 2048;
// The share of the time with x in panels that dz in panels may take: its sums have to be transposed.
constexpr double kSwapBelow = 0.65;

}  // namespace

template <class Real>
WeightProduct<Real>::WeightProduct(const Kernels<Real>& kernels, const Real* x, const Real* dz, size_t n_rows,
                                   size_t n_in, size_t n_out, Real* dw)
    : kernels_(kernels),
      swapped_(dz_in_panels(kernels, n_in, n_out)),
      lines_(swapped_ ? dz : x),
      elements_(swapped_ ? x : dz),
      n_rows_(n_rows),
      n_elements_(swapped_ ? n_in : n_out),
      dw_(dw),
      columns_{swapped_ ? n_out : n_in, kLineVectors * kernels.width, kernels.width, size_t(least_vectors<Real>())},
      shared_(tiles() > kFewTiles),
      far_(n_elements_ * sizeof(Real) > kCopyAbove),
      blocks_(n_rows, swapped_  ? kSwappedRows
                      : shared_ ? kSharedRows
                                : kOwnRows),
      ranges_(tiles(), tiles_of_range()),
      groups_(columns_.panels(), panels_of_group()) {}

// By the cycles for a row of two multiply-adds a cycle, with a latency of 4.
template <class Real>
bool WeightProduct<Real>::dz_in_panels(const Kernels<Real>& kernels, size_t n_in, size_t n_out) {
  const Columns x = {n_in, kLineVectors * kernels.width, kernels.width, size_t(least_vectors<Real>())};
  const double tiles = double(Parts(n_in, kernels.max_rows).count);
  const double by_x = double(n_out) * double(x.vectors()) / 2;
  const double by_dz = double(n_blocks(n_out, x.line)) * std::max(kLineVectors / 2.0 * double(n_in), 4 * tiles);
  return tiles <= kCopyTiles && by_dz < kSwapBelow * by_x;
}

template <class Real>
size_t WeightProduct<Real>::tiles_of_range() const {
  if (!shared_) return kCopyTiles;
  const size_t bytes = std::max<size_t>(1, most_rows()) * kernels_.max_rows * sizeof(Real);
  const size_t near = std::min(kMostTiles, l2_bytes() / 4 / bytes);
  return std::max(kLeastTiles, std::min(near, n_blocks(tiles(), kPieces)));
}

// Of shared panels a piece takes all, unless there are few ranges, or it would take too long.
template <class Real>
size_t WeightProduct<Real>::panels_of_group() const {
  if (!shared_) return 1;
  const size_t wanted = n_blocks(kPieces, std::max<size_t>(1, ranges_.count));
  const double columns = ranges_.count ? double(ranges_.size(0)) * double(kernels_.max_rows) : 1;
  const double most = kPieceFlops / (2.0 * double(most_rows()) * columns * double(columns_.line) + 1);
  return std::max<size_t>(1, std::min(columns_.panels() / wanted, size_t(most)));
}

// Elements between rows of copied columns: an odd number of lines.
template <class Real>
size_t WeightProduct<Real>::work_stride() const {
  const size_t per_line = 64 / sizeof(Real), widest = size_t(ranges_.size(0)) * kernels_.max_rows;
  return (n_blocks(widest, per_line) | 1) * per_line;
}

template <class Real>
typename WeightProduct<Real>::Work WeightProduct<Real>::take_work(Carver& memory) const {
  const size_t widest = size_t(ranges_.size(0)) * kernels_.max_rows;
  Work work;
  work.columns = memory.take_if<Real>(far_, most_rows() * work_stride());
  work.panels = memory.take_if<Real>(!shared_, most_rows() * columns_.line);
  work.sums = memory.take_if<Real>(swapped_ || columns_.n % columns_.line, widest * columns_.line);
  return work;
}

template <class Real>
void WeightProduct<Real>::copy(size_t phase, size_t part) const {
  const size_t at = part * kCopiedRows, n = std::min(kCopiedRows, size_t(blocks_.size(phase)) - at);
  const Real* from = lines_ + (blocks_.begin(phase) + at) * columns_.n;
  copy_to_panels<Real>(kernels_, from, columns_.n, n, {columns_, panels_, most_rows(), 0}, at);
}

template <class Real>
void WeightProduct<Real>::run(size_t phase, size_t piece, const Work& work) const {
  const size_t range = piece % ranges_.count, group = piece / ranges_.count;
  const Parts all(n_elements_, kernels_.max_rows);
  Cut cut;
  cut.column = all.begin(ranges_.begin(range));
  cut.n_columns = all.begin(ranges_.begin(range) + size_t(ranges_.size(range))) - cut.column;
  cut.begin = groups_.begin(group);
  cut.end = cut.begin + size_t(groups_.size(group));
  if (shared_) return multiply(phase, cut, panels_ + cut.begin * columns_.line * most_rows(), work);
  Columns own = columns_;
  const size_t first = cut.begin * own.line;
  own.n = std::min(own.n - first, own.line);
  for (size_t block = 0; block < blocks_.count; ++block) {
    const Real* from = lines_ + blocks_.begin(block) * columns_.n + first;
    copy_to_panels<Real>(kernels_, from, columns_.n, size_t(blocks_.size(block)), {own, work.panels, most_rows(), 0},
                         0);
    multiply(block, cut, work.panels, work);
  }
  if (swapped_)
    kernels_.transpose(work.sums, columns_.line_of(cut.begin), dw_ + first * n_elements_ + cut.column, n_elements_,
                       cut.n_columns, own.n, false);
}

// panels: those of the cut.
template <class Real>
void WeightProduct<Real>::multiply(size_t block, const Cut& cut, const Real* panels, const Work& work) const {
  const size_t n = cut.n_columns, dw_line = columns_.n, line = columns_.line;
  const Real* rows = elements_ + blocks_.begin(block) * n_elements_ + cut.column;
  WeightGradient<Real> product = {};
  product.xh = rows;
  product.xh_stride = n_elements_;
  product.n_k = n;
  product.n_rows = size_t(blocks_.size(block));
  product.tile_end = Parts(n, kernels_.max_rows).count;
  product.start = block == 0 ? GradientStart::from_zero : GradientStart::from_dw;
  if (far_) {
    product.xh = work.columns;
    product.xh_stride = work_stride();
    for (size_t r = 0; r < product.n_rows; ++r)
      std::memcpy(work.columns + r * work_stride(), rows + r * n_elements_, n * sizeof(Real));
  }
  product.panel_stride = most_rows() * line;
  const size_t whole = swapped_ ? cut.begin : std::min(cut.end, columns_.whole());
  Real* dw = dw_ + cut.column * dw_line;
  if (cut.begin < whole) {
    product.dg_panels = panels;
    product.block_end = whole - cut.begin;
    product.dw = dw + cut.begin * line;
    product.dw_stride = line;
    product.dw_line = dw_line;
    kernels_.weight_gradient(product);
  }
  if (whole == cut.end) return;
  // The last panel, or dz's only one, goes through memory, where its lines are whole.
  const size_t last_line = columns_.line_of(whole), rest = dw_line - whole * line;
  dw += whole * line;
  for (size_t j = 0; !swapped_ && block > 0 && j < n; ++j)
    std::copy_n(dw + j * dw_line, rest, work.sums + j * last_line);
  product.dg_panels = panels + (whole - cut.begin) * product.panel_stride;
  product.block_end = 1;
  product.n_vectors = int(last_line / columns_.width);
  product.dw = work.sums;
  product.dw_line = last_line;
  kernels_.weight_gradient(product);
  for (size_t j = 0; !swapped_ && j < n; ++j) std::copy_n(work.sums + j * last_line, rest, dw + j * dw_line);
}

template class WeightProduct<float>;
template class WeightProduct<double>;

}  // namespace quadgate
