// The weight gradient of a dense layer.
#pragma once

#include "kernels/table.h"
#include "memory/carver.h"
#include "memory/packing.h"
#include "rnn/columns.h"

namespace quadgate {

// dw (n_out, n_in) = dz^T x for x (n_rows, n_in) and dz (n_rows, n_out), all row-major; dw overlaps neither.
//
// x lies in panels, whose lines a product reads whole, while it reads dz an element at a time. A piece takes a range of
// dz's columns through some of a block's panels: so it reads dz once and writes parts of rows of dw from end to end. If
// dz has many columns, all threads read the same panels, and work goes by phases; else each piece copies its own, for
// one block after the other. If x has so few columns that its lines would be mostly empty, dz lies in panels, and sums
// are transposed. Sums are chains in the order of rows, whatever the cut.
template <class Real>
class WeightProduct {
 public:
  // Memory of one thread: copied columns of dz; a piece's own panels; sums that do not go straight to dw.
  struct Work {
    Real *columns, *panels, *sums;
  };

  WeightProduct(const Kernels<Real>& kernels, const Real* x, const Real* dz, size_t n_rows, size_t n_in, size_t n_out,
                Real* dw);

  double flops() const { return 2.0 * double(n_rows_) * double(columns_.n) * double(n_elements_); }
  void take_panels(Carver& memory) { panels_ = memory.take_if<Real>(shared_, most_rows() * columns_.row()); }
  Work take_work(Carver& memory) const;

  // All pieces of a phase come before those of the next one. Without rows there are none, and dw is not written.
  size_t phases() const { return shared_ ? blocks_.count : blocks_.count > 0; }
  // Copies a part of a phase's x to the shared panels: before its first piece, after the last of the one before.
  size_t copies(size_t phase) const { return shared_ ? n_blocks(size_t(blocks_.size(phase)), kCopiedRows) : 0; }
  size_t copied_bytes(size_t phase) const {
    return shared_ ? size_t(blocks_.size(phase)) * columns_.n * sizeof(Real) : 0;
  }
  void copy(size_t phase, size_t part) const;
  size_t n() const { return ranges_.count * groups_.count; }  // pieces of a phase
  void run(size_t phase, size_t piece, const Work& work) const;

 private:
  static constexpr size_t kCopiedRows = 64;
  // The columns of elements, and the panels, that a piece multiplies.
  struct Cut {
    size_t column, n_columns, begin, end;
  };
  static bool dz_in_panels(const Kernels<Real>& kernels, size_t n_in, size_t n_out);
  size_t tiles() const { return Parts(n_elements_, kernels_.max_rows).count; }
  size_t tiles_of_range() const;
  size_t panels_of_group() const;
  size_t most_rows() const { return blocks_.count ? size_t(blocks_.size(0)) : 0; }
  size_t work_stride() const;
  void multiply(size_t block, const Cut& cut, const Real* panels, const Work& work) const;

  const Kernels<Real>& kernels_;
  const bool swapped_;                // dz lies in panels, and elements are those of x
  const Real *lines_, *elements_;     // x and dz, or dz and x
  const size_t n_rows_, n_elements_;  // n_elements_: columns
  Real* const dw_;
  const Columns columns_;    // of what lies in panels
  const bool shared_, far_;  // far_: a range of the elements' columns is copied
  const Parts blocks_;       // of rows
  const Parts ranges_;       // of tiles of the elements' columns
  const Parts groups_;       // of panels
  Real* panels_ = nullptr;
};

}  // namespace quadgate
