// The order of the rows of a tape.
#pragma once

#include <cstddef>
#include <vector>

#include "rnn/rows.h"

namespace quadgate {

// The order of rows (t, b) in the tape's arrays. All steps of a part of the batch follow each other, so that threads
// with a part each write far from each other: in order of time their rows of a step would share pages, and what the
// prefetcher of one core reads ahead would be taken from the other's cache.
class TapeRows {
 public:
  TapeRows() = default;
  // Part i of n has the batch rows from batch * i / n on, as in RowOrder::part_begin without lengths.
  TapeRows(size_t steps, size_t batch, size_t n);
  size_t at(size_t t, size_t b) const { return parts_.empty() ? t * batch_ + b : in_part(t, b); }
  // Batch rows from b on that lie side by side.
  size_t beside(size_t b) const { return parts_.empty() ? batch_ - b : parts_[b].begin + parts_[b].rows - b; }
  // From a step of row b to the next.
  size_t stride(size_t b) const { return parts_.empty() ? batch_ : parts_[b].rows; }
  // The rows of the part of row b in an array (rows, columns).
  template <class Real>
  Plane<Real> plane(Real* array, size_t columns, size_t b) const {
    return {array + at(0, b) * columns - b * columns, stride(b) * columns, columns, 0};
  }

 private:
  struct Part {
    size_t begin, rows;
  };
  size_t in_part(size_t t, size_t b) const;
  size_t steps_ = 0, batch_ = 0;
  std::vector<Part> parts_;  // by batch row; empty: one part
};

}  // namespace quadgate
