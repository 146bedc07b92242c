// What the vector types of all instruction sets start from: headers, QG_INLINE, and the template Vec.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(QG_ISA_AVX512) || defined(QG_ISA_AVX2)
#if defined(__GNUC__) && !defined(__clang__)  // before 13, gcc takes its own _mm512_undefined_*() for a mistake
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#elif defined(QG_ISA_NEON)
#include <arm_neon.h>
#else
#include <emmintrin.h>
#endif

#define QG_INLINE inline __attribute__((always_inline))

namespace quadgate {
namespace QG_ISA {

template <class Real>
struct Vec;

}  // namespace QG_ISA
}  // namespace quadgate
