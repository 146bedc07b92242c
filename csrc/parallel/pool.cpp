#include "parallel/pool.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#include "cpu/float_env.h"
#include "cpu/machine.h"

#if !defined(_WIN32)
#include <pthread.h>
#include <signal.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif
#if defined(__linux__) && !defined(QG_NO_FUTEX)
#define QG_FUTEX 1
#include <linux/futex.h>
#include <sys/syscall.h>
#else
#include <condition_variable>
#endif
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace quadgate {

// A worker's job is written before `go` changes and read by the worker after; `error` likewise with `done`.
struct Worker {
  alignas(64) WaitWord go;
  void (*fn)(void*, int) = nullptr;
  void* ctx = nullptr;
  int rank = 0;
  int spin_us = 0;                  // how to wait for the job after this one
  Worker* first = nullptr;          // rank 1 of this job
  std::atomic<int> caller_cpu{-1};  // in rank 1's: where rank 0 was last seen
  Worker* next = nullptr;
  alignas(64) WaitWord done;  // the value of `go` whose job is finished
  std::exception_ptr error;
};

struct Pool {
  std::mutex lock;
  Worker* idle = nullptr;  // last used first: its core is still warm
  int lent = 0;            // workers in leases
};

namespace {

// Long enough to cover an uneven step, short beside the milliseconds that a descheduled partner stays away.
constexpr int kBarrierSpinUs = 30, kJoinSpinUs = 50, kIdleSpinUs = 50;

std::atomic<int> thread_limit{0};  // 0: not asked for yet
std::atomic<Pool*> current_pool{nullptr};

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");  // `yield` does nothing on most cores; this waits for some tens of cycles
#endif
}

#if defined(QG_FUTEX)

void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
void wake_all(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}
void forget_sleepers() {}

#else

// Sleepers meet at a bucket chosen by the word's address. Never destroyed, and abandoned by a forked child, in
// which nobody would ever unlock a mutex that was held.
struct Bucket {
  std::mutex lock;
  std::condition_variable changed;
};
constexpr size_t kBuckets = 64;
std::atomic<Bucket*> buckets{nullptr};

Bucket& bucket_of(const void* word) {
  Bucket* all = buckets.load(std::memory_order_acquire);
  if (all == nullptr) {
    Bucket* fresh = new Bucket[kBuckets];
    if (buckets.compare_exchange_strong(all, fresh))
      all = fresh;
    else
      delete[] fresh;
  }
  return all[(reinterpret_cast<uintptr_t>(word) >> 6) % kBuckets];
}
void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
  Bucket& bucket = bucket_of(&word);
  std::unique_lock<std::mutex> hold(bucket.lock);
  while (word.load(std::memory_order_relaxed) == value) bucket.changed.wait(hold);
}
void wake_all(std::atomic<uint32_t>* word) {
  Bucket& bucket = bucket_of(word);
  // The word has changed already; who saw its old value under the lock sleeps by the time the lock is ours.
  std::lock_guard<std::mutex> hold(bucket.lock);
  bucket.changed.notify_all();
}
void forget_sleepers() { buckets.store(nullptr, std::memory_order_relaxed); }

#endif

// Spinning is of use only while the partners run at the same time.
int spin_for(int threads, int us) { return threads <= available_cpus() ? us : 0; }

// The job that this thread has a part in; null outside of jobs.
struct Part {
  Worker* first = nullptr;
  bool is_worker = false;
};
thread_local Part part;

#if defined(__linux__)

int this_cpu() { return sched_getcpu(); }

// Leaves the CPU that the caller runs on, and keeps off it. When all CPUs are busy the scheduler may wake a worker on
// its caller's CPU, and then see no reason to move it: from there on each barrier would cost a spin and a switch.
void keep_off(int cpu) {
  cpu_set_t allowed;  // what the process was given, not what this thread has left of it
  if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(getpid(), sizeof allowed, &allowed) != 0) return;
  CPU_CLR(size_t(cpu), &allowed);
  if (CPU_COUNT(&allowed) > 0) sched_setaffinity(0, sizeof allowed, &allowed);
}

#else

int this_cpu() { return -1; }
void keep_off(int) {}

#endif

// Called by a thread that has slept, and so may have been woken on any CPU.
void look_where_we_are() {
  if (part.first == nullptr) return;
  int here = this_cpu();
  if (!part.is_worker)
    part.first->caller_cpu.store(here, std::memory_order_relaxed);
  else if (here >= 0 && here == part.first->caller_cpu.load(std::memory_order_relaxed))
    keep_off(here);
}

void in_forked_child() {
  // The workers exist only in the parent, and its mutex may be locked: leave both, start anew on the next lease.
  current_pool.store(nullptr, std::memory_order_relaxed);
  forget_sleepers();
}

Pool& the_pool() {
  Pool* pool = current_pool.load(std::memory_order_acquire);
  if (pool != nullptr) return *pool;
#if !defined(_WIN32)
  static std::atomic<bool> registered{false};
  if (!registered.load(std::memory_order_acquire)) {  // twice does no harm
    pthread_atfork(nullptr, nullptr, in_forked_child);
    registered.store(true, std::memory_order_release);
  }
#endif
  Pool* fresh = new Pool;
  if (current_pool.compare_exchange_strong(pool, fresh, std::memory_order_acq_rel)) return *fresh;
  delete fresh;
  return *pool;
}

void work(Worker* self) {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "quadgate");
#endif
  int spin_us = kIdleSpinUs;
  for (uint32_t job = 0;;) {
    job = self->go.wait_while(job, spin_us);
    spin_us = self->spin_us;  // not later: once the job is done, the next caller may write here
    part = {self->first, true};
    look_where_we_are();
    try {
      const FloatEnvironment ours;
      self->fn(self->ctx, self->rank);
    } catch (...) {
      self->error = std::current_exception();
    }
    part = {};
    self->done.set(job);
  }
}

// Null if the system refuses.
Worker* start_worker() {
  Worker* worker = new (std::nothrow) Worker;
  if (worker == nullptr) return nullptr;
#if !defined(_WIN32)
  // Signals for the process (Ctrl-C) belong to the program's own threads; only a worker's own faults reach it.
  sigset_t blocked, before;
  sigfillset(&blocked);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) sigdelset(&blocked, fault);
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
#endif
  try {
    std::thread(work, worker).detach();
  } catch (...) {  // std::system_error: no more threads for this process
    delete worker;
    worker = nullptr;
  }
#if !defined(_WIN32)
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
#endif
  return worker;
}

}  // namespace

void set_num_threads(int n) {
  if (n < 1) throw std::invalid_argument("the number of threads must be at least 1, not " + std::to_string(n));
  thread_limit.store(n, std::memory_order_relaxed);
}

int get_num_threads() {
  int n = thread_limit.load(std::memory_order_relaxed);
  return n != 0 ? n : available_cpus();
}

void Lease::take(int wanted) {
  int limit = get_num_threads(), more = std::min(wanted, limit) - 1;
  if (more <= 0) return;
  Pool& pool = the_pool();
  Worker** tail = &workers_;
  {
    std::lock_guard<std::mutex> hold(pool.lock);
    more = std::min(more, limit - 1 - pool.lent);
    if (more <= 0) return;
    pool_ = &pool;
    pool.lent += more;
    for (; more > 0 && pool.idle != nullptr; --more, ++size_) {
      *tail = pool.idle;
      tail = &pool.idle->next;
      pool.idle = *tail;
    }
    *tail = nullptr;
  }
  for (; more > 0; --more, ++size_) {
    Worker* fresh = start_worker();
    if (fresh == nullptr) break;
    *tail = fresh;
    tail = &fresh->next;
  }
  if (more > 0) {
    std::lock_guard<std::mutex> hold(pool.lock);
    pool.lent -= more;
  }
}

Lease::Lease(Lease&& other) noexcept : pool_(other.pool_), workers_(other.workers_), size_(other.size_) {
  other.pool_ = nullptr;
  other.workers_ = nullptr;
  other.size_ = 1;
}

void Lease::give_back() {
  if (pool_ != current_pool.load(std::memory_order_relaxed)) return;
  Worker* last = workers_;
  while (last->next != nullptr) last = last->next;
  std::lock_guard<std::mutex> hold(pool_->lock);
  last->next = pool_->idle;
  pool_->idle = workers_;
  pool_->lent -= size_ - 1;
}

void Lease::run(void (*fn)(void* ctx, int rank), void* ctx) {
  if (workers_ != nullptr && pool_ != current_pool.load(std::memory_order_relaxed))
    throw std::runtime_error("the process was forked in the middle of a call of several threads");
  Part outer = part;  // of the job that this call is made from, if any
  part = {workers_, false};
  if (workers_ != nullptr) look_where_we_are();
  int rank = 0;
  for (Worker* w = workers_; w != nullptr; w = w->next) {
    w->fn = fn;
    w->ctx = ctx;
    w->rank = ++rank;
    w->first = workers_;
    w->spin_us = spin_for(size_, kIdleSpinUs);
    w->go.set(w->go.load() + 2);
  }
  std::exception_ptr error;
  try {
    fn(ctx, 0);
  } catch (...) {
    error = std::current_exception();
  }
  for (Worker* w = workers_; w != nullptr; w = w->next) {
    w->done.wait_while(w->go.load() - 2, spin_for(size_, kJoinSpinUs));
    if (w->error == nullptr) continue;
    if (error == nullptr) error = w->error;
    w->error = nullptr;
  }
  part = outer;
  if (error != nullptr) std::rethrow_exception(error);
}

void WaitWord::set(uint32_t value) {
  // Once the new value is out, a waiter may go on and end the word's life: only its address is used then.
  if (word_.exchange(value, std::memory_order_acq_rel) & kSleeps) wake_all(&word_);
}

uint32_t WaitWord::wait_while(uint32_t old, int spin_us) {
  using Clock = std::chrono::steady_clock;
  constexpr int kLooks = 32;  // between looks at the clock
  if (spin_us > 0) {
    Clock::time_point deadline{};
    do {
      for (int i = 0; i < kLooks; ++i) {
        uint32_t value = load();
        if (value != old) return value;
        pause();
      }
      if (deadline == Clock::time_point{}) deadline = Clock::now() + std::chrono::microseconds(spin_us);
    } while (Clock::now() < deadline);
  }
  for (;;) {
    uint32_t value = old;
    if (!word_.compare_exchange_strong(value, old | kSleeps, std::memory_order_acq_rel, std::memory_order_acquire) &&
        value != (old | kSleeps))
      return value & ~kSleeps;
    sleep_while(word_, old | kSleeps);
    look_where_we_are();
  }
}

Barrier::Barrier(int n) : n_(uint32_t(n)), spin_us_(spin_for(n, kBarrierSpinUs)) {}

bool Barrier::wait(bool stop) {
  uint32_t round = release_.load();  // cannot change before this thread has arrived
  uint32_t mine = stop ? 0x10001 : 1, here = arrived_.fetch_add(mine, std::memory_order_acq_rel) + mine;
  if ((here & 0xffff) != n_) return release_.wait_while(round, spin_us_) & kStop;
  bool verdict = (round & kStop) != 0 || (here >> 16) != 0;
  arrived_.store(0, std::memory_order_relaxed);
  release_.set((round & ~kStop) + kRound + (verdict ? kStop : 0));
  return verdict;
}

}  // namespace quadgate
