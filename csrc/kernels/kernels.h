// The table of plain functions that one instruction set exports, and the arguments they take.
//
// Words: W is the vector width of the table, H the hidden size, I the input size of the layer. A block is W
// consecutive hidden units; the last block of H may be partial, its missing lanes are zero in packed weights and are
// never read from or written to the caller's arrays. P = ceil(H / W) blocks.
//
// Packed forward weights ("panels"):   [P][k][4][W]    gates i, f, g, o side by side for each k
// Packed bias:                          [P][4][W]
// Packed backward weights ("back panels"): the blocks of output columns in the fewest groups of at most 4, as even as
//   can be, the larger groups first; for each group [k = 4H][nv][W], k running over the gate rows i, f, g, o of H units
//   each, nv being the group's number of blocks.
//
// No function here allocates, throws, or knows of threads, time or Python. No pointer is kept after a call.
// Arrays must not overlap unless a comment says so.
//
// Order of summation, the same for every tile shape, so that results do not depend on batch size or threads:
//   forward      ((bias + sum over I, in order) + sum over H, in order), one chain
//   backward     four chains of H terms, one for each gate, added as ((i + f) + g) + o
//   weights      one chain over the rows, in order, continuing from the value that is already there
#pragma once

#include <stddef.h>

namespace fourgate {

// One batch row at one step of a forward pass.
template <class T>
struct ForwardRow {
  const T* x;       // (I) input of this step; not read where `pre` is used
  const T* h;       // (H) h of the previous step
  const T* pre;     // (P,4,W) bias + input products, from `project`; read only if ForwardStep::use_pre
  const T* c_prev;  // (H)
  T* c;             // (H) out; may be c_prev
  T* y;             // (H) out: h of this step
  T* y2;            // (H) out: the same once more; may be null
  T* gates;         // (4,H) out: activated i, f, g, o for the tape; may be null (for all rows or for none)
};

template <class T>
struct ForwardStep {
  const T* w_ih;  // (P,I,4,W)
  const T* w_hh;  // (P,H,4,W)
  const T* bias;  // (P,4,W)
  size_t input_size, hidden_size;
  const ForwardRow<T>* rows;
  size_t n_rows;
  size_t block_begin, block_end;  // which blocks of hidden units to compute
  bool use_pre;
  bool descending;  // sweep the panels backwards: what the last sweep left in cache is used first
  bool large_tape;  // write `gates` past the caches, which could not hold them until they are read
};

// The input product of many rows, ahead of the time loop.
template <class T>
struct Project {
  const T* w_ih;  // (P,I,4,W)
  const T* bias;  // (P,4,W)
  size_t input_size;
  const T* const* x;  // n_rows pointers to (I)
  T* pre;             // (n_rows,P,4,W) out
  size_t n_rows, n_blocks;
  size_t block_begin, block_end;
};

// One batch row at one step of a backward pass.
template <class T>
struct BackwardRow {
  const T* dg_next;  // (4H) gradient of the pre-activations of the following step; null where there is none
  const T* dh;       // (H) gradient of h that does not come through the next step's gates (final state); may be null
  const T* dy;       // (H) gradient of the output of this step; may be null
  const T* gates;    // (4,H) from the tape
  const T* c_prev;   // (H) from the tape
  const T* c;        // (H) from the tape
  T* dc;             // (H) in: gradient of c of this step; out: gradient of c of the previous step
  T* dg;             // (4H) out: gradient of the pre-activations
  T* dg_panel;  // (W lanes x 4 of block 0) out: the same in panel order, block p at p * panel_stride; whole vectors
};

template <class T>
struct BackwardStep {
  const T* w_back;  // back panels of weight_hh (4H, H)
  size_t hidden_size;
  const BackwardRow<T>* rows;  // dg_next must be null for all rows or for none
  size_t n_rows;
  size_t group_begin, group_end;  // which groups of blocks
  size_t panel_stride;            // elements between blocks of dg_panel
  bool descending;
};

// out = dg @ weight, for the gradient of the input or of the initial state.
template <class T>
struct BackProduct {
  const T* w_back;  // back panels of a (4H, n_cols) weight
  size_t hidden_size, n_cols;
  const T* const* dg;  // n_rows pointers to (4H)
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
  T* dw;  // (P, n_k, 4, W) in and out
  size_t block_begin, block_end;
  size_t tile_begin, tile_end;  // which of the ceil(n_k / max_rows) tiles of columns k
};

template <class T>
struct Kernels {
  size_t width;     // W
  size_t max_rows;  // rows of the largest register tile
  void (*forward)(const ForwardStep<T>&);
  void (*project)(const Project<T>&);
  void (*backward)(const BackwardStep<T>&);
  void (*back_product)(const BackProduct<T>&);
  void (*weight_gradient)(const WeightGradient<T>&);
  void (*sigmoid)(const T* x, T* y, size_t n);  // y may be x
  void (*tanh)(const T* x, T* y, size_t n);     // y may be x
};

struct KernelTable {
  const char* name;  // "baseline", "avx2", "avx512", "neon"
  Kernels<float> f32;
  Kernels<double> f64;
};

}  // namespace fourgate
