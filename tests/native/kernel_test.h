// Shared by the tests of the kernels: random numbers, and arrays between guards.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <utility>
#include <vector>

#include "check.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QUADGATE_TEST_ASAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(QUADGATE_TEST_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(begin, size) ((void)(begin), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(begin, size) ((void)(begin), (void)(size))
#endif

namespace kernel_test {

inline std::mt19937& engine() {
  static std::mt19937 random(20240601);
  return random;
}

template <class Real>
std::vector<Real> uniform(size_t n, double scale = 1) {
  std::uniform_real_distribution<double> d(-scale, scale);
  std::vector<Real> v(n);
  for (Real& x : v) x = Real(d(engine()));
  return v;
}

inline std::vector<unsigned char> flags(size_t n) {
  std::vector<unsigned char> v(n);
  for (unsigned char& x : v) x = engine()() % 2;
  return v;
}

template <class Real>
double epsilon() {
  return sizeof(Real) == 4 ? 0x1p-23 : 0x1p-52;
}

// A row of the tape (4H), which lies in blocks of W units, in the order of the gates.
template <class Row>
auto by_gates(const Row& tape, size_t W, size_t H) {
  std::vector<std::decay_t<decltype(tape[0])>> gates(4 * H);
  for (size_t g = 0; g < 4; ++g)
    for (size_t u = 0; u < H; ++u) {
      const size_t first = u - u % W, units = std::min(W, H - first);
      gates[g * H + u] = tape[4 * first + g * units + u % W];
    }
  return gates;
}

// An array of exactly n elements between zones that no kernel may write (which its end checks) nor, as AddressSanitizer
// sees, read. Zones and new arrays hold NaN, which shows in results if a kernel reads them or leaves elements out.
// The first element is aligned to 64 bytes.
template <class Real>
class Guarded {
 public:
  explicit Guarded(size_t n) : size_(n) {
    const size_t bytes = (n + 2 * kZone) * sizeof(Real);
    all_ = static_cast<Real*>(::operator new(bytes, std::align_val_t(64)));
    std::memset(static_cast<void*>(all_), kFill, bytes);
    ASAN_POISON_MEMORY_REGION(all_, kZone * sizeof(Real));
    ASAN_POISON_MEMORY_REGION(data() + n, kZone * sizeof(Real));
  }
  explicit Guarded(const std::vector<Real>& v) : Guarded(v.size()) {
    if (!v.empty()) std::memcpy(data(), v.data(), v.size() * sizeof(Real));
  }
  Guarded(Guarded&& other) noexcept : all_(std::exchange(other.all_, nullptr)), size_(other.size_) {}
  Guarded& operator=(Guarded&&) = delete;
  ~Guarded() {
    if (!all_) return;
    ASAN_UNPOISON_MEMORY_REGION(all_, (size_ + 2 * kZone) * sizeof(Real));
    const auto* bytes = reinterpret_cast<const unsigned char*>(all_);
    bool kept = true;
    for (size_t i = 0; i < kZone * sizeof(Real); ++i)
      kept = kept && bytes[i] == kFill && bytes[(kZone + size_) * sizeof(Real) + i] == kFill;
    CHECK(kept);
    ::operator delete(all_, std::align_val_t(64));
  }

  Real* data() const { return all_ + kZone; }
  size_t size() const { return size_; }
  Real& operator[](size_t i) const { return data()[i]; }
  std::vector<Real> copy() const { return {data(), data() + size_}; }

 private:
  static constexpr size_t kZone = 64;
  static constexpr unsigned char kFill = 0xff;
  Real* all_;
  size_t size_;
};

// A row for each of a batch.
template <class Real>
using Rows = std::vector<Guarded<Real>>;

template <class Real>
Rows<Real> empty_rows(size_t rows, size_t n) {
  Rows<Real> all;
  for (size_t r = 0; r < rows; ++r) all.emplace_back(n);
  return all;
}

template <class Real>
Rows<Real> random_rows(size_t rows, size_t n, double scale = 1) {
  Rows<Real> all;
  for (size_t r = 0; r < rows; ++r) all.emplace_back(uniform<Real>(n, scale));
  return all;
}

inline Rows<unsigned char> random_flags(size_t rows, size_t n) {
  Rows<unsigned char> all;
  for (size_t r = 0; r < rows; ++r) all.emplace_back(flags(n));
  return all;
}

template <class Real>
bool same_bits(const Real* a, const Real* b, size_t n) {
  return n == 0 || std::memcmp(a, b, n * sizeof(Real)) == 0;
}

// One below, at and one above every tail: of a vector, of the group of 4 that back panels take, of larger hidden sizes.
inline std::vector<size_t> tails(size_t width) {
  std::vector<size_t> sizes;
  for (size_t n : {size_t(1), size_t(2), size_t(3), width - 1, width, width + 1, 2 * width + 1, 4 * width - 1,
                   4 * width, 4 * width + 1, 5 * width + 2})
    if (n > 0 && (sizes.empty() || n > sizes.back())) sizes.push_back(n);
  return sizes;
}

}  // namespace kernel_test
