// Networks that together have every option.
#pragma once

#include <vector>

#include "lstm/options.h"

namespace network_cases {

using namespace fourgate;

struct Case {
  const char* name;
  size_t layers = 1, directions = 1;
  Options options = {};  // a projection of any size stands for one that goes with the hidden size
  bool lengths = false, resets = false, bias = true;
};

inline std::vector<Case> cases() {
  std::vector<Case> all;
  auto add = [&](const char* name, size_t layers, size_t directions, auto&& change) {
    all.push_back({name, layers, directions});
    change(all.back(), all.back().options);
  };
  add("plain", 1, 1, [](Case& c, Options&) { c.lengths = true; });
  add("plain layers", 3, 1, [](Case& c, Options&) { c.resets = true, c.bias = false; });
  add("plain layers with lengths", 3, 1, [](Case& c, Options&) { c.lengths = c.resets = true; });
  add("peephole", 1, 1, [](Case& c, Options& o) { o.peephole = c.lengths = c.resets = true; });
  add("projection", 1, 1, [](Case&, Options& o) { o.projection = 1, o.proj_clip = 0.3; });
  add("projection both ways", 2, 2, [](Case& c, Options& o) { o.projection = 1, c.lengths = true; });
  add("normalised", 1, 1, [](Case& c, Options& o) { o.layer_norm = LayerNorm::pre, c.lengths = true; });
  add("normalised, carried", 2, 1,
      [](Case& c, Options& o) { o.layer_norm = LayerNorm::carried, o.peephole = c.resets = true; });
  add("normalised, projection, zoneout", 1, 1, [](Case& c, Options& o) {
    o.layer_norm = LayerNorm::pre, o.projection = 1;
    o.cell.zoneout_h = 0.3, o.cell.zoneout_c = 0.2, c.lengths = true;
  });
  add("coupled", 1, 1, [](Case& c, Options& o) { o.cell.coupled = c.resets = true, o.cell.cell_clip = 0.5; });
  add("gate clip", 1, 1, [](Case& c, Options& o) {
    o.cell.gate_clip = 0.6, c.bias = false;
    o.cell.gate = {kHardSigmoid, 0.2, 0.5}, o.cell.cell = {kSoftsign, 1, 0}, o.cell.output = {kElu, 0.7, 0};
  });
  add("activations", 1, 2, [](Case& c, Options& o) {
    o.cell.gate = {kSigmoid, 1, 0}, o.cell.cell = {kLeakyRelu, 0.1, 0}, o.cell.output = {kScaledTanh, 1.2, 0.7};
    c.lengths = true;
  });
  add("zoneout", 2, 1,
      [](Case& c, Options& o) { o.cell.zoneout_h = 0.3, o.cell.zoneout_c = 0.2, c.lengths = c.resets = true; });
  add("zoneout of c, peephole", 1, 2,
      [](Case& c, Options& o) { o.cell.zoneout_c = 0.2, o.peephole = c.resets = true; });
  add("recurrent dropout", 2, 1, [](Case& c, Options& o) { o.recurrent_dropout = 0.4, c.resets = true; });
  add("recurrent dropout, zoneout of h, projection", 1, 1, [](Case& c, Options& o) {
    o.recurrent_dropout = 0.4, o.projection = 1, o.cell.zoneout_h = 0.3, c.lengths = c.resets = true;
  });
  add("dropout", 3, 1, [](Case& c, Options& o) { o.dropout = 0.4, c.lengths = true; });
  add("weight drop", 2, 1, [](Case&, Options& o) { o.weight_drop = 0.4; });
  add("reverse", 2, 1, [](Case& c, Options& o) { o.reverse = c.lengths = c.resets = true; });
  add("both ways, dropout", 2, 2, [](Case& c, Options& o) { o.dropout = 0.4, c.resets = c.lengths = true; });
  add("sum, residual", 3, 2, [](Case&, Options& o) { o.merge = Merge::sum, o.shortcut = Shortcut::residual; });
  add("product, highway", 2, 2,
      [](Case& c, Options& o) { o.merge = Merge::mul, o.shortcut = Shortcut::highway, c.lengths = true; });
  add("mean, dense", 2, 2,
      [](Case& c, Options& o) { o.merge = Merge::mean, o.shortcut = Shortcut::dense, c.resets = true; });
  add("residual", 3, 1, [](Case& c, Options& o) { o.shortcut = Shortcut::residual, c.lengths = true; });
  add("highway, dropout", 3, 1,
      [](Case& c, Options& o) { o.shortcut = Shortcut::highway, o.dropout = 0.3, c.lengths = true; });
  add("dense", 3, 1, [](Case& c, Options& o) { o.shortcut = Shortcut::dense, o.dropout = 0.3, c.resets = true; });
  add("reverse, highway", 2, 1,
      [](Case& c, Options& o) { o.shortcut = Shortcut::highway, o.reverse = c.lengths = true; });
  add("Elman", 2, 1, [](Case& c, Options& o) {
    o.cell.elman = true, o.cell.gate = {kTanh, 1, 0}, o.recurrent_dropout = 0.4, c.resets = true;
  });
  add("Elman both ways", 2, 2, [](Case& c, Options& o) {
    o.cell.elman = true, o.cell.gate = {kRelu, 1, 0}, o.shortcut = Shortcut::residual, c.lengths = true;
  });
  add("all but normalisation", 2, 2, [](Case& c, Options& o) {
    o.projection = 1, o.proj_clip = 0.5, o.peephole = o.cell.coupled = c.lengths = c.resets = true;
    o.cell.gate_clip = 1.1, o.cell.cell_clip = 0.7, o.cell.zoneout_h = 0.3, o.cell.zoneout_c = 0.2;
    o.merge = Merge::mean, o.shortcut = Shortcut::highway, o.dropout = o.recurrent_dropout = o.weight_drop = 0.3;
  });
  add("all", 3, 1, [](Case& c, Options& o) {
    o.projection = 1, o.proj_clip = 0.5, o.peephole = o.cell.coupled = c.lengths = c.resets = true;
    o.layer_norm = LayerNorm::carried;
    o.cell.gate_clip = 1.1, o.cell.cell_clip = 0.7, o.cell.zoneout_h = 0.3, o.cell.zoneout_c = 0.2;
    o.shortcut = Shortcut::dense, o.dropout = o.recurrent_dropout = o.weight_drop = 0.3;
  });
  return all;
}

}  // namespace network_cases
