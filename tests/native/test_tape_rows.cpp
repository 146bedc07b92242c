// The order of a tape's rows: each has a place of its own, and those of a part lie together.
#include <vector>

#include "check.h"
#include "rnn/tape_rows.h"

using namespace quadgate;

namespace {

void test_places(size_t steps, size_t batch, size_t n) {
  constexpr size_t kColumns = 3;
  const TapeRows rows(steps, batch, n);
  std::vector<int> taken(steps * batch), array(steps * batch * kColumns);
  for (size_t i = 0; i < n; ++i) {
    const size_t begin = batch * i / n, end = batch * (i + 1) / n;
    for (size_t b = begin; b < end; ++b) {
      const Plane<int> plane = rows.plane(array.data(), kColumns, begin);
      CHECK(rows.beside(b) >= end - b);
      for (size_t t = 0; t < steps; ++t) {
        const size_t at = rows.at(t, b);
        CHECK(at >= steps * begin && at < steps * end);
        CHECK(!taken[at]++);
        CHECK(plane.at(t, b) == array.data() + at * kColumns);
        if (t > 0) CHECK(at == rows.at(t - 1, b) + rows.stride(b));
        for (size_t k = 0; k < rows.beside(b); ++k) CHECK(rows.at(t, b + k) == at + k);
      }
    }
  }
}

}  // namespace

int main() {
  for (size_t steps : {1, 2, 7})
    for (size_t batch : {1, 2, 5, 16, 33})
      for (size_t n : {1, 2, 3, 5})
        if (n <= batch && (steps > 1 || n == 1)) test_places(steps, batch, n);
  // In order of time where all rows are one part, and where there is one step only.
  const TapeRows one(7, 5, 1), step(1, 5, 2);
  CHECK(one.at(3, 2) == 17 && one.stride(2) == 5 && one.beside(2) == 3);
  CHECK(step.at(0, 4) == 4 && step.beside(0) == 5);
  return check::result();
}
