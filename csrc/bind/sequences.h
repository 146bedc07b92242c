// Sequences as arguments and as results: outputs, lengths, resets. Lengths and resets are copied before they are
// checked, since another thread could be writing to the arrays.
#pragma once

#include <algorithm>
#include <vector>

#include "bind/arrays.h"

namespace quadgate {

// An array for results of this shape: `given`, or a new one where that is None; null where `given` does not fit or
// shares memory with itself. The caller checks that it is apart from the inputs.
template <class Real>
py::object result_array(py::handle given, int ndim, const Py_intptr_t* shape) {
  if (given.is_none()) return new_array<Real>(ndim, shape);
  const View<Real> v(given);
  if (!v || v.ndim() != ndim || !v.has_rows() || !v.writable()) return {};
  for (int i = 0; i < ndim; ++i)
    if (v.shape(i) != size_t(shape[i])) return {};
  return v.overlaps_itself() ? py::object() : borrowed(given);
}

// (B): false where they are not plain or do not lie between 0 and `steps`.
inline bool copy_lengths(py::handle given, size_t batch, size_t steps, std::vector<int64_t>& lengths) {
  const View<int64_t> n(given);
  if (!n || !n.contiguous() || !n.has_shape(batch)) return false;
  lengths.assign(n.data(), n.data() + batch);
  return std::all_of(lengths.begin(), lengths.end(), [=](int64_t v) { return v >= 0 && uint64_t(v) <= steps; });
}

// x's shape without its last axis, or None; bytes of 0 or 1, time-major. swapped: x has the batch first.
template <class Real>
bool copy_resets(py::handle given, const View<Real>& x, bool swapped, std::vector<unsigned char>& resets) {
  if (given.is_none()) return true;
  const View<bool> v(given);
  if (!v || !v.contiguous() || v.ndim() != x.ndim() - 1) return false;
  for (int i = 0; i < v.ndim(); ++i)
    if (v.shape(i) != x.shape(i)) return false;
  const auto* from = reinterpret_cast<const unsigned char*>(v.data());
  resets.resize(v.size());
  if (resets.empty()) return true;  // perhaps of 2^40 steps
  const size_t rows = v.ndim() == 2 ? v.shape(0) : v.size(), columns = v.ndim() == 2 ? v.shape(1) : 1;
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < columns; ++j) resets[swapped ? j * rows + i : i * columns + j] = from[i * columns + j] != 0;
  return true;
}

}  // namespace quadgate
