// What the tests of the kernels share: random numbers, and arrays between guards.
#pragma once

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

template <class T>
std::vector<T> uniform(size_t n, double scale = 1) {
  std::uniform_real_distribution<double> d(-scale, scale);
  std::vector<T> v(n);
  for (T& x : v) x = T(d(engine()));
  return v;
}

inline std::vector<unsigned char> flags(size_t n) {
  std::vector<unsigned char> v(n);
  for (unsigned char& x : v) x = engine()() % 2;
  return v;
}

template <class T>
double epsilon() {
  return sizeof(T) == 4 ? 0x1p-23 : 0x1p-52;
}

// An array of exactly n elements between zones that nobody may write (which its end checks) nor, as AddressSanitizer
// sees, read. Zones and new arrays hold NaN: what a kernel takes from them, or leaves out, shows in its results.
// The first element is aligned to 64 bytes.
template <class T>
class Guarded {
 public:
  explicit Guarded(size_t n) : size_(n) {
    const size_t bytes = (n + 2 * kZone) * sizeof(T);
    all_ = static_cast<T*>(::operator new(bytes, std::align_val_t(64)));
    std::memset(static_cast<void*>(all_), kFill, bytes);
    ASAN_POISON_MEMORY_REGION(all_, kZone * sizeof(T));
    ASAN_POISON_MEMORY_REGION(data() + n, kZone * sizeof(T));
  }
  explicit Guarded(const std::vector<T>& v) : Guarded(v.size()) {
    if (!v.empty()) std::memcpy(data(), v.data(), v.size() * sizeof(T));
  }
  Guarded(Guarded&& other) noexcept : all_(std::exchange(other.all_, nullptr)), size_(other.size_) {}
  Guarded& operator=(Guarded&&) = delete;
  ~Guarded() {
    if (!all_) return;
    ASAN_UNPOISON_MEMORY_REGION(all_, (size_ + 2 * kZone) * sizeof(T));
    const auto* bytes = reinterpret_cast<const unsigned char*>(all_);
    bool kept = true;
    for (size_t i = 0; i < kZone * sizeof(T); ++i)
      kept = kept && bytes[i] == kFill && bytes[(kZone + size_) * sizeof(T) + i] == kFill;
    CHECK(kept);
    ::operator delete(all_, std::align_val_t(64));
  }

  T* data() const { return all_ + kZone; }
  size_t size() const { return size_; }
  T& operator[](size_t i) const { return data()[i]; }
  std::vector<T> copy() const { return {data(), data() + size_}; }

 private:
  static constexpr size_t kZone = 64;
  static constexpr unsigned char kFill = 0xff;
  T* all_;
  size_t size_;
};

// A row for each of a batch.
template <class T>
using Rows = std::vector<Guarded<T>>;

template <class T>
Rows<T> empty_rows(size_t rows, size_t n) {
  Rows<T> all;
  for (size_t r = 0; r < rows; ++r) all.emplace_back(n);
  return all;
}

template <class T>
Rows<T> random_rows(size_t rows, size_t n, double scale = 1) {
  Rows<T> all;
  for (size_t r = 0; r < rows; ++r) all.emplace_back(uniform<T>(n, scale));
  return all;
}

inline Rows<unsigned char> random_flags(size_t rows, size_t n) {
  Rows<unsigned char> all;
  for (size_t r = 0; r < rows; ++r) all.emplace_back(flags(n));
  return all;
}

template <class T>
bool same_bits(const T* a, const T* b, size_t n) {
  return n == 0 || std::memcmp(a, b, n * sizeof(T)) == 0;
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
