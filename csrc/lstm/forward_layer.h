// One layer and direction over a run of steps: the forward time loop.
#pragma once

#include "network.h"
#include "sequence.h"

namespace quadgate {

// Steps [s0, s1) of the rows [row0, row1) of the order. Planes and tape buffers are those of the whole batch.
template <class T>
struct LayerSteps {
  const PackedLayer<T>* weights;
  size_t state;  // which of the L*D
  bool reverse;
  size_t steps, batch;
  Plane<const T> in;
  Plane<T> out, copy;  // (R): h goes to both; `copy` may be null
  Plane<T> cells;      // (H): c of every step; null: only the last is kept
  T *h, *c;            // (B,R), (B,H): the state before s0, replaced by that after the last step
  Tape<T>* tape;       // or null
  const unsigned char* resets;
  size_t resets_step, resets_row;  // (T,B) by these strides; null: none
  size_t row0, row1, s0, s1;
};

// Memory for LayerSteps: `rows` to `join_work` are a thread's own, the rest is shared by the team.
template <class T>
struct Scratch {
  size_t n_rows;               // row1 - row0
  ForwardRow<T>* rows;         // (n_rows)
  OutputExtra<T>* extra;       // (n_rows); null where nothing needs it
  OutputExtra<T>* cell_extra;  // (n_rows): the part that is c's, where a projection makes h; else null
  ProjectedRow<T>* projected;  // (n_rows); null without projection
  NormRow<T>* norm;            // (n_rows); null without layer normalisation
  const T** x;                 // (max(pre_rows, n_rows)); null where no product runs ahead or apart
  T* work;                     // for the normalisation
  T* join_work;                // for what lies behind the layer; null where that needs none
  T* pre;                      // (pre_rows, P, 4, W); null: never project ahead
  size_t pre_rows;
  T* masked[2];  // (n_rows, R): h after recurrent dropout, of odd and of even steps
  T* m;          // (n_rows, H): what a projection takes
  T* z;          // (n_rows, what it gives, in whole panels)
  T* product;    // (n_rows, P, 4, W): W_hh h, for the normalisation
  T* zeros;      // (max(H, R)): the state after a reset
};

// Whether the input products of a layer run ahead, many steps' rows at a time, or join each step's product as more k.
template <class T>
bool project_ahead(const Weights<T>& w, size_t input, size_t rows, size_t steps);

// Takes a thread's memory, for layers of at most `input` columns and chunks of at most `steps`; the shared parts are
// `leader`'s, or, where that is null, its own.
template <class T>
Scratch<T> carve_scratch(Carver& carver, const Weights<T>& w, const Tape<T>* tape, size_t input, size_t rows,
                         size_t steps, bool resets, const Scratch<T>* leader);

// False once the call is to stop; all members of the team get the same answer.
template <class T>
bool forward_layer(const Team& team, const Weights<T>& w, const RowOrder& order, const LayerSteps<T>& task,
                   const Scratch<T>& scratch);

}  // namespace quadgate
