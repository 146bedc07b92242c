// The smallest test harness: CHECK counts and prints what is false, a program ends with `return check::result();`.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace check {

inline std::atomic<int> made{0}, failed{0};

inline bool that(bool ok, const char* what, const char* file, int line) {
  ++made;
  if (!ok && ++failed <= 20) std::fprintf(stderr, "%s:%d: not true: %s\n", file, line, what);
  return ok;
}

// Fewer under emulation or a sanitizer.
inline int rounds() {
  const char* wish = std::getenv("QUADGATE_TEST_ROUNDS");
  return wish != nullptr ? std::atoi(wish) : 100000;
}

inline int result() {
  std::printf("%d checks, %d failed\n", made.load(), failed.load());
  return made.load() > 0 && failed.load() == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK(condition) check::that(static_cast<bool>(condition), #condition, __FILE__, __LINE__)

// True if the expression throws an Exception.
#define CHECK_THROWS(expression, Exception)                                     \
  do {                                                                          \
    bool caught = false;                                                        \
    try {                                                                       \
      (void)(expression);                                                       \
    } catch (const Exception&) {                                                \
      caught = true;                                                            \
    }                                                                           \
    check::that(caught, #expression " throws " #Exception, __FILE__, __LINE__); \
  } while (false)
