#include "parallel/this_thread.h"

#include <algorithm>
#include <new>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace quadgate {

KeptFloats::Slot* KeptFloats::find(uint64_t network) {
  for (Slot& slot : slots)
    if (slot.network == network) return &slot;
  return nullptr;
}

KeptFloats::Slot* KeptFloats::make(uint64_t network, size_t n, size_t most, bool stays) {
  uint64_t* const seen = std::find(others, others + kSlots, network);
  const bool first = seen == others + kSlots;
  if (first && !stays) {
    std::copy_backward(others, others + kSlots - 1, others + kSlots);
    others[0] = network;
    return nullptr;
  }
  // A network that was not called for so many calls makes room: floats take as long to make as ten short calls, and
  // gain a tenth of each.
  constexpr uint64_t kPatience = 128;
  constexpr size_t kHotFloats = size_t(1) << 20;
  size_t bytes = n * sizeof(float);
  Slot* result = nullptr;
  auto counted = [most](const Slot& slot) { return slot.most <= most ? slot.floats.size() * sizeof(float) : 0; };
  for (const Slot& slot : slots) bytes += counted(slot);
  for (;;) {
    Slot* oldest = nullptr;
    for (Slot& slot : slots) {
      if (slot.network == 0)
        result = &slot;
      else if (slot.last_call + kPatience < calls && (!oldest || slot.last_call < oldest->last_call))
        oldest = &slot;
    }
    if (result && bytes <= most) break;
    if (!oldest) return nullptr;
    bytes -= counted(*oldest);
    *oldest = Slot();
  }
  if (!first) *seen = 0;
  result->most = most;
  // Whole huge pages, which Linux clears at their first use: too long beside the calls of small networks.
  result->floats = n * sizeof(float) < kHotFloats ? Buffer<float>(n) : Buffer<float>::hot(n);
  return result;
}

#if defined(_WIN32)

ThisThread* this_thread() noexcept {
  static thread_local ThisThread data;
  return &data;
}

#else

namespace {

// Made when the library is loaded, so that no call waits for it.
struct Key {
  pthread_key_t id = 0;
  const bool made = pthread_key_create(&id, [](void* p) { delete static_cast<ThisThread*>(p); }) == 0;
};
const Key key{};

}  // namespace

ThisThread* this_thread() noexcept {
  if (!key.made) return nullptr;
  if (void* known = pthread_getspecific(key.id)) return static_cast<ThisThread*>(known);
  auto* data = new (std::nothrow) ThisThread;
  if (data != nullptr && pthread_setspecific(key.id, data) != 0) {
    delete data;
    return nullptr;
  }
  return data;
}

#endif

}  // namespace quadgate
