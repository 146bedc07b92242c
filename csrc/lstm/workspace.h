// Memory that a call needs while it runs, kept by the calling thread for its next call.
#pragma once

#include "../memory.h"

namespace fourgate {

// Borrows the thread's workspace; a call made inside another one (from a signal handler, say) gets memory of its own.
class WorkspaceLease {
 public:
  WorkspaceLease() : mine_(!cache().used) {
    if (mine_) cache().used = true;
  }
  ~WorkspaceLease() {
    if (!mine_) return;
    cache().used = false;
    if (cache().memory.nbytes() > kKeep) cache().memory = Buffer<char>();
  }
  WorkspaceLease(const WorkspaceLease&) = delete;
  WorkspaceLease& operator=(const WorkspaceLease&) = delete;

  // n bytes with any contents, aligned to 64; valid until the next call of this or the end of the lease.
  char* bytes(size_t n) {
    Buffer<char>& buffer = mine_ ? cache().memory : own_;
    buffer.resize_discard(n);
    return buffer.data();
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
  bool mine_;
  Buffer<char> own_;
};

}  // namespace fourgate
