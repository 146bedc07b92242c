// Turns on a CPU that a worker shares with another runnable thread: a spinning worker of another pool, or another
// process. The scheduler lets each run for some milliseconds. A worker that is put off its CPU in the middle of a piece
// of work holds up all that wait for the piece; one that knows the length of its turns gives way between pieces.
#pragma once

#include <cstdint>

namespace quadgate {

// True if a worker of this process lost its CPU to another thread a short time ago. Work is then handed out in small
// pieces.
bool cpus_are_shared();

// The clock of turns, in ns.
int64_t turn_clock();

// A worker's turns. Used by that worker alone.
class Turns {
 public:
  // A job begins that was handed out at that time. Returns the time now.
  int64_t begin(int64_t handed_out);
  // A piece of work, or a job, is done: learns how long it took, and whether the CPU was lost meanwhile. Without `look`
  // it does so only now and then.
  void worked(bool look);
  // True if a piece like the last could be cut off by the end of the turn.
  bool due() const;
  // Lets the other thread run.
  void give_way();
  // The worker has slept.
  void resume();
  void end() { worked(true); }

 private:
  void share(int64_t now);

  unsigned skipped_ = 0;
  int64_t job_ = 0;       // when this job began
  int64_t last_ = 0;      // when the last piece ended
  int64_t piece_ = 0;     // time that it took, without the time off the CPU
  int64_t turn_ = 0;      // when this turn began, at the latest
  int64_t length_ = 0;    // of turns; 0: not known
  int64_t cpu_ = -1;      // CPU time of this thread when last looked at
  int64_t cpu_seen_ = 0;  // and when that was
};

}  // namespace quadgate
