// Aligned memory for packed weights, workspaces and tapes, and size arithmetic that cannot overflow.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "memory/poison.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace quadgate {

// The sum or product of sizes; throws std::bad_alloc (MemoryError in Python) if it does not fit in size_t.
inline size_t checked_add(size_t a, size_t b) {
  if (a > SIZE_MAX - b) throw std::bad_alloc();
  return a + b;
}
inline size_t checked_mul(size_t a, size_t b) {
  constexpr size_t kHalf = size_t(1) << (sizeof(size_t) * 4);  // such products fit, which saves the division
  if ((a | b) >= kHalf && b != 0 && a > SIZE_MAX / b) throw std::bad_alloc();
  return a * b;
}
template <class... Rest>
size_t checked_mul(size_t a, size_t b, Rest... rest) {
  return checked_mul(checked_mul(a, b), rest...);
}

// A block of plain elements, aligned to 64 bytes. From kHugeFrom bytes on it is aligned to 2 MiB and, on Linux, offered
// to the kernel for huge pages: packed weights are read once a step, and small pages would cost a TLB miss each 4 KiB.
template <class Element>
class Buffer {
  static_assert(std::is_trivially_copyable<Element>::value, "elements are never constructed or destroyed");

 public:
  static constexpr size_t kAlign = 64, kHugePage = size_t(2) << 20, kHugeFrom = size_t(4) << 20,
                          kHotFrom = size_t(512) << 10;

  Buffer() = default;
  explicit Buffer(size_t n) { resize_discard(n); }  // uninitialised
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(); }

  Element* data() { return data_; }  // null before the first allocation
  const Element* data() const { return data_; }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  size_t nbytes() const { return capacity_ * sizeof(Element); }
  Element& operator[](size_t i) { return data_[i]; }
  const Element& operator[](size_t i) const { return data_[i]; }
  Element* begin() { return data_; }
  Element* end() { return data_ + size_; }

  // The same in whole huge pages from kHotFrom bytes on: for memory that is read many times and should fill L2
  // evenly. Small pages lie anywhere, so that some sets of a physically indexed cache get too many lines, others none.
  static Buffer hot(size_t n) {
    size_t bytes = checked_mul(n, sizeof(Element));
    if (bytes >= kHotFrom) bytes = checked_add(bytes, kHugeFrom - 1) / kHugePage * kHugePage;
    Buffer b(std::max(n, bytes / sizeof(Element)));
    b.size_ = n;
    return b;
  }

  // n elements with any contents. Memory is freed only to allocate more; if that fails the buffer is empty.
  void resize_discard(size_t n) {
    if (n > capacity_) {
      size_t bytes = checked_mul(n, sizeof(Element));
      release();
      data_ = static_cast<Element*>(::operator new(bytes, alignment(bytes), std::nothrow));
      if (data_ == nullptr) throw std::bad_alloc();
      capacity_ = n;
#if defined(__linux__)
      // Advice only: an error (no huge pages here) changes nothing.
      if (bytes >= kHugeFrom) (void)madvise(data_, bytes, MADV_HUGEPAGE);
#endif
    }
    unpoison(data_, nbytes());
    poison(data_ + n, (capacity_ - n) * sizeof(Element));
    size_ = n;
  }
  void resize_zero(size_t n) {
    resize_discard(n);
    zero();
  }
  void zero() {
    if (size_ != 0) std::memset(static_cast<void*>(data_), 0, size_ * sizeof(Element));
  }
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }

 private:
  static std::align_val_t alignment(size_t bytes) { return std::align_val_t(bytes >= kHugeFrom ? kHugePage : kAlign); }
  void release() noexcept {
    if (data_ != nullptr) ::operator delete(data_, alignment(capacity_ * sizeof(Element)));
    data_ = nullptr;
    size_ = capacity_ = 0;
  }

  Element* data_ = nullptr;
  size_t size_ = 0, capacity_ = 0;
};

}  // namespace quadgate
