// Memory that may not be touched: AddressSanitizer reports each access. Nothing where the code is compiled without it.
#pragma once

#include <cstddef>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace quadgate {

#if defined(__SANITIZE_ADDRESS__)

constexpr size_t kPoisonBetween = 128;  // bytes behind each piece of a block: two vectors of the widest kind

inline void poison(const void* from, size_t n) { ASAN_POISON_MEMORY_REGION(from, n); }
inline void unpoison(const void* from, size_t n) { ASAN_UNPOISON_MEMORY_REGION(from, n); }

// Zeroes n bytes with what is poisoned among them.
__attribute__((no_sanitize("address"))) inline void zero_pieces(void* from, size_t n) {
  auto* to = static_cast<volatile char*>(from);  // volatile: no call of memset, which would report it
  for (size_t i = 0; i < n; ++i) to[i] = 0;
}

#else

constexpr size_t kPoisonBetween = 0;

inline void poison(const void*, size_t) {}
inline void unpoison(const void*, size_t) {}
inline void zero_pieces(void* from, size_t n) { std::memset(from, 0, n); }

#endif

}  // namespace quadgate
