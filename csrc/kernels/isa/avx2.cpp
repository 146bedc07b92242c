// The kernels for AVX2 with FMA and F16C; CMakeLists.txt gives the compiler flags.
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile this file with -mavx2 -mfma -mf16c"
#endif
#define QG_ISA avx2
#define QG_ISA_NAME "avx2"
#define QG_ISA_AVX2
#include "kernels/instruction_set.h"
