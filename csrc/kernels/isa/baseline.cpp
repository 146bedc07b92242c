// The kernels for any x86-64 machine; CMakeLists.txt gives the compiler flags.
#define QG_ISA baseline
#define QG_ISA_NAME "baseline"
#define QG_ISA_BASELINE
#include "kernels/instruction_set.h"
