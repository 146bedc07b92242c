#include "parallel/sharing.h"

#include <algorithm>

#include "parallel/job_part.h"

namespace quadgate {
namespace {

constexpr uint64_t kBusy = uint64_t(1) << 31;

uint64_t packed(uint32_t phase, size_t items, bool busy) {
  return uint64_t(phase) << 32 | (busy ? kBusy : 0) | uint64_t(items);
}

// Of what is left of a lane a thread takes the whole, a half or a quarter at once.
size_t divisor(Taking taking) { return taking == Taking::evenly ? 4 : taking == Taking::halves ? 2 : 1; }

bool ordered(Taking taking) { return taking == Taking::in_order || taking == Taking::evenly; }

}  // namespace

Sharing::LaneState Sharing::state_of(size_t lane, uint32_t phase, size_t count) const {
  const uint64_t value = lanes_[lane].taken.load(std::memory_order_acquire);
  const int32_t ahead = int32_t(uint32_t(value >> 32) - phase);
  if (ahead != 0) return {ahead < 0 ? count : 0, false};
  return {count - std::min(count, size_t(value & (kBusy - 1))), (value & kBusy) != 0};
}

Sharing::Taken Sharing::take(size_t lane, uint32_t phase, size_t count, Taking taking, bool one) {
  std::atomic<uint64_t>& taken = lanes_[lane].taken;
  uint64_t value = taken.load(std::memory_order_acquire);
  for (;;) {
    const int32_t ahead = int32_t(uint32_t(value >> 32) - phase);
    if (ahead > 0) return {0, 0};  // that phase is over
    const size_t begin = ahead < 0 ? 0 : size_t(value & (kBusy - 1));
    if (begin >= count || (ahead == 0 && (value & kBusy))) return {0, 0};
    const size_t left = count - begin, n = one ? 1 : std::min(kMost, std::max<size_t>(1, left / divisor(taking)));
    const size_t end = begin + n;
    if (taken.compare_exchange_weak(value, packed(phase, end, ordered(taking)), std::memory_order_acq_rel,
                                    std::memory_order_acquire))
      return {begin, end};
  }
}

void Sharing::finish(const Progress& me, size_t lane, const Taken& taken, Taking taking, bool shared) {
  if (ordered(taking)) lanes_[lane].taken.store(packed(me.phase, taken.end, false), std::memory_order_release);
  const uint64_t n = taken.end - taken.begin;
  if (board_.done.fetch_add(n, std::memory_order_acq_rel) + n == me.target) board_.news.advance();
  Turns* turns = job_part().turns;
  if (turns == nullptr) return;
  turns->worked(shared);
  if (!shared || !turns->due()) return;
  board_.news.advance();  // for those who could do what this thread would have done next
  leave_job();
  turns->give_way();
  return_to_job();
}

void Sharing::wait(uint32_t news) {
  Board& board = board_;  // *this may be gone while this thread is
  if (board.news.spin_while(news, spin_us_) != news) return;
  leave_job();
  board.news.sleep_while(news);
  return_to_job();
  if (Turns* turns = job_part().turns) turns->resume();
}

void Sharing::stop() {
  board_.stopped.store(true, std::memory_order_relaxed);
  board_.news.advance();
}

}  // namespace quadgate
