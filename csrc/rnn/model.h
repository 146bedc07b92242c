// A network's sizes and options.
#pragma once

#include <cstddef>
#include <limits>

#include "cells/cells.h"
#include "kernels/steps.h"
#include "kernels/weights/storage.h"

namespace quadgate {

enum class LayerNorm { none, output, cell };
enum class Merge { concat, sum, mul, mean };
enum class Shortcut { none, residual, highway, dense };

struct Options {
  static constexpr double kNone = std::numeric_limits<double>::infinity();  // no clip

  size_t projection = 0;  // columns of h behind a projection; 0: none
  CellOptions<double> cell = {{kSigmoid, 1, 0}, {kTanh, 1, 0}, {kTanh, 1, 0}, kNone, kNone, 0, 0, false,
                              CellType::lstm};
  double proj_clip = kNone;
  bool peephole = false;
  LayerNorm layer_norm = LayerNorm::none;
  double epsilon = 1e-5;  // of the normalisation
  bool reverse = false;   // a single direction that reads backwards
  Merge merge = Merge::concat;
  Shortcut shortcut = Shortcut::none;
  double dropout = 0, recurrent_dropout = 0, weight_drop = 0;  // of the training pass
  WeightType weights = WeightType::real;                       // compact: of float32 networks, for inference only

  bool plain_cell() const {
    return cell.gate.function == kSigmoid && cell.cell.function == kTanh && cell.output.function == kTanh &&
           cell.gate_clip == kNone && cell.cell_clip == kNone && cell.zoneout_h == 0 && cell.zoneout_c == 0 &&
           !cell.coupled && cell.type == CellType::lstm && !peephole && layer_norm == LayerNorm::none;
  }
};

// The factor that dropout of this rate gives the elements that it keeps.
template <class Real>
Real keep_scale(double rate) {
  return rate < 1 ? Real(1 / (1 - rate)) : Real(0);
}

struct Sizes {
  size_t input, hidden, layers, directions;
  bool bias;
  Options options;

  CellSizes of_cell() const { return cell_sizes(options.cell.type); }
  size_t gates() const { return of_cell().n_gates; }                                     // G
  size_t recurrent() const { return options.projection ? options.projection : hidden; }  // R, the columns of h
  size_t cell() const { return of_cell().n_states > 1 ? hidden : 0; }                    // the columns of c
  size_t taped() const { return of_cell().n_taped * hidden; }  // columns of the gates on the tape
  size_t raw() const { return recurrent() * directions; }      // both directions' h side by side
  size_t output() const { return options.merge == Merge::concat ? raw() : recurrent(); }
  size_t input_of(size_t layer) const {
    if (layer == 0) return input;
    return options.shortcut == Shortcut::dense ? input + layer * output() : output();
  }
  size_t states() const { return layers * directions; }  // leading axis of h and c
  bool highway(size_t layer) const { return layer > 0 && options.shortcut == Shortcut::highway; }
  // True if a layer's output is more than its directions' h side by side.
  bool joined() const { return options.merge != Merge::concat || options.shortcut != Shortcut::none; }
  // True if a direction goes through time backwards.
  bool reverse(size_t direction) const { return direction == 1 || options.reverse; }
  // True if every layer takes the steps in the order of time.
  bool forward_only() const { return directions == 1 && !options.reverse; }
  // True if the parameters are of a compact type; Weights::compact tells if they are packed so.
  bool compact_type() const { return options.weights != WeightType::real; }
  // True if a step needs a second pass, which may begin only when all units have done the first.
  bool two_passes() const { return options.projection || options.layer_norm != LayerNorm::none; }
};

// Multiply-adds of a forward pass over so many rows of all steps, times two.
inline double forward_flops(const Sizes& s, size_t rows) {
  return 2.0 * double(s.gates() * rows) * double(s.hidden * s.directions) *
         double((s.input + s.recurrent()) + (s.layers - 1) * (s.recurrent() + s.input_of(s.layers - 1)));
}

// A layer and direction's parameters, or their gradients, as the user has them: row-major; null where there are none.
// P is a pointer to elements.
template <class P>
struct LayerParameters {
  P weight_ih;  // (G*H, I)
  P weight_hh;  // (G*H, R)
  P bias;       // (G*H)
  P weight_hr;  // (R, H)
  P peephole;   // (3, H): i, f, o
  P norm_ih;    // (G*H)
  P norm_hh;    // (G*H)
  P norm_c;     // (2, H): gain, bias
};

// A highway's gate between layers: (O, O) and (O).
template <class P>
struct HighwayParameters {
  P weight, bias;
};

// f(slot, rows, cols, axes) for every parameter in the order in which networks list them; `cols` is 1 for one axis.
// layers: states() of them; highways: one for each layer, of which the first is not visited.
template <class P, class F>
void each_parameter(const Sizes& s, LayerParameters<P>* layers, HighwayParameters<P>* highways, F&& f) {
  const size_t H = s.hidden, R = s.recurrent(), rows = s.gates() * H, O = s.output();
  const bool norm = s.options.layer_norm != LayerNorm::none;
  for (size_t l = 0; l < s.layers; ++l) {
    for (size_t d = 0; d < s.directions; ++d) {
      LayerParameters<P>& p = layers[l * s.directions + d];
      f(p.weight_ih, rows, s.input_of(l), 2);
      f(p.weight_hh, rows, R, 2);
      if (s.bias) f(p.bias, rows, size_t(1), 1);
      if (s.options.projection) f(p.weight_hr, R, H, 2);
      if (s.options.peephole) f(p.peephole, size_t(3), H, 2);
      if (norm) f(p.norm_ih, rows, size_t(1), 1);
      if (norm) f(p.norm_hh, rows, size_t(1), 1);
      if (norm) f(p.norm_c, size_t(2), H, 2);
    }
    if (s.highway(l)) {
      f(highways[l].weight, O, O, 2);
      f(highways[l].bias, O, size_t(1), 1);
    }
  }
}

}  // namespace quadgate
