// Rows of a table by their numbers, and the table's gradient. Arrays are row-major; what is written overlaps nothing
// that is read. Both return false if they were interrupted.
#pragma once

#include <cstdint>

#include "train/flat.h"

namespace quadgate {

// out (n, columns) = the rows of weight (rows, columns) that ids (n) name. The ids must be below `rows`.
template <class Real>
bool gather_rows(const Real* weight, size_t columns, const int64_t* ids, size_t n, Real* out, Interrupted interrupted);

// dweight (rows, columns): row k is the sum of the rows of dy (n, columns) whose id is k, in their order; 0 for others.
template <class Real>
bool sum_rows(const Real* dy, size_t columns, const int64_t* ids, size_t n, size_t rows, Real* dweight,
              Interrupted interrupted);

}  // namespace quadgate
