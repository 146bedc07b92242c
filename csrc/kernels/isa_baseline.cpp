// The kernels for any x86-64 machine; CMakeLists.txt gives the compiler flags.
#define FG_ISA baseline
#define FG_ISA_NAME "baseline"
#define FG_ISA_BASELINE
#include "kernels.inl"
