#include "parallel/this_thread.h"

#include <algorithm>
#include <new>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace quadgate {

KeptFloats::Slot* KeptFloats::find(uint64_t key) {
  for (Slot& slot : slots)
    if (slot.key == key) return &slot;
  return nullptr;
}

KeptFloats::Slot* KeptFloats::make(uint64_t key, size_t n, size_t most, bool stays) {
  uint64_t* const seen = std::find(others, others + kSlots, key);
  const bool first = seen == others + kSlots;
  if (first && !stays) {
    std::copy_backward(others, others + kSlots - 1, others + kSlots);
    others[0] = key;
    return nullptr;
  }
  // A network that was not called for so many calls makes room: floats take as long to make as ten short calls, and
  // gain a tenth of each.
  constexpr uint64_t kPatience = 128;
  constexpr size_t kHotFloats = size_t(1) << 20;
  auto counted = [most](const Slot& slot) { return slot.most <= most ? slot.floats.size() * sizeof(float) : 0; };
  auto idle = [this](const Slot& slot) { return slot.key && slot.last_call + kPatience < calls; };
  size_t bytes = n * sizeof(float), to_free = 0;
  Slot* result = nullptr;
  bool any_idle = false;
  for (Slot& slot : slots) {
    bytes += counted(slot);
    if (slot.key == 0) result = &slot;
    any_idle |= idle(slot);
    if (idle(slot)) to_free += counted(slot);
  }
  if (bytes > most + to_free || (!result && !any_idle)) return nullptr;
  while (!result || bytes > most) {
    Slot* oldest = nullptr;
    for (Slot& slot : slots)
      if (idle(slot) && (!result || counted(slot)) && (!oldest || slot.last_call < oldest->last_call)) oldest = &slot;
    bytes -= counted(*oldest);
    *oldest = Slot();
    result = oldest;
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
