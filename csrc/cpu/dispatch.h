// The choice of an instruction set's kernels, made once per process from the CPU, the operating system and
// QUADGATE_ISA.
#pragma once

#include <vector>

#include "kernels/table.h"

namespace quadgate {

// The chosen table, the same for the whole process. The first call chooses: what QUADGATE_ISA names, or the best that
// the machine runs. Throws std::runtime_error, naming the valid values, while QUADGATE_ISA is unknown or unsupported
// here. Later calls cost one load. Safe from any thread and from static initialisers.
const KernelTable& kernels();

// Those of a type.
template <class Real>
const Kernels<Real>& kernels_for();
template <>
inline const Kernels<float>& kernels_for<float>() {
  return kernels().f32;
}
template <>
inline const Kernels<double>& kernels_for<double>() {
  return kernels().f64;
}

// The choice of `kernels` if QUADGATE_ISA were `forced`; null or "" means not set.
const KernelTable& choose_kernels(const char* forced);

// The table of that name; null if it is unknown or this machine cannot run it. Tables are valid until the process ends.
const KernelTable* kernel_table(const char* name);

// The products with weights of a compact type that this machine can run beside a table, best first; with `even_slower`
// those, too, that pay on other machines only. All give the same bits.
std::vector<CompactFunctions> compact_functions(const KernelTable& table, WeightType type, bool even_slower = false);

// Names of the tables that this machine can run, best first.
std::vector<const char*> supported_isas();

}  // namespace quadgate
