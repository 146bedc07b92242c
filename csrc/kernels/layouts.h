// The layouts that kernels read and write, and the order in which they sum.
//
// Words: W is the vector width of the table, H the hidden size, I the input size of the layer, R the columns of h: H,
// or fewer behind a projection, G the gates of the cell. A block is W consecutive hidden units; the last block of H may
// be partial, its missing lanes are zero in packed weights and are never read from or written to the caller's arrays.
// n_blocks = ceil(H / W).
//
// Packed forward weights ("panels"):   [n_blocks][k][G][W]    the gates side by side for each k; i, f, g, o of an LSTM
// Packed bias:                          [n_blocks][G][W]
// A matrix without gates (G = 1: Elman's, a projection, a highway's gate) has kRowBlocks blocks of its rows side by
// side instead: [ceil(rows / (kRowBlocks W))][k][kRowBlocks][W], so that results lie in the order of the rows. A line
// is what one k of one panel takes: G * row_blocks(G) vectors. The last panel of a float matrix with gates may be
// narrow: where at most half of its lanes would be filled, a line has half the vectors, and gates begin at half
// vectors. So do its bias and its sums of a product ahead, behind which there is the room of a whole panel's.
// Some tables (kHalfLines) have panels of kLineVectors in halves of lines, [2][k][2][W] for each block: the weights of
// half a line stay in registers for twice as many rows. Bias, sums, gradients and narrow panels have whole lines. Their
// back panels of kLineVectors blocks are [2][k][2][W], too.
// Packed backward weights ("back panels"): the blocks of output columns in the fewest groups of at most kGroupBlocks,
// as even as can be, the larger groups first; for each group [k = G rows][nv][W], k running over the rows of each of
// the G gates, nv being the group's number of blocks.
//
// Gates of a row of the tape: [n_blocks][G][W], the last block with as many units as H leaves it instead of W. What a
// cell writes or reads at a time is whole cache lines then, in one page.
//
// Order of summation, the same for every tile shape, so that results do not depend on batch size or threads:
//   forward      ((bias + sum over I, in order) + sum over R, in order), one chain
//   backward     a chain for each gate, added as ((i + f) + g) + o
//   weights      one chain over the rows, in order, that begins with zero or the value already there (GradientStart)
#pragma once

#include <stddef.h>

#include "kernels/vec/inline.h"

namespace quadgate {

constexpr int kRowBlocks = 4;    // of a matrix without gates, in a panel
constexpr int kGroupBlocks = 4;  // blocks in a group of back panels, at most

// Rows that a product with back panels takes per pass, so that one gate's share of the panel stays in L2. Their sums
// are kChunkRows * kGroupBlocks vectors, too much for the stack of a small thread.
constexpr size_t kChunkRows = 96;

// Internal linkage: an instruction set's copy must never serve the others.
static constexpr int row_blocks(int n_gates) { return n_gates == 1 ? kRowBlocks : 1; }

// Vectors in a line of the panels of an LSTM and of a matrix without gates. Costs are estimated with it; kernels take
// the number from the cell or from their arguments.
constexpr int kLineVectors = 4;

// The fewest vectors in a line of the last panel of x or h, in a product of gradients: of doubles, which few train
// with, all of them, and no code for fewer.
template <class Real>
static constexpr int least_vectors() {
  return sizeof(Real) == sizeof(float) ? 2 : kLineVectors;
}

// `total` things in the fewest parts of at most `largest`, as even as can be, the larger ones first. Register tiles of
// 5 and 5 rows run at full speed, of 6 and 4 nearly so, of 6 and 1 not.
struct Parts {
  size_t count, small, n_large;
  QG_INLINE Parts(size_t total, size_t largest)
      : count((total + largest - 1) / largest), small(count ? total / count : 0), n_large(count ? total % count : 0) {}
  QG_INLINE size_t begin(size_t part) const { return part * small + (part < n_large ? part : n_large); }
  QG_INLINE int size(size_t part) const { return int(small + (part < n_large)); }
};

// Bytes that each of n_tiles tiles of one panel, whose lines have line_bytes, prefetches for a k; all panels of the
// call have of_bytes. Defined in cpu/dispatch.cpp, which knows the machine: 0 where prefetches would cost time. A tile
// prefetches one line again and again then, which costs next to nothing.
//
// The tiles share the prefetch of the next panel evenly, so that a pass over weights that only L3 holds runs at the
// speed of the multiply-adds (measured at H = 1024: 0.66 of peak without, 0.76 if the first four tiles of eleven do it
// all).
size_t ahead_bytes(size_t line_bytes, size_t n_tiles, size_t of_bytes);

}  // namespace quadgate
