#include "cpu/dispatch.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/caches.h"
#include "cpu/features.h"
#include "cpu/throughput.h"

#if defined(QG_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(QG_DOTPROD)
#include <sys/auxv.h>
#endif

namespace quadgate {

// One per file in kernels/isa. They are constant-initialised, so reading one runs no code compiled for its machine.
#if defined(QG_X86)
namespace baseline {
extern const KernelTable table;
}
#if defined(QG_AVX2)
namespace avx2 {
extern const KernelTable table;
}
#endif
#if defined(QG_AVX512)
namespace avx512 {
extern const KernelTable table;
}
namespace avx512_vnni {
extern const CompactFunctions int8;
}
namespace avx512_split {
extern const CompactFunctions float16;
}
#endif
#if defined(QG_AMX)
namespace avx512_amx {
extern const CompactFunctions int8;
}
#endif
#if defined(QG_AVX_VNNI)
namespace avx2_vnni {
extern const CompactFunctions int8;
}
#endif
#else
namespace neon {
extern const KernelTable table;
}
#if defined(QG_DOTPROD)
namespace neon_dotprod {
extern const CompactFunctions int8;
}
#endif
#endif

namespace {

// Functions that a machine may have in the place of a table's.
struct Better {
  const KernelTable* table;
  WeightType type;
  bool (*runs)();
  const CompactFunctions* functions;
  bool (*pays)() = [] { return true; };
};
#if defined(QG_AVX2)

// The register state that the operating system saves on a context switch.
uint64_t saved_state() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t(high) << 32) | low;
#endif
}

constexpr bool has(uint64_t value, uint64_t mask) { return (value & mask) == mask; }
constexpr uint64_t bit(int n) { return uint64_t(1) << n; }

// A CPUID bit alone is not enough: the operating system must save the registers, too.
bool runs_avx2() {
  uint32_t features = cpuid(1).ecx;
  if (!has(features, bit(12) | bit(27) | bit(28) | bit(29))) return false;  // FMA, OSXSAVE, AVX, F16C
  if (!has(saved_state(), bit(1) | bit(2))) return false;                   // xmm, ymm
  return has(cpuid(7).ebx, bit(5));                                         // AVX2
}

#if defined(QG_AVX512)
bool runs_avx512() {
  if (!runs_avx2()) return false;
  if (!has(saved_state(), bit(5) | bit(6) | bit(7))) return false;  // opmask, zmm0-15, zmm16-31
  return has(cpuid(7).ebx, bit(16) | bit(17) | bit(30) | bit(31));  // F, DQ, BW, VL
}
#endif

// Bits of instructions on the registers that the table in question needs anyway.
#if defined(QG_AVX512)
bool has_avx512_vnni() { return has(cpuid(7).ecx, bit(11)); }
#endif
#if defined(QG_AVX_VNNI)
bool has_avx_vnni() { return has(cpuid(7, 1).eax, bit(4)); }
#endif

#if defined(QG_AMX)
// Tile registers, of which each thread has memory only once its process asked Linux for them. Asking is harmless but
// for alternate signal stacks: smaller ones than their state are refused from then on. So only a network of int8 asks.
bool may_use_amx() {
  constexpr int kAskPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static std::atomic<int> answer{0};                      // 1: yes, 2: no; threads that ask together get the same
  if (answer.load(std::memory_order_relaxed) == 0) {
    const bool yes = syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
    answer.store(yes ? 1 : 2, std::memory_order_relaxed);
  }
  return answer.load(std::memory_order_relaxed) == 1;
}

bool has_amx() {
  if (!has_avx512_vnni() || !has(cpuid(7).edx, bit(24) | bit(25))) return false;  // AMX-TILE, AMX-INT8
  if (!has(saved_state(), bit(17) | bit(18))) return false;                       // configuration, tiles
  const Registers tiles = cpuid(0x1d, 1);
  const bool usual = tiles.ebx >> 16 >= 8 && (tiles.ebx & 0xffff) == 64 && (tiles.ecx & 0xffff) == 16;
  return usual && may_use_amx();
}
#endif
#endif
#if defined(QG_DOTPROD)
bool has_dotprod() { return getauxval(AT_HWCAP) >> 20 & 1; }  // HWCAP_ASIMDDP
#endif

bool runs_anywhere() { return true; }
#if defined(QG_AVX512)
// True where vectors of 64 bytes are worked on in two halves.
bool splits_vectors() { return core_throughput().multiply_adds <= 64; }
#endif

struct Candidate {
  const KernelTable* table;
  bool (*runs)();
};
constexpr Candidate kCandidates[] = {
#if defined(QG_AVX512)
    {&avx512::table, runs_avx512},
#endif
#if defined(QG_AVX2)
    {&avx2::table, runs_avx2},
#endif
#if defined(QG_X86)
    {&baseline::table, runs_anywhere}};
#else
    {&neon::table, runs_anywhere}};
#endif

#if defined(QG_AVX_VNNI) || defined(QG_AVX512) || defined(QG_DOTPROD)
#define QG_BETTER
constexpr Better kBetter[] = {
#if defined(QG_AVX_VNNI)
    {&avx2::table, WeightType::int8, has_avx_vnni, &avx2_vnni::int8},
#endif
#if defined(QG_AMX)
    {&avx512::table, WeightType::int8, has_amx, &avx512_amx::int8},
#endif
#if defined(QG_AVX512)
    {&avx512::table, WeightType::int8, has_avx512_vnni, &avx512_vnni::int8},
    {&avx512::table, WeightType::float16, runs_anywhere, &avx512_split::float16, splits_vectors},
#endif
#if defined(QG_DOTPROD)
    {&neon::table, WeightType::int8, has_dotprod, &neon_dotprod::int8},
#endif
};
#endif

std::atomic<const KernelTable*> chosen{nullptr};

// A string from outside as ASCII, since Python's exceptions are text.
std::string printable(const char* text) {
  std::string result;
  for (; *text; ++text) {
    const auto c = static_cast<unsigned char>(*text);
    if (c >= 32 && c < 127) {
      result += *text;
    } else {
      const char* digits = "0123456789abcdef";
      result += {'\\', 'x', digits[c >> 4], digits[c & 15]};
    }
  }
  return result;
}

// Bytes of panels up to which reads are faster without prefetches. Zen 5 reads so what L3 keeps: of one or two tiles of
// 4 rows prefetches took up to 18 % of the time, of 5 rows 5 %, of more 2 % at most. Weights that L3 does not keep, and
// those of many rows, gain by them.
size_t fast_bytes() { return core_throughput().beyond >= 30 ? cache_sizes().l3 / 2 : 0; }

}  // namespace

size_t ahead_bytes(size_t line_bytes, size_t n_tiles, size_t of_bytes) {
  constexpr size_t kLine = 64, kFewTiles = 2;
  if (n_tiles <= kFewTiles && of_bytes < fast_bytes()) return 0;
  return n_tiles ? std::min((line_bytes + n_tiles - 1) / n_tiles, kLine) : 0;
}

std::vector<CompactFunctions> compact_functions(const KernelTable& table, WeightType type, bool even_slower) {
  std::vector<CompactFunctions> all;
#if defined(QG_BETTER)
  for (const Better& b : kBetter)
    if (b.table == &table && b.type == type && b.runs() && (even_slower || b.pays())) all.push_back(*b.functions);
#endif
  all.push_back(table.compact.of_type[int(type)]);
  // Beside an L3 as fast as AMD's, hardware keeps enough reads in flight: the prefetch took 1.3 to 1.7 times as long.
  // With units of 64 bytes, Zen 5's, widening a vector takes a cycle, as long as reading its floats from L1.
  const CoreThroughput& speed = core_throughput();
  for (CompactFunctions& f : all)
    if (f.quantize_rows) f.far_bytes = fast_bytes();
  if (speed.beyond > 16)
    for (CompactFunctions& f : all) {
      if (!f.widen) continue;
      f.far_bytes = SIZE_MAX;
      if (speed.multiply_adds > 64 && table.f32.width == 16) f.cheap_rows = std::max<size_t>(f.cheap_rows, 2);
    }
  return all;
}

const KernelTable* kernel_table(const char* name) {
  for (const Candidate& c : kCandidates)
    if (std::strcmp(c.table->name, name) == 0) return c.runs() ? c.table : nullptr;
  return nullptr;
}

std::vector<const char*> supported_isas() {
  std::vector<const char*> names;
  for (const Candidate& c : kCandidates)
    if (c.runs()) names.push_back(c.table->name);
  return names;
}

const KernelTable& choose_kernels(const char* forced) {
  std::vector<const char*> names = supported_isas();
  if (forced == nullptr || *forced == '\0') return *kernel_table(names.front());
  if (const KernelTable* table = kernel_table(forced)) return *table;
  std::string message = "QUADGATE_ISA is '" + printable(forced) + "', but this machine runs only:";
  for (const char* name : names) message += std::string(" ") + name;
  throw std::runtime_error(message);
}

const KernelTable& kernels() {
  const KernelTable* table = chosen.load(std::memory_order_acquire);
  if (table == nullptr) {
    // Threads that come here at the same time all choose the same table.
    table = &choose_kernels(std::getenv("QUADGATE_ISA"));
    chosen.store(table, std::memory_order_release);
  }
  return *table;
}

}  // namespace quadgate
