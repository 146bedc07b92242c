// One layer and direction over a run of steps: the forward time loop.
#pragma once

#include "rnn/sequence.h"
#include "rnn/tape.h"
#include "rnn/weights.h"

namespace quadgate {

// Steps [s0, s1) of the rows [row0, row1) of the order. Planes and tape buffers are those of the whole batch.
template <class Real>
struct LayerSteps {
  const PackedLayer<Real>* weights;
  size_t state;  // which of the L*D
  bool reverse;
  size_t steps, batch;
  Plane<const Real> in;
  Plane<Real> out, copy;  // (R): h goes to both; `copy` may be null
  Plane<Real> cells;      // (H): c of every step; null: only the last is kept
  Real *h, *c;            // (B,R), (B,H): the state before s0, replaced by that after the last step
  Tape<Real>* tape;       // or null
  const unsigned char* resets;
  size_t resets_step, resets_row;  // (T,B) by these strides; null: none
  size_t row0, row1, s0, s1;
};

// Memory for LayerSteps: `rows` to `join_work` are a thread's own, the rest is shared by the team.
template <class Real>
struct Scratch {
  size_t n_rows;                  // row1 - row0
  ForwardRow<Real>* rows;         // (n_rows)
  OutputExtra<Real>* extra;       // (n_rows); null where nothing needs it
  OutputExtra<Real>* cell_extra;  // (n_rows): the part that is c's, where a projection makes h; else null
  ProjectedRow<Real>* projected;  // (n_rows); null without projection
  NormRow<Real>* norm;            // (n_rows); null without layer normalisation
  const Real** x;                 // (max(pre_rows, n_rows)); null where no product runs ahead or apart
  Real* work;                     // for the normalisation
  Real* join_work;                // for what lies behind the layer; null where that needs none
  Real* pre;                      // (pre_rows, P, 4, W); null: never project ahead
  size_t pre_rows;
  Real* masked[2];  // (n_rows, R): h after recurrent dropout, of odd and of even steps
  Real* m;          // (n_rows, H): what a projection takes
  Real* z;          // (n_rows, what it gives, in whole panels)
  Real* product;    // (n_rows, P, 4, W): W_hh h, for the normalisation
  Real* zeros;      // (max(H, R)): the state after a reset
};

// Whether the input products of a layer run ahead, many steps' rows at a time, or join each step's product as more k.
template <class Real>
bool project_ahead(const Weights<Real>& w, size_t input, size_t rows, size_t steps);

// Takes a thread's memory, for layers of at most `input` columns and chunks of at most `steps`; the shared parts are
// `leader`'s, or, where that is null, its own.
template <class Real>
Scratch<Real> carve_scratch(Carver& carver, const Weights<Real>& w, const Tape<Real>* tape, size_t input, size_t rows,
                            size_t steps, bool resets, const Scratch<Real>* leader);

// False once the call is to stop; all members of the team get the same answer.
template <class Real>
bool forward_layer(const Team& team, const Weights<Real>& w, const RowOrder& order, const LayerSteps<Real>& task,
                   const Scratch<Real>& scratch);

}  // namespace quadgate
