// Entry to and exit from a call of the core: the GIL, signals, the interpreter's end, the floating-point environment.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include "bind/object.h"
#include "cpu/float_env.h"
#include "parallel/cost.h"
#include "parallel/fork.h"
#include "rnn/team.h"

namespace quadgate {

inline bool finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing();
#else
  return _Py_IsFinalizing();
#endif
}

// During finalization CPython kills a thread that re-acquires the GIL by unwinding its stack. Our destructors cannot
// survive that, so such a thread sleeps until exit, whether finalization began before or during the wait.
[[noreturn]] inline void park_forever() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

template <class F>
auto acquiring_gil(F&& f) {
  if (finalizing()) park_forever();
#ifdef __GLIBCXX__
  try {
    return f();
  } catch (abi::__forced_unwind&) {
    park_forever();
  }
#else
  return f();
#endif
}

// Python's main thread, the only one that runs signal handlers; set at import.
inline unsigned long main_thread_at_import = 0;
inline bool in_main_thread() { return PyThread_get_thread_ident() == main_thread_at_import || came_through_fork(); }

// Runs Python's signal handlers; true leaves their exception set for the caller to raise.
inline bool run_signal_handlers() {
  return acquiring_gil([] {
    const PyGILState_STATE state = PyGILState_Ensure();
    const bool raised = PyErr_CheckSignals() != 0;
    FloatEnvironment::restore();  // whatever a handler has set
    PyGILState_Release(state);
    return raised;
  });
}

// Releases the GIL for calls of more than kReleaseGilFlops; below that the switch costs more than the call. Not while
// the interpreter ends: the thread that holds the GIL then is the one that ends it, and no other may take it.
class GilReleased {
 public:
  explicit GilReleased(double flops = 1e9)
      : finalizing_(finalizing()), state_(flops > kReleaseGilFlops && !finalizing_ ? PyEval_SaveThread() : nullptr) {}
  ~GilReleased() {
    if (state_) acquiring_gil([this] { PyEval_RestoreThread(state_); });
  }
  GilReleased(const GilReleased&) = delete;

  // The check for signals that the core calls now and then. Null while the interpreter ends, when signals are ignored,
  // and in a thread that runs no handlers, which would wait for the GIL for nothing.
  Control::Callback interrupted() const { return finalizing_ || !in_main_thread() ? nullptr : run_signal_handlers; }

 private:
  const bool finalizing_;
  PyThreadState* const state_;
};

// One call of the core. Made with the GIL held, after the last use of Python's objects.
class CoreCall {
 public:
  explicit CoreCall(double flops = 1e9) : gil_(flops) {}
  Control::Callback interrupted() const { return gil_.interrupted(); }

 private:
  const GilReleased gil_;
  const FloatEnvironment floats_;
};

inline void require_done(bool done) {
  if (!done) throw PythonError();
}

}  // namespace quadgate
