// The memory of a forward pass: each thread's own, and that which a team shares.
//
// A struct takes its pieces while it is made: each member's initialiser says how many elements it has and when it is
// needed. Members without need are null.
#pragma once

#include <algorithm>

#include "kernels/compact_steps.h"
#include "kernels/norm_steps.h"
#include "kernels/steps.h"
#include "memory/carver.h"

namespace quadgate {

// The sizes that this memory depends on.
struct ForwardSizes {
  size_t hidden, recurrent;  // H, R
  size_t gate_rows, taped;   // G*H; columns of the gates on the tape
  size_t panel, hr_panel;    // elements of one row in panels: of the gates, of a projection
  size_t norm_work, join_work;
  size_t compact_k;  // as in compact_work_bytes
  size_t width;      // W
  bool compact;      // weights are
  size_t wide;       // elements of the largest layer that is widened for its steps; 0: none
  bool norm, projection;
  bool two_passes;  // Sizes::two_passes
  bool extra;       // rows have an OutputExtra
  bool masked;      // recurrent dropout by masks
  bool resets;
  bool tape;
};

// Of one thread: what kernels are told about its rows of one step.
template <class Real>
struct ForwardThreadScratch {
  Carver& from;
  const ForwardSizes& n;
  size_t n_rows;
  size_t pre_rows;  // rows whose input products run ahead at a time; those of a part with more rows never do

  ForwardRow<Real>* rows = from.take<ForwardRow<Real>>(n_rows);
  OutputExtra<Real>* extra = from.take_if<OutputExtra<Real>>(n.extra, n_rows);
  // The part of `extra` that is about c, where a projection makes h.
  OutputExtra<Real>* cell_extra = from.take_if<OutputExtra<Real>>(n.extra && n.projection, n_rows);
  ProjectedRow<Real>* projected = from.take_if<ProjectedRow<Real>>(n.projection, n_rows);
  NormRow<Real>* norm = from.take_if<NormRow<Real>>(n.norm, n_rows);
  const Real** x = from.take_if<const Real*>(pre_rows || n.two_passes, std::max(pre_rows, n_rows));
  Real* norm_work = from.take_if<Real>(n.norm, n.norm_work);
  Real* join_work = from.take<Real>(n.join_work);
  char* compact_work =
      from.take_if<char>(n.compact, compact_work_bytes(std::max(pre_rows, n_rows), n.compact_k, n.width));
};

// Of a team: values of its rows.
template <class Real>
struct ForwardTeamScratch {
  Carver& from;
  const ForwardSizes& n;
  size_t n_rows, pre_rows;

  Real* pre = from.take<Real>(pre_rows * n.panel);  // (pre_rows, n_blocks, G, W): input products
  Real* wide = from.take<Real>(n.wide);             // weight_ih, weight_hh or both in float
  // (n_rows, R): h after recurrent dropout, of odd and of even steps.
  Real* masked[2] = {from.take_if<Real>(n.masked, n_rows* n.recurrent),
                     from.take_if<Real>(n.masked, n_rows* n.recurrent)};
  Real* m = from.take_if<Real>(n.projection && !n.tape, n_rows* n.hidden);  // (n_rows, H): what a projection takes
  Real* z = from.take_if<Real>(n.projection, n_rows* n.hr_panel);           // what it gives, in whole panels
  Real* product = from.take_if<Real>(n.norm, n_rows* n.panel);              // (n_rows, n_blocks, G, W): W_hh h
};

}  // namespace quadgate
