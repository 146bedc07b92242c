// The rows of a batch: their places in memory and the order in which they run.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

namespace quadgate {

// A sequence of rows in memory: step t of batch row b starts at base + (t - t0) * step + b * row, its elements
// adjacent.
template <class Real>
struct Plane {
  Real* base = nullptr;
  size_t step = 0, row = 0, t0 = 0;
  Real* at(size_t t, size_t b) const { return base + (t - t0) * step + b * row; }
  explicit operator bool() const { return base != nullptr; }
};

// The same rows, only to be read.
template <class Real>
Plane<const Real> read_only(const Plane<Real>& p) {
  return {p.base, p.step, p.row, p.t0};
}

// Batch rows in the order in which they run: longest first, so that the rows active at a step are always a prefix.
class RowOrder {
 public:
  // lengths: (batch), each at most `steps`, or null: all rows have `steps` steps. Not kept.
  RowOrder(size_t steps, size_t batch, const int64_t* lengths) : steps_(steps), batch_(batch), total_(steps * batch) {
    if (!lengths) return;
    index_.resize(batch);
    std::iota(index_.begin(), index_.end(), size_t(0));
    std::stable_sort(index_.begin(), index_.end(), [&](size_t a, size_t b) { return lengths[a] > lengths[b]; });
    length_.resize(batch);
    active_.assign(steps, 0);
    total_ = 0;
    for (size_t r = 0; r < batch; ++r) {
      length_[r] = size_t(lengths[index_[r]]);
      total_ += length_[r];
      if (length_[r]) ++active_[length_[r] - 1];
    }
    for (size_t s = steps; s-- > 1;) active_[s - 1] += active_[s];
    steps_ = batch ? length_[0] : 0;
  }
  size_t steps() const { return steps_; }  // of the longest row
  size_t batch() const { return batch_; }
  size_t total() const { return total_; }  // sum of the rows' steps
  bool ragged() const { return !length_.empty(); }
  size_t index(size_t r) const { return index_.empty() ? r : index_[r]; }
  size_t length(size_t r) const { return length_.empty() ? steps_ : length_[r]; }
  // The number of rows that have a step s.
  size_t active_rows(size_t s) const {
    if (s >= steps_) return 0;
    return active_.empty() ? batch_ : active_[s];
  }
  // The time of step s of row r: a reverse pass starts at the row's own end.
  size_t time(size_t r, size_t s, bool reverse) const { return reverse ? length(r) - 1 - s : s; }
  // The time at which a reset of row r stands that separates its steps s - 1 and s: the later of theirs. A reverse pass
  // has none at s = 0.
  size_t reset_time(size_t r, size_t s, bool reverse) const { return time(r, s, reverse) + reverse; }

  // First row of part i of n: parts of about equal work, whose rows lie next to each other in the order.
  size_t part_begin(size_t i, size_t n) const {
    if (!ragged()) return batch_ * i / n;
    size_t r = 0, sum = 0;
    while (r < batch_ && sum * n < total_ * i) sum += length_[r++];
    return i == n ? batch_ : r;
  }

 private:
  size_t steps_, batch_, total_;
  std::vector<size_t> index_, length_, active_;
};

// n elements of an array that may be absent, which stands for zeros.
template <class Real>
void copy_or_zero(const Real* from, size_t n, Real* to) {
  if (from)
    std::copy(from, from + n, to);
  else if (n)  // `to` may be null without elements, as c of Elman's cell
    std::memset(static_cast<void*>(to), 0, n * sizeof(Real));  // std::fill would go element by element
}

// Zeros for the steps that lie past each row's length; `width` elements a step.
template <class Real>
void zero_padding(const RowOrder& order, size_t steps, const Plane<Real>& plane, size_t width) {
  if (!order.ragged()) return;
  for (size_t r = 0; r < order.batch(); ++r)
    for (size_t t = order.length(r); t < steps; ++t) copy_or_zero<Real>(nullptr, width, plane.at(t, order.index(r)));
}

}  // namespace quadgate
