// The data caches that one core sees.
#pragma once

#include <cstddef>

namespace quadgate {

// Bytes by level; 0 where unknown. Read once.
struct CacheSizes {
  size_t l1d, l2, l3;
};
const CacheSizes& cache_sizes();

// The same for estimates, with a usual size instead of an unknown one.
inline size_t l1_bytes() { return cache_sizes().l1d ? cache_sizes().l1d : size_t(32) << 10; }
inline size_t l2_bytes() { return cache_sizes().l2 ? cache_sizes().l2 : size_t(1) << 20; }

}  // namespace quadgate
