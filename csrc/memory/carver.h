// Pieces of one block of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "memory/poison.h"

namespace quadgate {

// Cuts off pieces, each aligned to 64 bytes. Past the end of the block it gives null and goes on counting: a run
// without a block, or with one too small, says how much memory is needed.
class Carver {
 public:
  Carver() = default;
  Carver(void* base, size_t size) : base_(static_cast<char*>(base)), size_(size) { unpoison(base_, size_); }

  template <class Element>
  Element* take(size_t n) {
    const size_t at = used_;
    used_ = end_of(used_, n, sizeof(Element));
    used_ = end_of(used_, kPoisonBetween, 1);
    if (used_ > size_) return nullptr;
    const size_t bytes = n * sizeof(Element);
    poison(base_ + at + bytes, used_ - at - bytes);
    return reinterpret_cast<Element*>(base_ + at);
  }
  template <class Element>
  Element* take_if(bool wanted, size_t n) {
    return wanted ? take<Element>(n) : nullptr;
  }
  // n objects, which f(i) makes and which may take memory of their own.
  template <class Object, class F>
  Object* make(size_t n, F&& f) {
    static_assert(std::is_trivially_destructible<Object>::value, "pieces are never destroyed");
    Object* all = take<Object>(n);
    for (size_t i = 0; i < n; ++i) {
      const Object one = f(i);
      if (all) new (static_cast<void*>(all + i)) Object(one);
    }
    return all;
  }
  size_t used() const { return used_; }  // bytes

 private:
  static size_t end_of(size_t used, size_t n, size_t size) {
    if (n > (SIZE_MAX / 2 - used) / size) throw std::bad_alloc();
    return (used + n * size + 63) / 64 * 64;
  }
  char* base_ = nullptr;
  size_t size_ = 0, used_ = 0;
};

}  // namespace quadgate
