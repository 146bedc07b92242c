// The types in which weights may be stored: the arithmetic's own, or one of fewer bytes (compact).
//
// Independent of the instruction set, and without the standard library: kernels include it too.
#pragma once

#include <stdint.h>

namespace quadgate {

enum class WeightType : int { real, float16, bfloat16, int8 };
constexpr int kWeightTypes = 4;

// Structs, not plain integers, so that overloads find them.
struct Float16 {
  uint16_t bits;  // IEEE 754's binary16, finite
};
struct BFloat16 {
  uint16_t bits;  // the upper half of a float, finite
};
struct Int8 {
  int8_t value;  // from -127 to 127
};

// Elements of int8 that a product takes together: those of one lane of 32 bits.
constexpr int kInt8Group = 4;
// Such groups of one vector that lie side by side in a panel of int8 (kernels/compact_steps.h).
constexpr int kInt8Tile = 16;

}  // namespace quadgate
