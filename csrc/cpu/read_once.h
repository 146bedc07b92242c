// Facts about the machine, read on first use.
#pragma once

#include <atomic>

namespace quadgate {

// Returns the result of the first read(). Not a guarded static: a child forked while another thread runs the
// initialiser would never stop waiting for it.
template <class T>
const T& read_once(std::atomic<const T*>& known, T (*read)()) {
  const T* value = known.load(std::memory_order_acquire);
  if (value != nullptr) return *value;
  const T* own = new T(read());  // kept until the process ends
  if (known.compare_exchange_strong(value, own, std::memory_order_acq_rel)) return *own;
  delete own;
  return *value;
}

}  // namespace quadgate
