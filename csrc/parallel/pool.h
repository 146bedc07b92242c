// Threads: a pool shared by all calls, and the barrier for the threads of one call.
//
// Workers are started on first need, wait for work by a short spin and then sleep, and live until the process ends:
// they are detached and the pool is never destroyed, since a destructor that joined them would hang if it ran under
// the loader's lock or in a process that is already ending. A forked child starts with an empty pool of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

namespace quadgate {

// The most threads one call uses, and all calls together beyond their callers. The default is what the process may
// use (see machine.h). set_num_threads throws std::invalid_argument for n < 1.
void set_num_threads(int n);
int get_num_threads();

struct Pool;
struct Worker;

// The caller and some of the pool's workers, for as long as the object lives. Belongs to the thread that made it.
class Lease {
 public:
  // Takes up to `wanted` threads, the caller among them, as far as get_num_threads() and the calls already running
  // allow: size() may be 1. Never waits for another call. Threads that the system refuses to start are done without.
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

  // Calls fn(ctx, rank) once for each rank 0..size()-1 at the same time, rank 0 on the calling thread, and returns when
  // all have returned. Exceptions are caught; that of the lowest rank is rethrown at the end. A rank that
  // throws must not leave the others waiting for it in a Barrier.
  void run(void (*fn)(void* ctx, int rank), void* ctx);

  // The same for a callable f(int rank).
  template <class F>
  void run(F&& f) {
    run([](void* ctx, int rank) { (*static_cast<std::remove_reference_t<F>*>(ctx))(rank); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  void take(int wanted);
  void give_back();

  Pool* pool_ = nullptr;
  Worker* workers_ = nullptr;  // a chain; rank 1 first
  int size_ = 1;
};

// One word that threads wait on: they spin for a bounded time and then sleep in the kernel, so that a thread whose
// partner is not scheduled gives its core away. Bit 0 says that somebody sleeps; values are even.
class WaitWord {
 public:
  explicit WaitWord(uint32_t value = 0) : word_(value) {}
  uint32_t load() const { return word_.load(std::memory_order_acquire) & ~kSleeps; }
  // Sets the value, which must differ from the old one, and wakes all who wait. Touches *this only once, at first.
  void set(uint32_t value);
  // Waits until the value differs from `old`, spinning for about spin_us first, and returns it.
  uint32_t wait_while(uint32_t old, int spin_us);

 private:
  static constexpr uint32_t kSleeps = 1;
  std::atomic<uint32_t> word_;
};

// All n threads of a group wait for each other, as often as they like.
class Barrier {
 public:
  explicit Barrier(int n);
  Barrier(const Barrier&) = delete;

  // Returns when all n have called it. True if any of them passed stop in this round or an earlier one; all
  // participants of a round get the same answer. What was written before is visible to all after.
  bool wait(bool stop = false);

 private:
  static constexpr uint32_t kStop = 2, kRound = 4;  // in release_: bit 1 is the verdict, the rest counts rounds
  const uint32_t n_;
  const int spin_us_;
  alignas(64) std::atomic<uint32_t> arrived_{0};  // low half: who has come; high half: who of them said stop
  alignas(64) WaitWord release_;
};

}  // namespace quadgate
