// The layouts that kernels read and write, and the order in which they sum.
//
// Words: W is the vector width of the table, H the hidden size, I the input size of the layer, R the columns of h: H,
// or fewer behind a projection. A block is W consecutive hidden units; the last block of H may be partial, its missing
// lanes are zero in packed weights and are never read from or written to the caller's arrays. P = ceil(H / W) blocks.
//
// Packed forward weights ("panels"):   [P][k][4][W]    gates i, f, g, o side by side for each k
// Packed bias:                          [P][4][W]
// A matrix without gates (Elman's, a projection, a highway's gate) has four blocks of its rows side by side instead:
//   [ceil(rows / 4W)][k][4][W], so that what comes out lies in the order of the rows.
// Packed backward weights ("back panels"): the blocks of output columns in the fewest groups of at most 4, as even as
//   can be, the larger groups first; for each group [k = G rows][nv][W], k running over the rows of each of the G gates
//   (4, or 1 without gates), nv being the group's number of blocks.
//
// Order of summation, the same for every tile shape, so that results do not depend on batch size or threads:
//   forward      ((bias + sum over I, in order) + sum over R, in order), one chain
//   backward     a chain for each gate, added as ((i + f) + g) + o
//   weights      one chain over the rows, in order, continuing from the value that is already there
#pragma once
