// The arguments of the kernels. layouts.h has the words, the layouts and the order of summation.
//
// No function that takes them allocates, throws, or knows of threads, time or Python. No pointer is kept after a call.
// Arrays must not overlap unless a comment says so.
#pragma once

#include <stddef.h>

#include "cells/cells.h"
#include "kernels/layouts.h"

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

template <class Real>
struct Activation {
  int function;
  Real alpha, beta;
};

// Options of a cell. A step whose pointer to them is null has the plain LSTM cell.
template <class Real>
struct CellOptions {
  Activation<Real> gate, cell, output;  // Elman's cell uses the first
  Real gate_clip, cell_clip;            // infinity where there is none
  Real zoneout_h, zoneout_c;            // rates, for rows without masks
  bool coupled;                         // f = 1 - i
  CellType type;
};

// One batch row at one step of a forward pass.
template <class Real>
struct ForwardRow {
  const Real* x;       // (I) input of this step; not read where `pre` is used
  const Real* h;       // (R) h of the previous step, as the product takes it
  const Real* pre;     // (n_blocks,G,W) bias + input products, from `project`; read only if ForwardStep::use_pre
  const Real* c_prev;  // (H)
  Real* c;             // (H) out; may be c_prev
  Real* y;             // (H) out: h of this step; m where a projection follows
  Real* y_copy;        // (H) out: optional second copy of y; may be null
  Real* gates;  // (4H) out for the tape, see layouts.h: activated i, f, g, o of a plain cell, the gates' arguments of a
                // cell with options; null for all rows or for none; unused by a cell that tapes nothing
};

// Extra per-row pointers, present only with zoneout or recurrent dropout.
template <class Real>
struct OutputExtra {
  const Real* h_prev;           // (R) h of the previous step, before h_mask; null: no zoneout of h
  const unsigned char* keep_h;  // (R) 1 where the previous h stays; null: by expectation
  const unsigned char* keep_c;  // (H) the same for c; null with a plain cell
  const Real* h_mask;           // (R) multipliers of h for the next step's product; may be null
  Real* h_masked;               // (R) out: h times h_mask; null with h_mask
};

// Elements by which the pointers of a ForwardRow move from a step to the next; 0 for absent arrays.
struct RowStrides {
  ptrdiff_t x, pre, y, y_copy, c, gates;
};

// The part of a step that its cell reads.
template <class Real>
struct CellStep {
  size_t hidden_size;
  const CellOptions<Real>* options;  // null: the plain LSTM cell
  const Real* peephole;              // (3,H) for i, f, o; may be null
  const OutputExtra<Real>* extra;    // (n_rows); may be null; null if n_more is not 0
  bool large_tape;                   // write `gates` past the caches, which could not hold them until they are read
  bool far_x;                        // rows of x are to be prefetched, their beginnings, during the tile before theirs
  bool far_results;                  // c, y and y_copy, of an LSTM's rows, are to be prefetched before they are written
};

// Weights are of type Storage, see kernels/weights/.
template <class Real, class Storage = Real>
struct ForwardStep : CellStep<Real> {
  const Storage* w_ih;  // (n_blocks,I,G,W)
  const Storage* w_hh;  // (n_blocks,R,G,W)
  const Real* bias;     // (n_blocks,G,W)
  size_t input_size, recurrent_size;
  ForwardRow<Real>* rows;  // written only by `advance`
  size_t n_rows;
  size_t block_begin, block_end;  // which blocks of hidden units to compute; all of them if n_more is not 0
  bool use_pre;
  bool narrow_last;      // the last panel is narrow (layouts.h)
  bool descending;       // iterate the panels in reverse; callers alternate, so that panels still in cache come first
  size_t n_more = 0;     // steps that follow within the call, between which rows move on as by `advance`
  RowStrides next = {};  // for those
};

// The input product of many rows, ahead of the time loop; any other product with a packed matrix. Lines have n_vectors
// vectors.
template <class Real, class Storage = Real>
struct Project {
  const Storage* w_ih;  // (n_blocks,I,G,W)
  const Real* bias;     // (n_blocks,G,W); null: zeros
  size_t input_size;
  const Real* const* x;  // n_rows pointers to (I)
  Real* pre;             // (n_rows,n_blocks,G,W) out
  size_t n_rows, n_blocks;
  size_t block_begin, block_end;
  int n_vectors = kLineVectors;
  bool narrow_last = false;  // the last panel is narrow (layouts.h)
};

// h from the product with a projection: clip, zoneout, copies. Columns [begin, end) of R.
template <class Real>
struct ProjectedRow {
  const Real* z;  // (R) W_hr m
  Real* y;        // (R) out: h
  Real* y_copy;   // (R) out: optional second copy of y; may be null
};

template <class Real>
struct ProjectedStep {
  const ProjectedRow<Real>* rows;
  size_t n_rows, begin, end;
  Real clip, zoneout_h;
  const OutputExtra<Real>* extra;  // (n_rows); may be null
};

// One batch row at one step of a backward pass.
template <class Real>
struct BackwardRow {
  const Real* dg_next;  // (G rows) gradient of the next step's pre-activations; null if there is no next step
  const Real* dh;       // (R) gradient of h besides that through the next step's gates (final state); may be null
  const Real* dy;       // (R) gradient of the output of this step; may be null
  const Real* gates;    // (4H) from the tape; h (H) for a cell that tapes nothing
  const Real* c_prev;   // (H) from the tape
  const Real* c;        // (H) from the tape
  Real* dc;             // (H) in: gradient of c of this step; out: gradient of c of the previous step
  Real* dg;             // (GH) out: gradient of the pre-activations
  Real* dg_panel;       // (G,W) out: the same in panel order, panel p at p * panel_stride; whole vectors; may be null
};

template <class Real>
struct BackwardExtra {
  const Real* dcell;            // (H) gradient of this step's c from outside; may be null
  const unsigned char* keep_h;  // (R) as in OutputExtra; null: no zoneout of h
  const unsigned char* keep_c;  // (H) null with a plain cell
  const Real* h_mask;           // (R) may be null
  Real* carry;                  // (R) in and out: gradient of h that zoneout passes on; null without zoneout
  Real* dh_total;               // (R) out: gradient of h of this step; may be null
  Real* dc_total;               // (H) out: gradient of c of this step; may be null
  Real* c_new;                  // (H) out: c_new, before zoneout; may be null
};

template <class Real>
struct BackwardStep {
  const Real* w_back;  // back panels of weight_hh (G rows, H), or of a projection (rows, H) that follows the cell
  size_t n_gates, n_rows_of_gate;
  size_t hidden_size;
  const BackwardRow<Real>* rows;  // dg_next must be null for all rows or for none
  size_t n_rows;
  size_t group_begin, group_end;  // which groups of blocks
  size_t panel_stride;            // elements between blocks of dg_panel
  bool descending;
  const CellOptions<Real>* options;
  const Real* peephole;
  const BackwardExtra<Real>* extra;  // (n_rows); may be null
  Real* work;                        // kChunkRows * kGroupBlocks vectors, aligned
};

// The gradient of z, for rows of a ProjectedStep: dh + dy + the gradient through the next step, less the parts that
// zoneout and clip stop.
template <class Real>
struct ProjectedBackwardRow {
  const Real* through;  // (R) gradient through the next step's gates; null if there is no next step
  const Real *dh, *dy;  // (R) as in BackwardRow
  const Real* h;        // (R) of this step, from the tape
  Real* dz;             // (R) out
  Real* dz_panel;       // as dg_panel, for a matrix without gates; may be null
};

template <class Real>
struct ProjectedBackwardStep {
  const ProjectedBackwardRow<Real>* rows;
  size_t n_rows, size, begin, end;  // columns [begin, end) of size = R; begin is a multiple of W
  size_t panel_stride;
  Real clip;
  const BackwardExtra<Real>* extra;  // (n_rows); may be null
};

// out = dg @ weight, for the gradient of the input or of the initial state.
template <class Real>
struct BackProduct {
  const Real* w_back;  // back panels of a (G rows, n_cols) weight
  size_t n_gates, n_rows_of_gate, n_cols;
  const Real* const* dg;  // n_rows pointers to (G rows)
  Real* const* out;       // n_rows pointers to (n_cols)
  size_t n_rows;
  size_t group_begin, group_end;
  bool add;    // out += rather than out =
  Real* work;  // kChunkRows * kGroupBlocks vectors, aligned
};

// The value that a weight gradient's sums begin with, and their way to memory.
enum class GradientStart {
  from_dw,  // the value that is there
  from_zero,
  add  // zero; the whole sum is added to the value that is there
};

// A weight gradient of up to so many rows takes less time to compute than its lines take to be written. It is written
// from end to end then, two of dw's rows at a time, if these have so many panels: shorter ones gain nothing. Of floats
// (kWritesRows): few use doubles.
constexpr size_t kStoreBoundRows = 7, kStoreBoundPanels = 4;
template <class Real>
constexpr bool kWritesRows = sizeof(Real) == sizeof(float);

// Weight gradient in packed form: dw[p][k] = start + sum over rows n of xh[n][k] * dg[p][n], see GradientStart. The
// factors may change roles: rows of dg in the place of xh, and panels of [x, h] in that of dg_panels.
template <class Real>
struct WeightGradient {
  const Real* xh;  // (n_rows, K) with row stride xh_stride: x, h and a column of ones for the bias
  size_t xh_stride, n_k;
  const Real* dg_panels;  // block p at p * panel_stride, then (n_rows,G,W)
  size_t panel_stride, n_rows;
  Real* dw;          // (n_blocks,n_k,G,W) in and out
  size_t dw_stride;  // elements between blocks of dw: more than n_k * G * W where it is part of a wider gradient
  size_t block_begin, block_end;
  size_t tile_begin, tile_end;  // which of the ceil(n_k / max_rows) tiles of columns k
  int n_vectors = kLineVectors;
  size_t dw_line = 0;  // elements between lines of dw, of any alignment; 0: those of a line
  GradientStart start = GradientStart::from_dw;
  Real* columns = nullptr;  // work: room for the columns of these tiles (n_rows each), which may be copied to it
  // Columns behind block_end, and their panel, with lines of so many vectors. Only if dw is written from end to end.
  size_t rest = 0, rest_vectors = 0;
  const Real* rest_panel = nullptr;
};

// Rows of a matrix to lines of panels (rnn/columns.h). Lanes of the last panel that no column fills become zero.
template <class Real>
struct RowsToPanels {
  const Real* from;  // (n_rows, n_columns), rows from_stride apart
  size_t from_stride, n_rows, n_columns;
  Real* to;               // the panels
  size_t panel_rows, at;  // rows of each panel, and the place of the first row in it
};

// out[u] += sum over rows, in order, of a[u] * b[u], or of a[u] where b is null.
template <class Real>
struct ColumnSums {
  const Real* const* a;  // n_rows pointers to at least `end` elements
  const Real* const* b;  // the same, or null
  Real* out;
  size_t n_rows, begin, end;
};

}  // namespace quadgate
