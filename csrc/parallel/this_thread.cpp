#include "parallel/this_thread.h"

#include <new>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace quadgate {

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
