// The int8 products for 64-bit ARM with dot products; CMakeLists.txt gives the compiler flags.
#if !defined(__ARM_FEATURE_DOTPROD)
#error "the compiler flags of this file are missing"
#endif
#define QG_ISA neon_dotprod
#define QG_ISA_NEON
#include "kernels/int8_product.h"

namespace quadgate {
namespace QG_ISA {

extern const CompactFunctions int8;
const CompactFunctions int8 = kInt8;

}  // namespace QG_ISA
}  // namespace quadgate
