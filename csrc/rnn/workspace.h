// Memory that a call needs while it runs, kept by the calling thread for its next call.
#pragma once

#include "memory/buffer.h"
#include "rnn/sequence.h"

namespace quadgate {

// Borrows the thread's workspace; a call made inside another one (from a signal handler, say) gets memory of its own.
class WorkspaceLease {
 public:
  WorkspaceLease() : cache_(cache().used ? nullptr : &cache()) {
    if (cache_) cache_->used = true;
  }
  ~WorkspaceLease() {
    if (!cache_) return;
    cache_->used = false;
    if (cache_->memory.nbytes() > kKeep) cache_->memory = Buffer<char>();
  }
  WorkspaceLease(const WorkspaceLease&) = delete;
  WorkspaceLease& operator=(const WorkspaceLease&) = delete;

  // n bytes with any contents, aligned to 64; valid until the next call of this or the end of the lease.
  char* bytes(size_t n) {
    buffer().resize_discard(n);
    return buffer().data();
  }

  // The same for f(carver), which takes its pieces; once more where it turns out that they need more than there was.
  template <class F>
  void carve(F&& f) {
    Carver carver(buffer().data(), buffer().capacity());
    f(carver);
    if (carver.used() <= buffer().capacity()) return;
    Carver enough(bytes(carver.used()), carver.used());
    f(enough);
  }

 private:
  // Page faults on fresh memory cost more than the work of a small call, and 3 % of a training step at H = 1024 (56
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
};

}  // namespace quadgate
