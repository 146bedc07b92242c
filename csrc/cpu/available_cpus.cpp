#include "cpu/available_cpus.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace quadgate {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Whole CPUs in quota / period; 0 where there is no limit ("max", -1, no such file).
int whole_cpus(const std::string& quota, const std::string& period) {
  double q = std::atof(quota.c_str()), p = std::atof(period.c_str());
  // Rounded down: a thread that is throttled holds up all that wait for its work.
  return q > 0 && p > 0 ? std::max(1, int(std::min(q / p, 1e6))) : 0;
}

int smaller_limit(int a, int b) { return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b); }

int affinity_cpus() {
#if defined(__linux__)
  // The kernel refuses a mask smaller than its own, so ask with larger ones.
  for (int cpus = 1024; cpus <= (1 << 20); cpus *= 4) {
    cpu_set_t* set = CPU_ALLOC(size_t(cpus));
    if (set == nullptr) break;
    size_t bytes = CPU_ALLOC_SIZE(size_t(cpus));
    int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
  }
#endif
  return std::max(1, int(std::thread::hardware_concurrency()));
}

}  // namespace

int cgroup_cpus(const std::string& proc_cgroup, const std::string& mount) {
  int limit = 0;
  std::ifstream file(proc_cgroup);
  for (std::string line; std::getline(file, line);) {  // id:controllers:path
    size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    bool unified = controllers.empty();
    if (!unified && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    // A limit may stand on the group itself or on any group above it. Inside a container the path may name groups that
    // are not visible; the way up still ends at the container's own.
    for (bool at_top = false; !at_top;) {
      while (!path.empty() && path.back() == '/') path.pop_back();
      at_top = path.empty();
      std::string dir = mount + (unified ? "" : "/cpu") + path + "/";
      if (unified) {
        std::istringstream words(first_line(dir + "cpu.max"));
        std::string quota, period;
        words >> quota >> period;
        limit = smaller_limit(limit, whole_cpus(quota, period));
      } else {
        limit = smaller_limit(limit,
                              whole_cpus(first_line(dir + "cpu.cfs_quota_us"), first_line(dir + "cpu.cfs_period_us")));
      }
      const size_t slash = path.rfind('/');  // none where something else than Linux made the file
      path.erase(slash == std::string::npos ? 0 : slash);
    }
  }
  return limit;
}

int available_cpus() {
  // Not a guarded static: a child forked while another thread runs the initialiser would never stop waiting for it.
  static std::atomic<int> known{0};
  int cpus = known.load(std::memory_order_relaxed);
  if (cpus == 0) {
    cpus = smaller_limit(affinity_cpus(), cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup"));
    known.store(cpus, std::memory_order_relaxed);
  }
  return cpus;
}

}  // namespace quadgate
