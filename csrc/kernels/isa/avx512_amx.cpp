// The int8 products in the tiles of AMX, beside AVX-512 with VNNI; CMakeLists.txt gives the compiler flags.
#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) || \
    !defined(__AVX512VNNI__) || !(defined(__AMX_INT8__) || defined(__AMXINT8__))
#error "the compiler flags of this file are missing"
#endif
#define QG_ISA avx512_amx
#define QG_ISA_AVX512
#include "kernels/tile_step.h"

namespace quadgate {
namespace QG_ISA {

extern const CompactFunctions int8;
const CompactFunctions int8 = in_pairs(
    {tile_product, quantize_rows_for_tiles, nullptr, begin_tiles, end_tiles, kInt8Rate, 4 * kInt8Rate, tile_step});

}  // namespace QG_ISA
}  // namespace quadgate
