// Cells with every option that a step of the kernels can have.
#pragma once

#include <vector>

#include "judge.h"

namespace cell_cases {

using namespace quadgate;

template <class Real>
struct Case {
  CellOptions<Real> options = judge::plain_options<Real>();
  bool plain = false;  // null options: the tape has activated gates
  bool peephole = false;
  bool zoneout_h = false;   // by the rate where there are no masks
  bool masks = false;       // of zoneout, of h and of c
  bool mask_c = false;      // zoneout of c by masks alone
  bool recurrent = false;   // multipliers of h
  bool projection = false;  // the backward product is that with a projection's matrix
  bool any_size = false;    // h may have fewer columns than c
  bool large_tape = false;
};

// Elman's cell computes its slope from h alone, which leaves tanh and relu.
template <class Real>
std::vector<Case<Real>> cases() {
  std::vector<Case<Real>> all;
  auto add = [&](auto&& change) {
    Case<Real> one;
    change(one);
    all.push_back(one);
    // Once more with other activations, and behind a projection.
    one.options.cell = {kSoftsign, 1, 0};
    one.options.output = {kElu, Real(0.7), 0};
    one.projection = one.any_size =
        !one.plain && one.options.type == CellType::lstm && !one.zoneout_h && !one.masks && !one.recurrent;
    one.large_tape = true;
    if (!one.plain && one.options.type == CellType::lstm) all.push_back(one);
  };
  const Real alphas[] = {1, 1, 1, Real(0.3), Real(0.8), Real(0.2), Real(0.4), Real(1.3), Real(0.7), 1, 1};
  const Real betas[] = {0, 0, 0, Real(0.4), Real(-0.2), 0, 0, Real(0.6), 0, 0, 0};
  auto function = [&](int f) { return Activation<Real>{f % 11, alphas[f % 11], betas[f % 11]}; };
  for (int f = 0; f < 11; ++f)  // each in each place
    add([&](Case<Real>& c) {
      c.options.gate = function(f), c.options.cell = function(f + 4), c.options.output = function(f + 7);
      c.peephole = f % 2;
    });
  add([](Case<Real>& c) { c.options.gate_clip = Real(0.9); });
  add([](Case<Real>& c) { c.options.cell_clip = Real(0.6); });
  add([](Case<Real>& c) { c.peephole = true; });
  add([](Case<Real>& c) { c.options.coupled = true; });
  add([](Case<Real>& c) { c.options.coupled = c.peephole = true; });
  add([](Case<Real>& c) { c.options.zoneout_c = Real(0.3); });
  add([](Case<Real>& c) { c.options.zoneout_h = Real(0.4), c.zoneout_h = true; });
  add([](Case<Real>& c) {
    c.options.zoneout_h = Real(0.4), c.options.zoneout_c = Real(0.3), c.masks = c.zoneout_h = true;
  });
  add([](Case<Real>& c) { c.options.zoneout_c = Real(0.3), c.mask_c = true; });
  add([](Case<Real>& c) { c.recurrent = true; });
  add([](Case<Real>& c) {
    c.options.gate_clip = Real(1.1), c.options.cell_clip = Real(0.7), c.options.coupled = true;
    c.peephole = c.masks = c.zoneout_h = c.recurrent = true;
  });
  add([](Case<Real>& c) { c.plain = true; });
  add([](Case<Real>& c) { c.plain = c.recurrent = c.large_tape = true; });
  for (int f : {kTanh, kRelu}) {
    add([&](Case<Real>& c) { c.options.type = CellType::elman, c.options.gate = {f, 1, 0}; });
    add([&](Case<Real>& c) { c.options.type = CellType::elman, c.recurrent = true, c.options.gate = {f, 1, 0}; });
  }
  return all;
}

}  // namespace cell_cases
