// The floating-point environment of a call: rounding to nearest, denormals taken for zeros and flushed to zeros, no
// traps, whatever the caller has set for itself. Without it the bits of a result would depend on which thread computed
// them. Denormals are flushed because a state that decays without input ends among them: the smallest ones round to
// themselves for ever, and each product with one of them takes some 150 cycles.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace quadgate {

// Sets our environment of this thread, and the caller's again in the end. Where they are the same, that costs one read.
class FloatEnvironment {
 public:
  enum Denormals : uint32_t { flushed, kept };
#if defined(__x86_64__) || defined(_M_X64)
  explicit FloatEnvironment(Denormals denormals = flushed)
      : before_(_mm_getcsr()), set_((before_ & kControl) != control(denormals)) {
    if (set_) _mm_setcsr(control(denormals));
  }
  ~FloatEnvironment() {
    if (set_) _mm_setcsr(before_);
  }
  // Sets it again, after foreign code in the middle of a call.
  static void restore() { _mm_setcsr(kOurs); }

 private:
  // Rounding, masks of exceptions, flush to zero, denormals are zero; below them are flags, which may be set.
  static constexpr uint32_t kControl = 0xffc0, kOurs = 0x9fc0, kFlush = 0x8040;
  static constexpr uint32_t control(Denormals d) { return d == flushed ? kOurs : kOurs & ~kFlush; }
  const uint32_t before_;
  const bool set_;
#elif defined(__aarch64__)
  explicit FloatEnvironment(Denormals denormals = flushed) {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    const uint64_t ours = denormals == flushed ? kOurs : 0;
    set_ = before_ != ours;
    if (set_) write(ours);
  }
  ~FloatEnvironment() {
    if (set_) write(before_);
  }
  static void restore() { write(kOurs); }

 private:
  static void write(uint64_t value) { __asm__ volatile("msr fpcr, %0" : : "r"(value) : "memory"); }
  static constexpr uint64_t kOurs = uint64_t(1) << 24;  // FZ
  uint64_t before_;
  bool set_;
#else
  explicit FloatEnvironment(Denormals = flushed) {}
  static void restore() {}
#endif

 public:
  FloatEnvironment(const FloatEnvironment&) = delete;
};

}  // namespace quadgate
