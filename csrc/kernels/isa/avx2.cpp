// The kernels for AVX2 with FMA; CMakeLists.txt gives the compiler flags.
#if !defined(__AVX2__) || !defined(__FMA__)
#error "compile this file with -mavx2 -mfma"
#endif
#define QG_ISA avx2
#define QG_ISA_NAME "avx2"
#define QG_ISA_AVX2
#include "kernels/instruction_set.h"
