// The kernels for AVX-512 F, DQ, BW and VL; CMakeLists.txt gives the compiler flags.
#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512BW__) || !defined(__AVX512VL__)
#error "compile this file with -mavx512f -mavx512dq -mavx512bw -mavx512vl"
#endif
#define QG_ISA avx512
#define QG_ISA_NAME "avx512"
#define QG_ISA_AVX512
#include "kernels/instruction_set.h"
