// The float16 products for AVX2 with F16C; CMakeLists.txt gives the compiler flags.
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "the compiler flags of this file are missing"
#endif
#define QG_ISA avx2_f16c
#define QG_ISA_AVX2
#include "kernels/compact_product.h"

namespace quadgate {
namespace QG_ISA {

extern const CompactFunctions float16;
const CompactFunctions float16 = {float_product<Float16>, nullptr, widen<Float16>, nullptr, nullptr, 1, 1};

}  // namespace QG_ISA
}  // namespace quadgate
