// The table of plain functions that one instruction set exports, and the arguments they take.
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
// No function here allocates, throws, or knows of threads, time or Python. No pointer is kept after a call.
// Arrays must not overlap unless a comment says so.
//
// Order of summation, the same for every tile shape, so that results do not depend on batch size or threads:
//   forward      ((bias + sum over I, in order) + sum over R, in order), one chain
//   backward     a chain for each gate, added as ((i + f) + g) + o
//   weights      one chain over the rows, in order, continuing from the value that is already there
#pragma once

#include <stddef.h>

namespace quadgate {

// Named as in ONNX, which also says what alpha and beta are.
enum Function : int {
  kSigmoid,
  kTanh,
  kRelu,
  kHardSigmoid,
  kAffine,
  kLeakyRelu,
  kThresholdedRelu,
  kScaledTanh,
  kElu,
  kSoftsign,
  kSoftplus
};

template <class T>
struct Activation {
  int function;
  T alpha, beta;
};

// What a cell does that the plain one does not. Where a step has none, its cell is the plain one.
template <class T>
struct CellKind {
  Activation<T> gate, cell, output;  // Elman's cell uses the first
  T gate_clip, cell_clip;            // infinity where there is none
  T zoneout_h, zoneout_c;            // rates, for rows without masks
  bool coupled;                      // f = 1 - i
  bool elman;                        // h = f(a): no gates, no c
};

// One batch row at one step of a forward pass.
template <class T>
struct ForwardRow {
  const T* x;       // (I) input of this step; not read where `pre` is used
  const T* h;       // (R) h of the previous step, as the product takes it
  const T* pre;     // (P,4,W) bias + input products, from `project`; read only if ForwardStep::use_pre
  const T* c_prev;  // (H)
  T* c;             // (H) out; may be c_prev
  T* y;             // (H) out: h of this step; m where a projection follows
  T* y2;            // (H) out: the same once more; may be null
  T* gates;         // (4,H) out for the tape: activated i, f, g, o of a plain cell, the arguments of another's; may be
                    // null (for all rows or for none); unused by Elman's
};

// What a row has besides where zoneout or recurrent dropout act on h.
template <class T>
struct OutputExtra {
  const T* h_prev;              // (R) h of the previous step as it was given out; null: no zoneout of h
  const unsigned char* keep_h;  // (R) 1 where the previous h stays; null: by expectation
  const unsigned char* keep_c;  // (H) the same for c; not of a plain cell
  const T* h_mask;              // (R) multipliers of h on its way into the next step's product; may be null
  T* h_masked;                  // (R) out: the h for that; null with h_mask
};

// What the pointers of a ForwardRow move by from a step to the next, in elements; 0 for what is absent.
struct RowStrides {
  ptrdiff_t x, pre, y, y2, c, gates;
};

template <class T>
struct ForwardStep {
  const T* w_ih;  // (P,I,4,W)
  const T* w_hh;  // (P,R,4,W)
  const T* bias;  // (P,4,W)
  size_t input_size, hidden_size, recurrent_size;
  ForwardRow<T>* rows;  // written only by `advance`
  size_t n_rows;
  size_t block_begin, block_end;  // which blocks of hidden units to compute; all of them if n_more is not 0
  bool use_pre;
  bool descending;              // sweep the panels backwards: what the last sweep left in cache is used first; in turns
  bool large_tape;              // write `gates` past the caches, which could not hold them until they are read
  const CellKind<T>* kind;      // null: the plain cell
  const T* peephole;            // (3,H) for i, f, o; may be null
  const OutputExtra<T>* extra;  // (n_rows); may be null; null if n_more is not 0
  size_t n_more = 0;            // steps that follow at once, between which rows move on as by `advance`
  RowStrides next = {};         // for those
};

// The input product of many rows, ahead of the time loop; any other product with a packed matrix.
template <class T>
struct Project {
  const T* w_ih;  // (P,I,4,W)
  const T* bias;  // (P,4,W); null: zeros
  size_t input_size;
  const T* const* x;  // n_rows pointers to (I)
  T* pre;             // (n_rows,P,4,W) out
  size_t n_rows, n_blocks;
  size_t block_begin, block_end;
};

// h from what a projection gives: clip, zoneout, copies. Columns [begin, end) of R.
template <class T>
struct ProjectedRow {
  const T* z;  // (R) W_hr m
  T* y;        // (R) out: h
  T* y2;       // (R) out: the same once more; may be null
};

template <class T>
struct ProjectedStep {
  const ProjectedRow<T>* rows;
  size_t n_rows, begin, end;
  T clip, zoneout_h;
  const OutputExtra<T>* extra;  // (n_rows); may be null
};

// One batch row at one step of a backward pass.
template <class T>
struct BackwardRow {
  const T* dg_next;  // (G rows) gradient of the pre-activations of the following step; null where there is none
  const T* dh;       // (R) gradient of h that does not come through the next step's gates (final state); may be null
  const T* dy;       // (R) gradient of the output of this step; may be null
  const T* gates;    // (4,H) from the tape; h (H) for Elman's cell
  const T* c_prev;   // (H) from the tape
  const T* c;        // (H) from the tape
  T* dc;             // (H) in: gradient of c of this step; out: gradient of c of the previous step
  T* dg;             // (4H) out: gradient of the pre-activations
  T* dg_panel;  // (W lanes x 4 of block 0) out: the same in panel order, block p at p * panel_stride; whole vectors
};

template <class T>
struct BackwardExtra {
  const T* dcell;               // (H) gradient of c of this step as it was given out; may be null
  const unsigned char* keep_h;  // (R) as in OutputExtra; null: no zoneout of h
  const unsigned char* keep_c;  // (H) not of a plain cell
  const T* h_mask;              // (R) may be null
  T* carry;                     // (R) in and out: gradient of h that zoneout passes on; null without
  T* dh_total;                  // (R) out: gradient of h of this step; may be null
  T* dc_total;                  // (H) out: gradient of c of this step; may be null
  T* fresh;                     // (H) out: n, before zoneout; may be null
};

template <class T>
struct BackwardStep {
  const T* w_back;  // back panels of weight_hh (G rows, H), or of a projection (rows, H) that follows the cell
  size_t n_gates, n_rows_of_gate;
  size_t hidden_size;
  const BackwardRow<T>* rows;  // dg_next must be null for all rows or for none
  size_t n_rows;
  size_t group_begin, group_end;  // which groups of blocks
  size_t panel_stride;            // elements between blocks of dg_panel
  bool descending;
  const CellKind<T>* kind;
  const T* peephole;
  const BackwardExtra<T>* extra;  // (n_rows); may be null
};

// The gradient of z, of the rows that a ProjectedStep gave: dh + dy + what comes back, less what zoneout and clip stop.
template <class T>
struct ProjectedBackwardRow {
  const T* through;  // (R) gradient through the next step's gates; null where there is none
  const T *dh, *dy;  // (R) as in BackwardRow
  const T* h;        // (R) of this step, from the tape
  T* dz;             // (R) out
  T* dz_panel;       // as dg_panel, of a matrix without gates; may be null
};

template <class T>
struct ProjectedBackwardStep {
  const ProjectedBackwardRow<T>* rows;
  size_t n_rows, size, begin, end;  // columns [begin, end) of size = R; begin is a multiple of W
  size_t panel_stride;
  T clip;
  const BackwardExtra<T>* extra;  // (n_rows); may be null
};

// out = dg @ weight, for the gradient of the input or of the initial state.
template <class T>
struct BackProduct {
  const T* w_back;  // back panels of a (G rows, n_cols) weight
  size_t n_gates, n_rows_of_gate, n_cols;
  const T* const* dg;  // n_rows pointers to (G rows)
  T* const* out;       // n_rows pointers to (n_cols)
  size_t n_rows;
  size_t group_begin, group_end;
  bool add;  // out += rather than out =
};

// Weight gradient in packed form: dw[p][k] += sum over rows n of xh[n][k] * dg[p][n].
template <class T>
struct WeightGradient {
  const T* xh;  // (n_rows, K) with row stride xh_stride: x, h and a column of ones for the bias
  size_t xh_stride, n_k;
  const T* dg_panels;  // block p at p * panel_stride, then (n_rows,4,W)
  size_t panel_stride, n_rows;
  T* dw;             // (P, n_k, 4, W) in and out
  size_t dw_stride;  // elements between blocks of dw: more than n_k * 4 * W where it is part of a wider gradient
  size_t block_begin, block_end;
  size_t tile_begin, tile_end;  // which of the ceil(n_k / max_rows) tiles of columns k
};

// out[u] += sum over rows, in order, of a[u] * b[u], or of a[u] where b is null.
template <class T>
struct ColumnSums {
  const T* const* a;  // n_rows pointers to at least `end` elements
  const T* const* b;  // the same, or null
  T* out;
  size_t n_rows, begin, end;
};

}  // namespace quadgate

#include "norm.h"

namespace quadgate {

template <class T>
struct Kernels {
  size_t width;     // W
  size_t max_rows;  // rows of the largest register tile
  void (*forward)(const ForwardStep<T>&);
  // From a step to the next, where h is what the row gave out.
  void (*advance)(ForwardRow<T>* rows, size_t n_rows, const RowStrides&);
  void (*project)(const Project<T>&);
  void (*projected)(const ProjectedStep<T>&);
  void (*normalised)(const NormStep<T>&);
  void (*backward)(const BackwardStep<T>&);
  void (*back_product)(const BackProduct<T>&);
  void (*projected_backward)(const ProjectedBackwardStep<T>&);
  void (*normalised_backward)(const NormBackwardStep<T>&);
  void (*weight_gradient)(const WeightGradient<T>&);
  void (*column_sums)(const ColumnSums<T>&);
  void (*activate)(const Activation<T>&, const T* x, T* y, size_t n);  // y may be x
};

struct KernelTable {
  const char* name;  // "baseline", "avx2", "avx512", "neon"
  Kernels<float> f32;
  Kernels<double> f64;
};

}  // namespace quadgate
