#include "cpu/throughput.h"

#include "cpu/features.h"
#include "cpu/read_once.h"

namespace quadgate {
namespace {

// Measured on Intel's Ice Lake servers, but `ahead` on Emerald Rapids: all other processors get these. And on AMD's
// Zen 4, of which Zen 3 differs little, and Zen 5, which later ones get.
CoreThroughput read_throughput() {
#if defined(QG_X86)
  const bool amd = cpuid(0).ebx == 0x68747541;  // "Auth", of AuthenticAMD
  const uint32_t version = cpuid(1).eax, family = ((version >> 8) & 15) + ((version >> 20) & 255);
  // Up to Zen 4 (0x19) a vector of 64 bytes is worked on in two halves.
  if (amd) return family <= 0x19 ? CoreThroughput{32, 24, 64, 1.07} : CoreThroughput{62, 30, 128, 1.02};
#endif
  return {45, 8, 128, 1.02};
}

}  // namespace

const CoreThroughput& core_throughput() {
  static std::atomic<const CoreThroughput*> known{nullptr};
  return read_once(known, read_throughput);
}

}  // namespace quadgate
