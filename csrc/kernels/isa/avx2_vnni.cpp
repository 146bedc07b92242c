// The int8 products for AVX2 with AVX-VNNI; CMakeLists.txt gives the compiler flags.
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__AVXVNNI__)
#error "the compiler flags of this file are missing"
#endif
#define QG_ISA avx2_vnni
#define QG_ISA_AVX2
#include "kernels/int8_product.h"

namespace quadgate {
namespace QG_ISA {

extern const CompactFunctions int8;
const CompactFunctions int8 = kInt8;

}  // namespace QG_ISA
}  // namespace quadgate
