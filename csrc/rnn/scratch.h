// Memory that a call needs while it runs, kept by the calling thread for its next call.
#pragma once

#include <utility>

#include "memory/buffer.h"
#include "memory/carver.h"
#include "memory/poison.h"
#include "parallel/this_thread.h"

namespace quadgate {

// Borrows the thread's scratch memory. A call made inside another one, from a signal handler say, gets memory of its
// own.
class ScratchLease {
 public:
  ScratchLease() : thread_(this_thread()) {
    if (thread_ && std::exchange(thread_->scratch_used, true)) thread_ = nullptr;
  }
  ~ScratchLease() {
    if (!thread_) return;
    thread_->scratch_used = false;
    if (thread_->scratch.nbytes() > kKeep) thread_->scratch = Buffer<char>();
  }
  ScratchLease(const ScratchLease&) = delete;
  ScratchLease& operator=(const ScratchLease&) = delete;

  // False for a call inside another one, which leaves the thread's memory alone.
  bool of_thread() const { return thread_ != nullptr; }

  // n bytes with any contents, aligned to 64; valid until the next call of this or the end of the lease.
  char* bytes(size_t n) {
    buffer().resize_discard(n);
    unpoison(buffer().data(), n);
    return buffer().data();
  }

  // The same in pieces, which f(carver) takes. Runs f again if they need more memory than there was. The carver is
  // valid as long as the lease.
  template <class F>
  void carve(F&& f) {
    carver_ = Carver(buffer().data(), buffer().capacity());
    f(carver_);
    if (carver_.used() <= buffer().capacity()) return;
    const size_t n = carver_.used();
    carver_ = Carver(bytes(n), n);
    f(carver_);
  }

 private:
  // Page faults on new memory cost more than the work of a small call, and 3 % of a training step at H = 1024 (56
  // MB).
  static constexpr size_t kKeep = size_t(128) << 20;
  Buffer<char>& buffer() { return thread_ ? thread_->scratch : own_; }

  ThisThread* thread_;  // looked up once; null where a call further out has its memory
  Buffer<char> own_;
  Carver carver_;
};

}  // namespace quadgate
