// CPUID of an x86-64 processor; QG_X86 is defined on such a machine.
#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#define QG_X86 1

#include <cstdint>

#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif

namespace quadgate {

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Zeros for a leaf that the processor does not have.
inline Registers cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Registers r;
#if defined(_MSC_VER)
  int out[4];
  __cpuid(out, 0);
  if (uint32_t(out[0]) >= leaf) {
    __cpuidex(out, int(leaf), int(subleaf));
    r = {uint32_t(out[0]), uint32_t(out[1]), uint32_t(out[2]), uint32_t(out[3])};
  }
#else
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
#endif
  return r;
}

}  // namespace quadgate

#endif
