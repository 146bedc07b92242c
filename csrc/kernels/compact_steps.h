// The arguments of the kernels that read compact weights (kernels/weights/storage.h), for float32 networks.
//
// Panels of a compact type have the order of kernels/layouts.h, but
//   bfloat16   the elements of vectors 2 j and 2 j + 1 of a line alternate: [n_blocks][k][V / 2][W][2]
//   int8       four k side by side, the last ones zero, and 16 such groups of a vector as one tile of AMX; groups that
//              are left over have the order of lines: [n_blocks]{[k / 64][V][16][W][4], [ceil(k % 64 / 4)][V][W][4]}
//
// Int8: a row of the product is quantised, too, to 8 bits with one scale and one zero point. With q the weights,
// integers from -127 to 127, z the row, integers from 0 to 255 of which z0 stands for 0, and s and t their scales, a
// line becomes
//   line + (t s) float(sum over k of (z - z0) q)
// in two roundings and that of float(), which is exact below 2^24. The sum itself is exact, so that its order and the
// instructions do not matter.
#pragma once

#include "kernels/steps.h"
#include "kernels/weights/storage.h"

namespace quadgate {

// A matrix in panels.
struct CompactMatrix {
  const void* panels;
  size_t panel_bytes;   // of one panel
  const float* scales;  // (n_blocks,V,W) of int8: of each row of the matrix
  const int32_t* sums;  // (n_blocks,V,W) of int8: the sum of a row's elements
  size_t n_k;
};

// lines = from + rows @ panels.
struct CompactProduct {
  const void* panels;  // of n_panels neighbouring panels
  const void* next;    // the panel that is read next
  size_t panel_bytes;
  const float* scales;  // as in CompactMatrix, from the first panel on
  const int32_t* sums;
  size_t n_k;
  const void* const* rows;  // n_rows pointers to (n_k): float, or the bytes of quantize_rows, which are
                            // compact_row_bytes(n_k) apart and can be read for a whole number of kTileRows rows
  const float* row_scales;  // (n_rows); of int8
  const int32_t* row_zeros;
  const float* from;  // (n_rows, n_panels, V, W); rows are from_stride elements apart. May be `lines`
  float* lines;       // (n_rows, n_panels, V, W) out; rows are row_stride elements apart
  size_t from_stride, row_stride;
  size_t n_rows, n_panels;  // n_panels may be 2 where n_rows is 1 to CompactFunctions::pair_rows
  int n_vectors;            // V
  size_t of_bytes;          // of all panels that the step reads
  bool far;                 // these are CompactFunctions::far_bytes or more
  float* wide;              // work: kWideK lines, where n_rows is more than 1
};

// Bytes of a step's weights of 16 bits from which on one row prefetches them. From L3 they come as fast without, but so
// many often come from memory.
constexpr size_t kFarBytes = size_t(12) << 20;
// k's that are widened at a time, for the tiles of a group of rows.
constexpr size_t kWideK = 64;
// Rows of a tile of AMX, and rows and columns from which on a product may use it, between `begin` and `end`.
constexpr size_t kTileRows = 16, kFewestTileRows = 4, kFewestTileK = 61;
// Rows from which on a tile has the rate of CompactFunctions::tile_rate: of fewer it takes no less time.
constexpr size_t kFastTileRows = 6;
// Columns up to which a product may: 22 bits hold the sum of so many weights.
constexpr size_t kMostTileK = (size_t(1) << 22) / 128;
// Panels, with up to two blocks of rows each, whose sums of two products a step keeps at a time.
constexpr size_t kMostUnits = 8;
// Columns of int8 up to which a row's integers may take all of 0 to 255, since 32 bits hold the sum of so many products
// of 255 and 127. Those of a longer row are within 127 of the zero point, as the weights are of 0.
constexpr size_t kFullRangeK = size_t(1) << 16;
// The largest CompactFunctions::pair_rows.
constexpr size_t kMostPairRows = 3;
// Rows whose lines are kept in L1 and L2 until all of k is done.
constexpr size_t kGroupRows = 96;

// Rows of a product after quantize_rows, one behind the other.
struct QuantizedRows {
  const unsigned char* bytes;
  const float* scales;
  const int32_t* zeros;
};

// One step of the plain LSTM cell, for panels [block_begin, block_end).
struct CompactStep {
  const ForwardStep<float>* step;
  const CompactMatrix* matrices;  // of x, which is not read where `pre` is used, and of h
  const QuantizedRows* rows;      // the same
  size_t pre_stride;              // from a row's `pre` to the next
  float* work;                    // sum_lines(step->n_rows) lines
  bool descending;
};

// The functions of one compact type; of some types a machine has better ones than its instruction set's.
struct CompactFunctions {
  void (*product)(const CompactProduct&);
  // n floats of each row to n bytes (and more, up to compact_row_bytes(n), which is what they are apart), their scale,
  // which is NaN if one is not finite, and the number in place of 0. Bytes may be signed, then both are less by 128,
  // and may lie as sizes with signs behind them (kernels/weights/int8.h). `rows` point to floats, then to the bytes.
  // Null: rows are not quantised.
  void (*quantize_rows)(const void** rows, size_t n_rows, size_t n, unsigned char* bytes, float* scales,
                        int32_t* zeros);
  // Panels of n_k columns in float, for the kernels that read those; the last one may become a narrow one, behind which
  // half a vector is written, too. Null where there is no such thing.
  void (*widen)(const void* from, size_t n_panels, size_t n_k, int n_vectors, bool narrow_last, float* to);
  // Before products of a group of so many rows, kFewestTileRows or more, and after them: between these calls a thread
  // holds state that is costly to save. Null where there is none.
  void (*begin)(size_t n_rows);
  void (*end)();
  // Multiply-adds in the time of one of float, of few rows, and of rows in tiles at their best: without widening;
  // estimates.
  double rate, tile_rate;
  // A step with kMostTileK columns of h at most, for which tiles_pay, between `begin` and `end`. The panels
  // of h lie behind those of x, so that x's last one may be read past where it is less than a tile. Null where nothing
  // is better than `product` and the cell in turn.
  void (*step)(const CompactStep&);
  // Rows of the largest tile of whole lines that keeps each row's element in a register; 0 for int8.
  size_t few_rows = 0;
  // Rows up to which widening weights takes no longer than reading floats from L2.
  size_t cheap_rows = 0;
  // Bytes of a step's weights from which on one row of 16 bits prefetches them, and tiles of int8 do, too.
  size_t far_bytes = kFarBytes;
  // Rows up to which `product` takes two panels.
  size_t pair_rows = 1;
};

// Internal linkage: an instruction set's copy must never serve the others.
static constexpr bool tiles_pay(size_t n_rows, size_t n_k) {
  return n_rows >= kFewestTileRows && n_k >= kFewestTileK && n_rows * n_k >= kFastTileRows * kFewestTileK;
}

// Lines of memory for the sums that a step keeps, or the weights that a product widens.
static constexpr size_t sum_lines(size_t n_rows) {
  const size_t sums = 2 * kMostUnits * (n_rows < 2 * kTileRows ? n_rows : 2 * kTileRows);
  return sums < kWideK ? kWideK : sums;
}

static constexpr size_t compact_round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

// From a quantised row to the next: there may be two parts, and up to 64 bytes behind them.
static constexpr size_t compact_row_bytes(size_t n_k) { return 2 * compact_round_up(n_k) + 64; }

// Bytes of the memory, aligned to 64 bytes, that a call needs for itself.
static constexpr size_t compact_work_bytes(size_t n_rows, size_t largest_k, size_t width) {
  const size_t line = kLineVectors * width * sizeof(float), group = n_rows < kGroupRows ? n_rows : kGroupRows;
  const size_t readable = (n_rows + kTileRows - 1) / kTileRows * kTileRows;
  return 2 * compact_round_up(n_rows * sizeof(void*)) + 4 * compact_round_up(n_rows * sizeof(float)) +
         2 * readable * compact_row_bytes(largest_k) + (group + kMostPairRows) * line +
         (n_rows > 1 ? sum_lines(n_rows) : 0) * line;
}

// A step of the forward pass, as `forward` takes it, but with these weights in the place of the step's. The `pre` of
// its rows are equally far apart.
struct CompactForward {
  const ForwardStep<float>* step;
  CompactMatrix ih, hh;
  CompactFunctions functions;
  char* work;
};

// The product of many rows, as `project` takes it.
struct CompactProject {
  const Project<float>* step;
  CompactMatrix matrix;
  CompactFunctions functions;
  char* work;
};

struct CompactKernels {
  void (*forward)(const CompactForward&);
  void (*project)(const CompactProject&);
  CompactFunctions of_type[kWeightTypes];  // by WeightType; that of `real` is empty
};

}  // namespace quadgate
