// Threads: a pool that all calls share.
//
// Workers are started on first need, wait for work by a short spin and then sleep, and run until the process ends:
// they are detached and the pool is never destroyed, since a destructor that joined them would hang if it ran under
// the loader's lock or in a process that is already ending. A forked child starts with an empty pool of its own.
#pragma once

#include <type_traits>

namespace quadgate {

// The most threads that one call uses, and that all calls use beyond their callers. The default is what the process may
// use (cpu/available_cpus.h). set_num_threads throws std::invalid_argument for n < 1.
void set_num_threads(int n);
int get_num_threads();

// A worker spins so long for the next job before it sleeps. Long enough for calls in quick succession; with 500 us, as
// Sharing spins inside a call, a small product of NumPy right after the call would take 3.5 times as long.
constexpr int kIdleSpinUs = 50;

struct Board;
struct Pool;
struct Worker;

// The caller and some of the pool's workers, for the lifetime of the object. Belongs to the thread that made it.
class Lease {
 public:
  // Takes up to `wanted` threads, the caller among them, as far as get_num_threads() and the calls already running
  // allow: size() may be 1. Never waits for another call. If the system cannot start a thread, size() is smaller.
  explicit Lease(int wanted) {
    if (wanted > 1) take(wanted);
  }
  Lease(Lease&& other) noexcept;
  Lease& operator=(Lease&&) = delete;
  Lease(const Lease&) = delete;
  ~Lease() {
    if (workers_ != nullptr) give_back();
  }

  int size() const { return size_; }

  // Calls fn(ctx, 0) on the calling thread, and at the same time fn(ctx, rank) for the other ranks below size(), each
  // at most once: a worker that has not begun when rank 0 returns does not begin any more, and one that is on leave
  // (job_part.h) then does not come back. Returns when all others have returned. So rank 0 must be able to do all of
  // the work, as with Sharing. Exceptions are caught; that of the lowest rank is rethrown at the end.
  void run(void (*fn)(void* ctx, int rank), void* ctx);

  // The same for a callable f(int rank).
  template <class F>
  void run(F&& f) {
    run([](void* ctx, int rank) { (*static_cast<std::remove_reference_t<F>*>(ctx))(rank); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

  // For a Sharing: one of the two boards, 0 or 1, of the worker with this rank, 1 or more.
  Board& board(int rank, int which) const;

 private:
  void take(int wanted);
  void give_back();

  Pool* pool_ = nullptr;
  Worker* workers_ = nullptr;  // a chain; rank 1 first
  int size_ = 1;
};

}  // namespace quadgate
