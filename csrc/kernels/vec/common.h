// The start of every instruction set's vector types: the intrinsics' headers, QG_INLINE, and the template Vec.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/vec/inline.h"

#if defined(QG_ISA_AVX512) || defined(QG_ISA_AVX2)
#if defined(__GNUC__) && !defined(__clang__)  // before 13, gcc warns of its own _mm512_undefined_*()
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

namespace quadgate {
namespace QG_ISA {

template <class Real>
struct Vec;

// Each instruction set has ahead_from(panels, rows, vectors, element): of how many bytes on all panels of a call are so
// far away that a tile of so many panels, rows and vectors of so large elements prefetches the next one. kNever: of
// none.
constexpr size_t kNever = ~size_t(0);
// kCopyColumns<Real>: whether a weight gradient copies its columns (gradients.h). kHalfLines<Real>: whether panels lie
// in halves of lines (layouts.h), for tiles of twice as many rows.

}  // namespace QG_ISA
}  // namespace quadgate
