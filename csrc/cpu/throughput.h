// The work that one core does in a cycle.
#pragma once

#include <cstddef>

namespace quadgate {

// Bytes read from L2 and from beyond it, and bytes of sums in multiply-adds, all per cycle. For the estimates of
// parallel/cost.h, which says how to measure them. `ahead`: time of a product of many steps' rows at once, over that of
// the same rows step by step, where neither waits for memory.
struct CoreThroughput {
  double l2, beyond, multiply_adds, ahead;
  double vectors(size_t bytes) const {  // multiply-adds of vectors of so many bytes
    const double v = multiply_adds / double(bytes);
    return v < 2 ? v : 2;
  }
};
const CoreThroughput& core_throughput();

}  // namespace quadgate
