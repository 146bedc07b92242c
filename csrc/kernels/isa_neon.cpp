// The kernels for 64-bit ARM; CMakeLists.txt gives the compiler flags.
#define FG_ISA neon
#define FG_ISA_NAME "neon"
#define FG_ISA_NEON
#include "kernels.inl"
