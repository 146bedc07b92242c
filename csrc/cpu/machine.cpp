#include "cpu/machine.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "cpu/features.h"

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
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
  // Rounded down: a thread that is throttled holds up all that wait for it at a barrier.
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

#if defined(__linux__)
CacheSizes read_cache_sizes() {
  CacheSizes sizes = {};
  size_t* by_level[] = {&sizes.l1d, &sizes.l2, &sizes.l3};
  for (int i = 0; i < 8; ++i) {
    std::string dir = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/";
    int level = std::atoi(first_line(dir + "level").c_str());
    if (level < 1 || level > 3 || first_line(dir + "type") == "Instruction") continue;
    std::string size = first_line(dir + "size");  // such as 48K
    size_t unit = size.find('K') != std::string::npos ? 1024 : size.find('M') != std::string::npos ? 1024 * 1024 : 1;
    *by_level[level - 1] = size_t(std::atoll(size.c_str())) * unit;
  }
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  const int names[] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
  for (int i = 0; i < 3; ++i)
    if (*by_level[i] == 0) *by_level[i] = size_t(std::max(0L, sysconf(names[i])));
#endif
  return sizes;
}
#elif defined(__APPLE__)
size_t sysctl_size(const char* name) {
  int64_t value = 0;
  size_t bytes = sizeof value;
  return sysctlbyname(name, &value, &bytes, nullptr, 0) == 0 ? size_t(value) : 0;
}
CacheSizes read_cache_sizes() {
  return {sysctl_size("hw.l1dcachesize"), sysctl_size("hw.l2cachesize"), sysctl_size("hw.l3cachesize")};
}
#else
CacheSizes read_cache_sizes() { return {}; }
#endif

Pace read_pace() {
#if defined(QG_X86)
  const bool amd = cpuid(0).ebx == 0x68747541;  // "Auth", of AuthenticAMD
  const uint32_t version = cpuid(1).eax, family = ((version >> 8) & 15) + ((version >> 20) & 255);
  // Up to Zen 4 (0x19) a vector of 64 bytes is worked on in two halves.
  if (amd) return family <= 0x19 ? Pace{32, 24, 64} : Pace{40, 24, 128};
#endif
  return {45, 8, 128};
}

// Returns the result of the first read(). Not a guarded static: a child forked while another thread runs the
// initialiser would wait for it for ever.
template <class T>
const T& read_once(std::atomic<const T*>& known, T (*read)()) {
  const T* value = known.load(std::memory_order_acquire);
  if (value != nullptr) return *value;
  const T* own = new T(read());  // kept until the process ends
  if (known.compare_exchange_strong(value, own, std::memory_order_acq_rel)) return *own;
  delete own;
  return *value;
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
      path.erase(std::min(path.size(), path.rfind('/')));
    }
  }
  return limit;
}

int available_cpus() {
  static std::atomic<int> known{0};
  int cpus = known.load(std::memory_order_relaxed);
  if (cpus == 0) {
    cpus = smaller_limit(affinity_cpus(), cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup"));
    known.store(cpus, std::memory_order_relaxed);
  }
  return cpus;
}

const CacheSizes& cache_sizes() {
  static std::atomic<const CacheSizes*> known{nullptr};
  return read_once(known, read_cache_sizes);
}

const Pace& pace() {
  static std::atomic<const Pace*> known{nullptr};
  return read_once(known, read_pace);
}

}  // namespace quadgate
