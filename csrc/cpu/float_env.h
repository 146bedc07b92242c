// The floating-point environment of a call: rounding to nearest, denormals kept, no traps, whatever the caller has set
// for itself. Without it the bits of a result would depend on which thread computed them.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace quadgate {

// Sets the standard environment of this thread, and the caller's again in the end. Where they are the same, that costs
// one read each.
class FloatEnvironment {
 public:
#if defined(__x86_64__) || defined(_M_X64)
  FloatEnvironment() : before_(_mm_getcsr()) {
    if ((before_ & kControl) != kStandard) _mm_setcsr(kStandard);
  }
  ~FloatEnvironment() {
    if ((before_ & kControl) != kStandard) _mm_setcsr(before_);
  }
  // Sets it again, after foreign code in the middle of a call.
  static void restore() { _mm_setcsr(kStandard); }

 private:
  // Rounding, masks of exceptions, flush to zero, denormals are zero; below them are flags, which may be set.
  static constexpr uint32_t kControl = 0xffc0, kStandard = 0x1f80;
  const uint32_t before_;
#elif defined(__aarch64__)
  FloatEnvironment() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    if (before_ != 0) write(0);
  }
  ~FloatEnvironment() {
    if (before_ != 0) write(before_);
  }
  static void restore() { write(0); }

 private:
  static void write(uint64_t value) { __asm__ volatile("msr fpcr, %0" : : "r"(value) : "memory"); }
  uint64_t before_;
#else
  FloatEnvironment() {}
  static void restore() {}
#endif

 public:
  FloatEnvironment(const FloatEnvironment&) = delete;
};

}  // namespace quadgate
