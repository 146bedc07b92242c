// The number of CPUs that the process may use.
#pragma once

#include <string>

namespace quadgate {

// CPUs that the process may use: its affinity mask, further limited by a cgroup's CPU quota. At least 1.
int available_cpus();

// Whole CPUs (at least 1) that the quotas of the cgroups listed in `proc_cgroup` (a /proc/self/cgroup) allow, with the
// hierarchies mounted under `mount`; 0 if there is no limit. Understands versions 1 and 2.
int cgroup_cpus(const std::string& proc_cgroup, const std::string& mount);

}  // namespace quadgate
