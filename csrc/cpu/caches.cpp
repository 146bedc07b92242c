#include "cpu/caches.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>

#include "cpu/read_once.h"

#if defined(__linux__)
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace quadgate {
namespace {

#if defined(__linux__)
std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

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

}  // namespace

const CacheSizes& cache_sizes() {
  static std::atomic<const CacheSizes*> known{nullptr};
  return read_once(known, read_cache_sizes);
}

}  // namespace quadgate
