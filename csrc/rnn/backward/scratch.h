// The memory of a backward pass, one struct for each lifetime of its contents.
//
// A struct takes its pieces while it is made: each member's initialiser says how many elements it has and when it is
// needed. Members without need are null.
#pragma once

#include <algorithm>

#include "kernels/layouts.h"
#include "kernels/norm_steps.h"
#include "kernels/steps.h"
#include "memory/carver.h"
#include "memory/poison.h"
#include "rnn/columns.h"
#include "rnn/rows.h"

namespace quadgate {

// Rows of a weight that a direct gradient (direct.h) makes at a time; columns of a factor that stay in L2 while all
// panels of the other pass by.
constexpr size_t kDirectRows = 96, kSlabColumns = 96;

// The sizes that this memory depends on.
struct BackwardSizes {
  size_t batch, hidden, recurrent, output;  // B, H, R, O
  size_t gate_rows, dg_stride;              // G*H; elements between rows of a block's dg
  size_t panel, hr_panel, highway_panel;    // elements of one row in panels: of the gates, a projection, a highway
  size_t block_rows;                        // of the largest block
  size_t h_columns;                         // R; 0 where all rows of h are zero, as in a single step without a state
  size_t n_k, line;                         // columns of [x, h, 1] of the widest layer; elements of a line of panels
  size_t xh_stride, x_row;                  // of [x, h, 1], in elements; where `by_rows`, of x and h in panels, of x
  size_t norm_work;
  size_t join_work;                          // 0 where nothing lies between layers
  size_t width, least;                       // of a vector; as in Columns
  bool norm, projection, highway, peephole;  // options
  bool by_rows;                              // the weight gradient is made in the order of the weights' rows
  bool x_on_tape;                            // and x of the first layer lies in panels there
  bool direct;                               // and goes to the caller's arrays as it is made
  bool copies_columns;                       // as in Kernels
  bool two_passes;                           // Sizes::two_passes
  bool extra;                                // rows have a BackwardExtra
  bool trace;                                // the norms of dh and dc are wanted
  bool zoneout_h, c_new;                     // zoneout of h by masks; peepholes need c before zoneout

  Columns columns(size_t n) const { return {n, line, width, least}; }
};

// Of one thread and one step: what kernels are told about its rows.
template <class Real>
struct BackwardThreadScratch {
  Carver& from;
  const BackwardSizes& n;
  size_t n_rows;

  BackwardRow<Real>* rows = from.take<BackwardRow<Real>>(n_rows);
  BackwardExtra<Real>* extra = from.take_if<BackwardExtra<Real>>(n.extra, n_rows);
  // The part of `extra` that is about c, where a second pass makes it.
  BackwardExtra<Real>* cell_extra = from.take_if<BackwardExtra<Real>>(n.extra && n.two_passes, n_rows);
  ProjectedBackwardRow<Real>* projected = from.take_if<ProjectedBackwardRow<Real>>(n.two_passes, n_rows);
  NormBackwardRow<Real>* norm = from.take_if<NormBackwardRow<Real>>(n.norm, n_rows);
  const Real** sources = from.take_if<const Real*>(n.two_passes, n_rows);
  Real** targets = from.take_if<Real*>(n.two_passes, n_rows);
  Real* norm_work = from.take_if<Real>(n.norm, n.norm_work);
  Real* join_work = from.take<Real>(n.join_work);
  Real* product_work = from.take<Real>(kChunkRows * kGroupBlocks * n.width);
  // (kSlabColumns, block_rows): WeightGradient::columns.
  Real* columns = from.take_if<Real>(n.copies_columns, kSlabColumns* n.block_rows);
  Real* panel_dw = from.take_if<Real>(n.direct, kDirectRows* n.line);  // (kDirectRows, line): of one panel
};

// Of one step, by row of the batch.
template <class Real>
struct BackwardStepScratch {
  Carver& from;
  const BackwardSizes& n;

  Real* through = from.take_if<Real>(n.two_passes, n.batch* n.recurrent);  // (B,R): dh through the next step's gates
  Real* dm = from.take_if<Real>(n.norm, n.batch* n.hidden);                // (B,H): gradient of what a projection takes
  Real* dh_total = from.take_if<Real>(n.trace, n.batch* n.recurrent);      // (B,R)
  Real* dc_total = from.take_if<Real>(n.trace, n.batch* n.hidden);         // (B,H)
};

// Of one block of steps, by row of the block.
template <class Real>
struct BackwardBlockScratch {
  Carver& from;
  const BackwardSizes& n;
  size_t n_rows = n.block_rows;

  Real* dg = from.take<Real>(n_rows * n.dg_stride);  // (rows, dg_stride): gradients of the pre-activations
  Real* panels = from.take_if<Real>(!n.by_rows, n_rows* n.panel);  // (n_blocks, rows, G, W): the same
  Real* xh = from.take<Real>(n_rows * n.xh_stride);                // (rows, xh_stride): see copy_rows
  // Normalisation: dg and panels of the product of x, which has its own; gradients of a and of v; N(c).
  Real* dg_ih = from.take_if<Real>(n.norm, n_rows* n.gate_rows);
  Real* ih_panels = from.take_if<Real>(n.norm, n_rows* n.panel);
  Real* da = from.take_if<Real>(n.norm, n_rows* n.gate_rows);
  Real* dv_c = from.take_if<Real>(n.norm, n_rows* n.hidden);
  Real* normal_c = from.take_if<Real>(n.norm, n_rows* n.hidden);
  // Projection: gradients of z, which it gives, in rows and in panels; m, which it takes.
  Real* dz = from.take_if<Real>(n.projection, n_rows* n.recurrent);
  Real* dz_panels = from.take_if<Real>(n.projection, n_rows* n.hr_panel);
  Real* m = from.take_if<Real>(n.projection, n_rows* n.hidden);
  Real* c_new = from.take_if<Real>(n.c_new, n_rows* n.hidden);  // where it is not the tape's c
  // Highway: gradients of its gate's argument, in rows and in panels.
  Real* d_gate = from.take_if<Real>(n.highway, n_rows* n.output);
  Real* gate_panels = from.take_if<Real>(n.highway, n_rows* n.highway_panel);
  // The operands of its product, and where the results go.
  const Real** sources = from.take_if<const Real*>(n.highway, n_rows);
  Real** targets = from.take_if<Real*>(n.highway, n_rows);
};

// Of the whole pass, for one layer and direction: values that a block passes to the one before it, and sums over all
// rows.
template <class Real>
struct BackwardStateScratch {
  Carver& from;
  const BackwardSizes& n;
  size_t input;                                                        // columns of x
  size_t n_k = input + n.h_columns + 1;                                // columns of [x, h, 1]
  size_t row = n.columns(input).row() + n.columns(n.h_columns).row();  // of x and of h in panels

  size_t start = from.used();
  Real* dg_carry = from.take<Real>(n.batch * n.gate_rows);  // (B, G*H): dg of the step after the block

  // Zero at first.
  size_t begin = from.used();
  Real* h_carry = from.take_if<Real>(n.zoneout_h, n.batch* n.recurrent);  // (B,R): dh that zoneout passes on
  Real* bias = from.take_if<Real>(n.norm || n.by_rows || !n.h_columns, n.gate_rows);  // in the layout of the parameters
  Real* zero_h = from.take_if<Real>(!n.h_columns, n.gate_rows);  // each row's product of dg with zeros
  Real* norm_ih = from.take_if<Real>(n.norm, n.gate_rows);
  Real* norm_hh = from.take_if<Real>(n.norm, n.gate_rows);
  Real* norm_c = from.take_if<Real>(n.norm, 2 * n.hidden);
  Real* peephole = from.take_if<Real>(n.peephole, 3 * n.hidden);
  size_t zeros = from.used() - begin;

  // Zero at first if there is no block; else the first block's products begin with zero.
  // dw: (n_blocks, n_k, G, W); by rows (panels of x and of h, G*H, line). dw_hr: like the former, of R rows, H columns.
  Real* dw = from.take_if<Real>(!n.direct, n.by_rows ? row* n.gate_rows : n_k* n.panel);
  Real* dw_hr = from.take_if<Real>(n.projection, n.hidden* n.hr_panel);
  size_t all = from.used() - begin;

  void clear(bool any_block) const {
    zero_pieces(reinterpret_cast<char*>(dg_carry) + (begin - start), any_block ? zeros : all);
  }
};

// The same for a layer's highway; null where the layer has none.
template <class Real>
struct BackwardHighwayScratch {
  Carver& from;
  const BackwardSizes& n;
  bool needed;

  size_t begin = from.used();
  Real* dw = from.take_if<Real>(needed, (n.output + 1) * n.highway_panel);  // (panels of O rows, O + 1)
  size_t bytes = from.used() - begin;
  void clear() const {
    if (dw) zero_pieces(dw, bytes);
  }
};

// Of the whole pass, for all layers.
template <class Real>
struct BackwardScratch {
  Real* zeros;                             // max(G*H, R)
  BackwardThreadScratch<Real>* threads;    // by rank
  BackwardStateScratch<Real>* states;      // by layer and direction
  BackwardHighwayScratch<Real>* highways;  // by layer
  Plane<Real> between[2];                  // dx of the upper layers, alternating
  Plane<Real> raw;                         // gradient of a layer's h before it is joined
};

}  // namespace quadgate
