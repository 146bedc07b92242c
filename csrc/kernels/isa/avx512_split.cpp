// The products of few rows with float16 weights for machines with AVX-512 that work on 64 bytes in two halves, as AMD's
// Zen 4: there widening 64 bytes takes longer than widening their halves. CMakeLists.txt gives the compiler flags.
//
// The panels are those of AVX-512, whose lines are twice as many vectors here; each sum is the same chain of
// multiply-adds.
#if !defined(__AVX512F__) || !defined(__AVX512VL__) || !defined(__F16C__)
#error "the compiler flags of this file are missing"
#endif
#define QG_ISA avx512_split
#define QG_ISA_AVX2
#include "kernels/compact_product.h"
#include "kernels/table.h"

namespace quadgate {

namespace avx512 {
extern const KernelTable table;
}

namespace QG_ISA {
namespace {

const CompactFunctions& whole() { return avx512::table.compact.of_type[int(WeightType::float16)]; }

// Rows up to which this file's way is the faster one: three take as long either way.
constexpr size_t kSplitRows = 2;
// few_rows of AVX-512's float16.
constexpr size_t kFewWholeRows = 6;

void product(const CompactProduct& s) {
  if (s.n_rows > kSplitRows || s.n_vectors != kLineVectors) return whole().product(s);
  constexpr int NV = 2 * kLineVectors;
  if (s.n_panels == 2) return near_tile<Float16, NV>(s);
  compact_tiles<Float16, NV>(s, static_cast<const Float16*>(s.panels), 0, s.n_k, static_cast<const Float16*>(s.next));
}

void widen_all(const void* from, size_t n_panels, size_t n_k, int n_vectors, bool narrow_last, float* to) {
  whole().widen(from, n_panels, n_k, n_vectors, narrow_last, to);
}

}  // namespace

extern const CompactFunctions float16;
const CompactFunctions float16 = {product, nullptr, widen_all, nullptr,       nullptr,
                                  1,       1,       nullptr,   kFewWholeRows, kSplitRows};

}  // namespace QG_ISA
}  // namespace quadgate
