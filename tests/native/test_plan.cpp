// Estimates of the cost model: what is known of their order, whatever the machine's constants.
#include <cmath>

#include "check.h"
#include "cpu/caches.h"
#include "parallel/plan.h"

using namespace quadgate;

namespace {

// One row of a layer whose float32 weights take about so many bytes.
Work one_row(double bytes, size_t steps, Pass pass) {
  const size_t hidden = 64, columns = size_t(bytes / (4 * hidden * sizeof(float)));
  return {steps, 1, columns - hidden, hidden,        1, 1,    hidden, hidden, 1,
          16,    6, sizeof(float),    sizeof(float), 1, pass, true};
}

double cycles(double bytes, size_t steps, Pass pass) { return estimate(one_row(bytes, steps, pass), Plan()); }

// Training's forward pass finds its weights in L2 only if backward's and the gradients have room beside them, and has
// read them after one step.
void test_first_reading_in_training() {
  const double l2 = double(l2_bytes());
  double more[2];
  for (size_t i = 0; i < 2; ++i) {
    const size_t steps = i == 0 ? 1 : 100;
    CHECK(cycles(l2 / 4, steps, Pass::training_forward) == cycles(l2 / 4, steps, Pass::inference));
    more[i] = cycles(l2 / 2, steps, Pass::training_forward) - cycles(l2 / 2, steps, Pass::inference);
  }
  CHECK(more[0] > 0);
  CHECK(std::abs(more[1] - more[0]) < 1e-6 * more[0]);
}

}  // namespace

int main() {
  test_first_reading_in_training();
  return check::result();
}
