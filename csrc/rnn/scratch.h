// Memory that a call needs while it runs, kept by the calling thread for its next call.
#pragma once

#include "memory/buffer.h"
#include "memory/carver.h"

namespace quadgate {

// Borrows the thread's scratch memory. A call made inside another one, from a signal handler say, gets memory of its
// own.
class ScratchLease {
 public:
  ScratchLease() : cache_(cache().used ? nullptr : &cache()) {
    if (cache_) cache_->used = true;
  }
  ~ScratchLease() {
    if (!cache_) return;
    cache_->used = false;
    if (cache_->memory.nbytes() > kKeep) cache_->memory = Buffer<char>();
  }
  ScratchLease(const ScratchLease&) = delete;
  ScratchLease& operator=(const ScratchLease&) = delete;

  // n bytes with any contents, aligned to 64; valid until the next call of this or the end of the lease.
  char* bytes(size_t n) {
    buffer().resize_discard(n);
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
  struct Cache {
    Buffer<char> memory;
    bool used = false;
  };
  static Cache& cache() {
    static thread_local Cache c;
    return c;
  }
  Buffer<char>& buffer() { return cache_ ? cache_->memory : own_; }

  Cache* cache_;  // the calling thread's, looked up once; null where a call further out has it
  Buffer<char> own_;
  Carver carver_;
};

}  // namespace quadgate
