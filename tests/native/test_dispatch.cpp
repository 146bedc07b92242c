// The choice of kernels, the machine's limits, and aligned memory.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/available_cpus.h"
#include "cpu/caches.h"
#include "cpu/dispatch.h"
#include "cpu/throughput.h"
#include "memory/buffer.h"
#include "memory/carver.h"

using namespace quadgate;

namespace {

// Chosen before main: the order of static initialisers must not matter.
const KernelTable* const chosen_early = &kernels();

void test_tables() {
  std::vector<const char*> names = supported_isas();
  CHECK(!names.empty());
  for (const char* name : names) {
    const KernelTable* table = kernel_table(name);
    CHECK(table != nullptr);
    if (table == nullptr) continue;
    CHECK(std::strcmp(table->name, name) == 0);
    CHECK(&choose_kernels(name) == table);
    CHECK(table->f32.width == 2 * table->f64.width);
    CHECK(table->f32.forward != nullptr && table->f64.forward != nullptr);
    CHECK(table->f32.activate != nullptr && table->f64.activate != nullptr);
  }
#if defined(__aarch64__)
  CHECK(names.size() == 1 && std::strcmp(names[0], "neon") == 0);
#else
  CHECK(std::strcmp(names.back(), "baseline") == 0);
  // The compiler's runtime asks the machine in its own way; both must say the same.
  CHECK((kernel_table("avx2") != nullptr) == (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")));
  CHECK((kernel_table("avx512") != nullptr) ==
        (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")));
#endif
  for (const char* name : {"", "sse", "AVX2", "avx5", "avx5122"}) CHECK(kernel_table(name) == nullptr);
}

void test_choice() {
  const KernelTable* best = kernel_table(supported_isas().front());
  CHECK(&choose_kernels(nullptr) == best);
  CHECK(&choose_kernels("") == best);
  const char* forced = std::getenv("QUADGATE_ISA");
  CHECK(&kernels() == &choose_kernels(forced));
  CHECK(chosen_early == &kernels());
  CHECK(setenv("QUADGATE_ISA", "abacus", 1) == 0);
  CHECK(&kernels() == chosen_early);  // chosen once

  std::string text;
  try {
    choose_kernels("abacus");
  } catch (const std::runtime_error& e) {
    text = e.what();
  }
  CHECK(text.find("QUADGATE_ISA") != std::string::npos && text.find("abacus") != std::string::npos);
  for (const char* name : supported_isas()) CHECK(text.find(name) != std::string::npos);
#if defined(__aarch64__)
  CHECK_THROWS(choose_kernels("avx2"), std::runtime_error);
#else
  CHECK_THROWS(choose_kernels("neon"), std::runtime_error);
#endif
}

void write_file(const std::string& path, const std::string& text) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1))
    mkdir(path.substr(0, slash).c_str(), 0700);
  std::ofstream(path) << text << "\n";
  CHECK(std::ifstream(path).good());
}

void test_cgroups() {
  char pattern[] = "/tmp/quadgate-XXXXXX";
  CHECK(mkdtemp(pattern) != nullptr);
  std::string root = pattern, groups = root + "/self";
  CHECK(cgroup_cpus(root + "/none", root) == 0);

  write_file(groups, "0::/a/b");
  CHECK(cgroup_cpus(groups, root) == 0);
  write_file(root + "/a/b/cpu.max", "max 100000");
  CHECK(cgroup_cpus(groups, root) == 0);
  write_file(root + "/a/cpu.max", "350000 100000");  // a group above limits those below
  CHECK(cgroup_cpus(groups, root) == 3);
  write_file(root + "/a/b/cpu.max", "50000 100000");
  CHECK(cgroup_cpus(groups, root) == 1);
  write_file(root + "/a/b/cpu.max", "800000 100000");
  CHECK(cgroup_cpus(groups, root) == 3);

  write_file(groups, "0::a/b\n0::a");  // without a slash, as some sandboxes write it
  CHECK(cgroup_cpus(groups, root) == 0);

  write_file(groups, "5:cpuset:/c\n4:cpu,cpuacct:/c/not-visible-here\n0::/");
  CHECK(cgroup_cpus(groups, root) == 0);
  write_file(root + "/cpu/cpu.cfs_period_us", "100000");
  write_file(root + "/cpu/cpu.cfs_quota_us", "-1");
  CHECK(cgroup_cpus(groups, root) == 0);
  write_file(root + "/cpu/cpu.cfs_quota_us", "250000");
  CHECK(cgroup_cpus(groups, root) == 2);

  CHECK(available_cpus() >= 1);
  CHECK(available_cpus() <= int(std::max(1u, std::thread::hardware_concurrency())));
  CHECK(std::system(("rm -r " + root).c_str()) == 0);
}

void test_sizes() {
  size_t most = std::numeric_limits<size_t>::max();
  CHECK(checked_mul(3, 5, 7) == 105);
  CHECK(checked_mul(most, 1) == most && checked_mul(most, 0) == 0 && checked_mul(0, most, most) == 0);
  CHECK(checked_add(most, 0) == most);
  CHECK_THROWS(checked_mul(most, 2), std::bad_alloc);
  CHECK_THROWS(checked_mul(size_t(1) << 32, size_t(1) << 31, 4), std::bad_alloc);
  CHECK_THROWS(checked_add(most, 1), std::bad_alloc);
}

void test_buffer() {
  Buffer<float> b;
  CHECK(b.data() == nullptr && b.size() == 0);
  b.zero();
  for (size_t n : {size_t(1), size_t(17), size_t(100000), (size_t(4) << 20) / sizeof(float), size_t(3) << 20}) {
    b.resize_zero(n);
    CHECK(b.size() == n);
    size_t align = n * sizeof(float) >= Buffer<float>::kHugeFrom ? size_t(2) << 20 : 64;
    CHECK(reinterpret_cast<uintptr_t>(b.data()) % align == 0);
    bool zero = true;
    for (float v : b) zero = zero && v == 0;
    CHECK(zero);
    b[n - 1] = 1;
  }
  float* before = b.data();
  size_t room = b.capacity();
  b.resize_discard(5);
  CHECK(b.data() == before && b.capacity() == room && b.size() == 5);
  b.resize_zero(room);
  CHECK(b.data() == before && b[room - 1] == 0);

  Buffer<float> taken(std::move(b));
  CHECK(taken.data() == before && b.data() == nullptr && b.size() == 0);
  b = std::move(taken);
  CHECK(b.data() == before && taken.data() == nullptr);

  CHECK_THROWS(b.resize_discard(std::numeric_limits<size_t>::max() / 2), std::bad_alloc);
  CHECK(b.data() == before && b.size() == room);  // the size itself did not fit: nothing was given up
  CHECK_THROWS(Buffer<double>(std::numeric_limits<size_t>::max() / 16), std::bad_alloc);
}

// Two runs of the same pieces: the first finds the size, the second gets aligned pieces that do not overlap.
void test_carver() {
  struct Part {
    Carver& from;
    size_t n;
    char* bytes = from.take<char>(n);
    double* none = from.take_if<double>(false, n);
  };
  auto carve = [](Carver& carver) { return carver.make<Part>(3, [&](size_t i) { return Part{carver, 60 + 10 * i}; }); };
  Carver count;
  CHECK(carve(count) == nullptr && count.used() > 60 + 70 + 80);
  Buffer<char> memory(count.used() + 64);
  Carver carver(memory.data(), count.used());
  const Part* parts = carve(carver);
  CHECK(parts != nullptr && carver.used() == count.used());
  const char* end = reinterpret_cast<const char*>(parts + 3);
  for (size_t i = 0; parts != nullptr && i < 3; ++i) {
    CHECK(parts[i].n == 60 + 10 * i && parts[i].none == nullptr);
    CHECK(reinterpret_cast<uintptr_t>(parts[i].bytes) % 64 == 0 && parts[i].bytes >= end);
    end = parts[i].bytes + parts[i].n;
  }
  CHECK(end <= memory.data() + count.used());
  CHECK(carver.take<char>(1) == nullptr &&
        carver.used() == count.used() + 64 + kPoisonBetween);  // past the end it only counts
  CHECK_THROWS(carver.take<double>(std::numeric_limits<size_t>::max() / 16), std::bad_alloc);
}

// Tiles prefetch a whole panel together, as far as lines of 64 bytes allow: one or two tiles only beside a slower L3
// than Zen 5's, or where the panels do not stay in it.
void test_ahead_bytes() {
  const size_t line = 256, most = 64, far = size_t(1) << 40;
  CHECK(ahead_bytes(line, 0, far) == 0);
  for (size_t tiles = 1; tiles < 300; ++tiles) {
    const size_t whole = ahead_bytes(line, tiles, far);
    CHECK(whole >= 1 && whole <= most && tiles * whole >= std::min(line, tiles * most));
    CHECK(whole == 1 || tiles * (whole - 1) < line);
    const size_t l3 = cache_sizes().l3;
    for (size_t bytes : {size_t(0), size_t(1), l3 / 2 - (l3 > 1), l3 / 2, l3}) {
      const bool fast = core_throughput().beyond >= 30 && bytes < l3 / 2;
      CHECK(ahead_bytes(line, tiles, bytes) == (fast && tiles <= 2 ? 0 : whole));
    }
  }
}

// AddressSanitizer sees what is written behind a piece, or into the part of a buffer that is not in use.
void test_poison() {
#if defined(__SANITIZE_ADDRESS__)
  auto poisoned = [](const char* p) { return __asan_address_is_poisoned(p) != 0; };
  Buffer<char> memory(1000);
  Carver carver(memory.data(), memory.size());
  const char *a = carver.take<char>(70), *b = carver.take<char>(128);
  CHECK(!poisoned(a) && !poisoned(a + 69) && poisoned(a + 72) && poisoned(b - 1));
  CHECK(!poisoned(b) && !poisoned(b + 127) && poisoned(b + 128));
  zero_pieces(memory.data(), size_t(b + 128 - memory.data()));
  CHECK(a[69] == 0 && b[127] == 0 && poisoned(a + 72));
  memory.resize_discard(80);
  CHECK(!poisoned(a + 79) && poisoned(a + 80) && poisoned(a + 999));
  memory.resize_discard(1000);
  CHECK(!poisoned(a + 80) && !poisoned(a + 999));
#endif
}

}  // namespace

int main() {
  test_tables();
  test_choice();
  test_ahead_bytes();
  test_cgroups();
  test_sizes();
  test_buffer();
  test_carver();
  test_poison();
  return check::result();
}
