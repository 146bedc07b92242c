#include "parallel/pool.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#include "cpu/available_cpus.h"
#include "cpu/float_env.h"
#include "parallel/fork.h"
#include "parallel/job_part.h"
#include "parallel/pace.h"
#include "parallel/sharing.h"
#include "parallel/turns.h"
#include "parallel/wait_word.h"

#if !defined(_WIN32)
#include <pthread.h>
#include <signal.h>
#endif

namespace quadgate {

// Never freed. A worker's job is written before its state becomes kPosted, and read by the worker while it is kRunning;
// `error` is written before kIdle.
struct Worker {
  alignas(64) WaitWord state{kIdle};
  void (*fn)(void*, int) = nullptr;
  void* ctx = nullptr;
  int rank = 0;
  int spin_us = 0;                      // how to wait for the job after this one
  std::atomic<int64_t> handed_out{0};   // when it was posted; read, too, by a worker whose job was taken back
  std::atomic<Worker*> first{nullptr};  // rank 1 of this job; the same
  std::atomic<int> caller_cpu{-1};      // in rank 1's: where rank 0 was last seen
  Worker* next = nullptr;
  std::exception_ptr error;
  Board boards[2];
};

struct Pool {
  std::mutex lock;
  Worker* idle = nullptr;  // last used first: its data may still be in cache
  int lent = 0;            // workers in leases
};

namespace {

constexpr int64_t kShortestWake = 1000;  // ns
constexpr int kJoinSpinUs = 50;          // a worker ends its job as soon as the last phase is over

std::atomic<int> thread_limit{0};  // 0: not asked for yet
std::atomic<Pool*> current_pool{nullptr};

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
  if (!registered.load(std::memory_order_acquire)) {  // a second time changes nothing
    pthread_atfork(nullptr, nullptr, in_forked_child);
    registered.store(true, std::memory_order_release);
  }
#endif
  Pool* made = new Pool;
  if (current_pool.compare_exchange_strong(pool, made, std::memory_order_acq_rel)) return *made;
  delete made;
  return *pool;
}

uint32_t state_of(uint32_t value) { return value & 6; }
uint32_t job_of(uint32_t value) { return value & ~7u; }

void work(Worker* self) {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "quadgate");
#endif
  Turns turns;
  int spin_us = kIdleSpinUs;
  bool slept = true;  // since the job before
  for (;;) {
    const uint32_t value = self->state.load(), job = job_of(value);
    if (state_of(value) != kPosted) {
      if (self->state.spin_while(value, spin_us) != value) continue;
      self->state.sleep_while(value);
      slept = true;
      // The first worker's alone: the caller wakes one after the other. Shorter ones are of jobs that came before
      // sleep.
      const int64_t wake = turn_clock() - self->handed_out.load(std::memory_order_relaxed);
      if (wake >= kShortestWake && self->first.load(std::memory_order_relaxed) == self) note_wake(wake);
      continue;
    }
    if (!self->state.change(value, job | kRunning)) continue;
    spin_us = self->spin_us;
    take_part({&self->first.load(std::memory_order_relaxed)->caller_cpu, &self->state, job, &turns});
    const int64_t posted = self->handed_out.load(std::memory_order_relaxed), begun = turns.begin(posted);
    if (!slept && self->first.load(std::memory_order_relaxed) == self) note_handover(posted, begun);
    slept = false;
    check_cpu();
    bool ended = false;
    try {
      const FloatEnvironment ours;
      self->fn(self->ctx, self->rank);
    } catch (const JobEnded&) {
      ended = true;
    } catch (...) {
      self->error = std::current_exception();
    }
    take_part({});
    if (!ended) self->state.set(job | kIdle);  // from here on the caller may be gone, and the next one write
    turns.end();
  }
}

// Takes back a job that has not begun, or whose worker is away; otherwise waits for its end.
void end_job(Worker& worker, int spin_us) {
  for (;;) {
    const uint32_t value = worker.state.load();
    switch (state_of(value)) {
      case kIdle:
        return;
      case kRunning:
        worker.state.wait_while(value, spin_us);
        break;
      default:
        if (worker.state.change(value, job_of(value) | kIdle)) return;
    }
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
    Worker* worker = start_worker();
    if (worker == nullptr) break;
    *tail = worker;
    tail = &worker->next;
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

Board& Lease::board(int rank, int which) const {
  Worker* worker = workers_;
  while (--rank > 0) worker = worker->next;
  return worker->boards[which];
}

void Lease::run(void (*fn)(void* ctx, int rank), void* ctx) {
  if (workers_ != nullptr && pool_ != current_pool.load(std::memory_order_relaxed)) throw ForkedInCall();
  // The outer part is that of the job that this call is made from, if any.
  const JobPart outer = take_part({workers_ != nullptr ? &workers_->caller_cpu : nullptr, nullptr, 0, nullptr});
  if (workers_ != nullptr) check_cpu();
  const int64_t now = workers_ != nullptr ? turn_clock() : 0;
  int rank = 0;
  for (Worker* w = workers_; w != nullptr; w = w->next) {
    w->fn = fn;
    w->ctx = ctx;
    w->rank = ++rank;
    w->first.store(workers_, std::memory_order_relaxed);
    w->spin_us = spin_for(size_, kIdleSpinUs);
    w->handed_out.store(now, std::memory_order_relaxed);
    w->state.set((job_of(w->state.load()) + 8) | kPosted);
  }
  std::exception_ptr error;
  try {
    fn(ctx, 0);
  } catch (...) {
    error = std::current_exception();
  }
  const bool forked = workers_ != nullptr && pool_ != current_pool.load(std::memory_order_relaxed);
  for (Worker* w = forked ? nullptr : workers_; w != nullptr; w = w->next) {
    end_job(*w, spin_for(size_, kJoinSpinUs));
    if (w->error == nullptr) continue;
    if (error == nullptr) error = w->error;
    w->error = nullptr;
  }
  take_part(outer);
  if (forked) throw ForkedInCall();
  if (error != nullptr) std::rethrow_exception(error);
}

}  // namespace quadgate
