// Register tiles of a size known at compile time, from sizes known at run time.
#pragma once

#include "kernels/vec/vec.h"

namespace quadgate {
namespace QG_ISA {

template <int N>
struct Int {
  static constexpr int value = N;
};

// Calls f(Int<n>) for a run-time n in 1..Max.
template <int Max, class F>
QG_INLINE void with_constant(int n, F&& f) {
  if constexpr (Max > 1) {
    if (n < Max) return with_constant<Max - 1>(n, f);
  }
  f(Int<Max>{});
}

}  // namespace QG_ISA
}  // namespace quadgate
