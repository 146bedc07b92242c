// Calls whose plans and estimates are tested.
#pragma once

#include "check.h"
#include "parallel/plan.h"

namespace quadgate {

// One row of a layer whose float32 weights take about so many bytes.
inline Work one_row(double bytes, size_t steps, Pass pass) {
  const size_t hidden = 64, columns = size_t(bytes / (4 * hidden * sizeof(float)));
  CHECK(columns > hidden);
  return {steps, 1, columns - hidden, hidden,        1, 1,    hidden, hidden, 1,
          16,    6, sizeof(float),    sizeof(float), 1, pass, true,   false};
}

// The same of so many rows and columns.
inline Work rows_of(size_t steps, size_t rows, size_t input, size_t hidden, Pass pass) {
  Work work = one_row(1e5, steps, pass);
  work.rows = rows;
  work.input = input;
  work.hidden = work.recurrent = work.output = hidden;
  return work;
}

}  // namespace quadgate
