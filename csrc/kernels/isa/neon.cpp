// The kernels for 64-bit ARM; CMakeLists.txt gives the compiler flags.
#define QG_ISA neon
#define QG_ISA_NAME "neon"
#define QG_ISA_NEON
#include "kernels/instruction_set.h"
