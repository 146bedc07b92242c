// The backward pass as its three files share it: backward.cpp has the order of things, backward_steps.cpp the time
// loop, backward_products.cpp the products over many rows.
//
// Rows go through the network's backward in blocks of steps, last steps first. For each block and layer: what lies
// behind the layer, then the time loop, which leaves the gates' gradients of all its rows in two layouts; then plain
// products use them up: with [x, h, 1] for the weights, with weight_ih for the input's gradient, which is the dy of the
// layer below.
#pragma once

#include <memory>

#include "memory/carver.h"
#include "rnn/backward/backward.h"

namespace quadgate {

// Steps [s0, s1) of one layer and direction.
template <class Real>
struct BackwardBlock {
  size_t l, d, s0, s1;
  size_t n_rows;         // steps of all rows in it
  Plane<const Real> dy;  // (R); may be null
  Plane<Real> dx;        // may be null
  bool add_dx;
};

template <class Real>
class BackwardPass {
 public:
  BackwardPass(const BackwardCall<Real>& call, const RowOrder& order, Control& control)
      : call_(call),
        tape_(*call.tape),
        w_(*call.tape->weights),
        s_(w_.sizes),
        order_(order),
        control_(control),
        norm_(s_.options.layer_norm != LayerNorm::none) {}

  bool run();

 private:
  using Block = BackwardBlock<Real>;

  // Sums over rows that are no matrix product, for one state: gradients in the layout of the parameters.
  struct Sums {
    Real *bias, *norm_ih, *norm_hh, *norm_c, *peephole;
  };

  void prepare();
  void choose_blocks();
  void carve(Carver& carver);
  void thread(size_t rank);
  bool one_direction(const Team& all);
  bool two_directions(const Team& all);
  bool block(const Team& all, const Block& b);
  Plane<const Real> gradient_above(size_t l, size_t t0) const;
  Plane<Real> gradient_below(size_t l, size_t t0) const;

  void time_loop(const Team& units, size_t thread, size_t row0, size_t row1, const Block& b);
  void set_row(const Block& b, size_t s, size_t r, bool continues, BackwardRow<Real>& row);
  void set_extra(const Block& b, size_t s, size_t r, size_t i);
  void copy_operands(const Block& b, size_t s, size_t r);
  void run_rows(const Team& units, const Block& b, size_t s, size_t r0, size_t r1, size_t first);
  void run_two_passes(const Team& units, size_t thread, const Block& b, size_t s, size_t r0, size_t r1, size_t first);
  void trace(const Team& units, const Block& b, size_t s, size_t row0, size_t end);

  bool join(const Team& all, const Block& b);
  void weight_gradients(const Team& all, const Block& b);
  void product_gradient(const Team& all, const Real* xh, size_t stride, size_t n_k, const Real* panels,
                        const PanelShape& p, size_t n_rows, Real* dw, size_t dw_k);
  void column_sums(const Team& all, const Block& b);
  void input_gradient(const Team& all, const Block& b);
  void initial_state(const Team& all);
  void unpack(const Team& all);

  size_t state(size_t l, size_t d) const { return l * s_.directions + d; }
  // Where step s of row r (of the order) stands among the rows of a block.
  size_t row_in_block(const Block& b, size_t s, size_t r) const { return before_[s] - before_[b.s1 - 1] + r; }
  size_t rows_of(size_t s0, size_t s1) const { return before_[s0] + order_.active_rows(s0) - before_[s1 - 1]; }
  // Whether row r starts again at step s.
  bool cut(size_t r, size_t s, bool reverse) const {
    if (tape_.resets.empty() || (reverse && s == 0)) return false;
    return tape_.resets[(order_.time(r, s, reverse) + reverse) * order_.batch() + order_.index(r)];
  }
  size_t panel_width() const { return w_.blocks() * 4 * w_.kernels.width; }

  const BackwardCall<Real>& call_;
  const Tape<Real>& tape_;
  const Weights<Real>& w_;
  const Sizes& s_;
  const RowOrder& order_;
  Control& control_;
  const bool norm_;
  bool extra_needed_ = false;
  Plan plan_;
  std::unique_ptr<Barrier> barrier_;
  std::vector<size_t> before_;       // rows of all steps later than s
  std::vector<size_t> block_steps_;  // bounds of the blocks, descending: T ... 0
  size_t block_rows_ = 0, xh_stride_ = 0;

  // By thread, B each.
  BackwardRow<Real>* rows_ = nullptr;
  BackwardExtra<Real>*extra_ = nullptr, *cell_extra_ = nullptr;  // all of it; the part that is c's, for a second pass
  ProjectedBackwardRow<Real>* projected_ = nullptr;
  NormBackwardRow<Real>* norm_rows_ = nullptr;
  const Real** step_sources_ = nullptr;
  Real** step_targets_ = nullptr;
  Real* work_ = nullptr;  // 2 P W for each thread
  Real* join_work_ = nullptr;

  // By row of the batch.
  Real *through_ = nullptr, *dm_ = nullptr;         // (B,R), (B,H) of a step
  Real *dh_total_ = nullptr, *dc_total_ = nullptr;  // (B,R), (B,H) of a step
  Real* zeros_ = nullptr;                           // max(G*H, R)
  std::vector<Real*> carry_;                        // per state (B, G*H): gates' gradient of the step after the block
  std::vector<Real*> h_carry_;                      // per state (B, R): what zoneout passes on; null without

  // By row of a block.
  const Real** sources_ = nullptr;                // operands of products
  Real** targets_ = nullptr;                      // and their results
  Real* dg_ = nullptr;                            // (rows, G*H)
  Real* panels_ = nullptr;                        // (P, rows, 4, W)
  Real* xh_ = nullptr;                            // (rows, xh_stride): x, h of the step before, 1
  Real *dg_ih_ = nullptr, *ih_panels_ = nullptr;  // as dg_ and panels_, where the product of x has its own
  Real *da_ = nullptr, *dw_c_ = nullptr, *normal_c_ = nullptr;  // (rows, 4H), (rows, H), (rows, H) of the normalisation
  Real *dz_ = nullptr, *dz_panels_ = nullptr, *m_ = nullptr;    // (rows, R), panels, (rows, H) of the projection
  Real* fresh_ = nullptr;                                       // (rows, H): n, where it is not the tape's c
  Real *d_gate_ = nullptr, *gate_panels_ = nullptr;             // (rows, O), panels of a highway

  std::vector<Real*> dw_;             // per state (P, I + R + 1, 4, W)
  std::vector<Real*> dw_hr_;          // per state (panels of R rows, H); null without projection
  std::vector<Real*> dw_highway_;     // per layer (panels of O rows, O + 1); null without
  std::vector<Sums> sums_;            // per state
  std::vector<Plane<Real>> between_;  // dx of the upper layers
  Plane<Real> raw_;                   // gradient of a layer's h before it is joined
};

}  // namespace quadgate
