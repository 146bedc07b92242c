// The int8 products for AVX-512 with VNNI; CMakeLists.txt gives the compiler flags.
#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) || \
    !defined(__AVX512VNNI__)
#error "the compiler flags of this file are missing"
#endif
#define QG_ISA avx512_vnni
#define QG_ISA_AVX512
#include "kernels/int8_product.h"

namespace quadgate {
namespace QG_ISA {

extern const CompactFunctions int8;
const CompactFunctions int8 = kInt8;

}  // namespace QG_ISA
}  // namespace quadgate
