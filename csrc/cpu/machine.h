// What the process was given to run on.
#pragma once

#include <cstddef>
#include <string>

namespace quadgate {

// CPUs that the process may use: its affinity mask, further limited by a cgroup's CPU quota. At least 1.
int available_cpus();

// Bytes of data cache that one core sees, by level; 0 where unknown. Read once.
struct CacheSizes {
  size_t l1d, l2, l3;
};
const CacheSizes& cache_sizes();

// What one core does in a cycle, for the estimates that choose between ways to do the same: bytes read from L2 and from
// beyond, and bytes of sums in multiply-adds. Measured for Intel's Ice Lake servers and AMD's Zen 4 (bench/NOTES.md).
struct Pace {
  double l2, beyond, multiply_adds;
  double vectors(size_t bytes) const {  // multiply-adds of vectors of so many bytes
    const double v = multiply_adds / double(bytes);
    return v < 2 ? v : 2;
  }
};
const Pace& pace();

// Whole CPUs (at least 1) that the quotas of the cgroups listed in `proc_cgroup` (a /proc/self/cgroup) allow, with the
// hierarchies mounted under `mount`; 0 if there is no limit. Understands versions 1 and 2.
int cgroup_cpus(const std::string& proc_cgroup, const std::string& mount);

}  // namespace quadgate
