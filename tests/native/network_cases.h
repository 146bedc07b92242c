// Networks that together have every option, and their inputs.
#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "kernel_test.h"
#include "rnn/rows.h"
#include "rnn/tape.h"
#include "rnn/weights.h"

namespace network_cases {

using namespace quadgate;
using namespace kernel_test;

struct Case {
  const char* name;
  size_t layers = 1, directions = 1;
  Options options = {};  // a projection of any size stands for one that goes with the hidden size
  bool lengths = false, resets = false, bias = true;
  bool long_one = false;  // is tested with many steps, too
};

inline std::vector<Case> cases() {
  std::vector<Case> all;
  auto add = [&](const char* name, size_t layers, size_t directions, auto&& change) {
    all.push_back({name, layers, directions});
    change(all.back(), all.back().options);
  };
  add("plain", 1, 1, [](Case& c, Options&) { c.lengths = true; });
  add("plain layers", 2, 1, [](Case& c, Options&) { c.bias = false, c.long_one = true; });
  add("plain layers with lengths", 3, 1, [](Case& c, Options&) { c.lengths = c.resets = true; });
  add("peephole", 1, 1, [](Case& c, Options& o) { o.peephole = c.lengths = c.resets = true; });
  add("projection", 1, 1, [](Case&, Options& o) { o.projection = 1, o.proj_clip = 0.3; });
  add("projection both ways", 2, 2, [](Case& c, Options& o) { o.projection = 1, c.lengths = true; });
  add("normalised", 1, 1, [](Case& c, Options& o) { o.layer_norm = LayerNorm::output, c.lengths = true; });
  add("normalised cell", 2, 1,
      [](Case& c, Options& o) { o.layer_norm = LayerNorm::cell, o.peephole = c.resets = true; });
  add("normalised, projection, zoneout", 1, 1, [](Case& c, Options& o) {
    o.layer_norm = LayerNorm::output, o.projection = 1;
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
  add("dropout", 3, 1, [](Case& c, Options& o) { o.dropout = o.recurrent_dropout = 0.4, c.lengths = true; });
  add("weight drop", 2, 1, [](Case&, Options& o) { o.weight_drop = 0.4; });
  add("reverse", 2, 1, [](Case& c, Options& o) { o.reverse = c.lengths = c.resets = true; });
  add("both ways, dropout", 2, 2,
      [](Case& c, Options& o) { o.dropout = 0.4, c.resets = c.lengths = c.long_one = true; });
  add("sum, residual", 3, 2, [](Case&, Options& o) { o.merge = Merge::sum, o.shortcut = Shortcut::residual; });
  add("product, highway", 2, 2,
      [](Case& c, Options& o) { o.merge = Merge::mul, o.shortcut = Shortcut::highway, c.lengths = c.long_one = true; });
  add("mean, dense", 2, 2,
      [](Case& c, Options& o) { o.merge = Merge::mean, o.shortcut = Shortcut::dense, c.resets = true; });
  add("residual", 3, 1, [](Case& c, Options& o) { o.shortcut = Shortcut::residual, c.lengths = true; });
  add("highway, dropout", 3, 1,
      [](Case& c, Options& o) { o.shortcut = Shortcut::highway, o.dropout = 0.3, c.lengths = true; });
  add("dense", 3, 1, [](Case& c, Options& o) { o.shortcut = Shortcut::dense, o.dropout = 0.3, c.resets = true; });
  add("reverse, highway", 2, 1,
      [](Case& c, Options& o) { o.shortcut = Shortcut::highway, o.reverse = c.lengths = true; });
  add("Elman", 2, 1, [](Case& c, Options& o) {
    o.cell.type = CellType::elman, o.cell.gate = {kTanh, 1, 0}, o.recurrent_dropout = 0.4, c.resets = true;
  });
  add("Elman both ways", 2, 2, [](Case& c, Options& o) {
    o.cell.type = CellType::elman, o.cell.gate = {kRelu, 1, 0}, o.shortcut = Shortcut::residual, c.lengths = true;
  });
  add("all but normalisation", 2, 2, [](Case& c, Options& o) {
    o.projection = 1, o.proj_clip = 0.5, o.peephole = o.cell.coupled = c.lengths = c.resets = true;
    o.cell.gate_clip = 1.1, o.cell.cell_clip = 0.7, o.cell.zoneout_h = 0.3, o.cell.zoneout_c = 0.2;
    o.merge = Merge::mean, o.shortcut = Shortcut::highway, o.dropout = o.recurrent_dropout = o.weight_drop = 0.3;
  });
  add("all", 3, 1, [](Case& c, Options& o) {
    o.projection = 1, o.proj_clip = 0.5, o.peephole = o.cell.coupled = c.lengths = c.resets = true;
    o.layer_norm = LayerNorm::cell;
    o.cell.gate_clip = 1.1, o.cell.cell_clip = 0.7, o.cell.zoneout_h = 0.3, o.cell.zoneout_c = 0.2;
    o.shortcut = Shortcut::dense, o.dropout = o.recurrent_dropout = o.weight_drop = 0.3;
  });
  // Rows of equal length, whose tape is in parts.
  add("zoneout of all rows", 2, 1, [](Case&, Options& o) { o.cell.zoneout_h = 0.3, o.cell.zoneout_c = 0.2; });
  add("residual, dropout of all rows", 3, 1,
      [](Case&, Options& o) { o.shortcut = Shortcut::residual, o.dropout = 0.3; });
  add("highway of all rows", 2, 1, [](Case&, Options& o) { o.shortcut = Shortcut::highway; });
  // Rows that end, where nothing else keeps steps out of one kernel call.
  add("plain, both ways with lengths", 2, 2, [](Case& c, Options&) { c.lengths = c.long_one = true; });
  add("plain, reverse with lengths", 2, 1, [](Case& c, Options& o) { o.reverse = c.lengths = true; });
  return all;
}

template <class Real>
struct Network {
  Sizes sizes;
  std::vector<std::vector<Real>> values;
  std::vector<LayerParameters<const Real*>> layers;
  std::vector<HighwayParameters<const Real*>> highways;
  std::shared_ptr<const Weights<Real>> weights;

  explicit Network(const Sizes& s) : sizes(s), layers(s.states(), LayerParameters<const Real*>()), highways(s.layers) {
    each_parameter<const Real*>(
        s, layers.data(), highways.data(), [&](const Real*& slot, size_t rows, size_t cols, int axes) {
          values.push_back(uniform<Real>(rows * cols, axes == 1 ? 0.5 : 1.5 / std::sqrt(double(cols))));
          slot = values.back().data();
        });
    weights = std::make_shared<const Weights<Real>>(s, layers.data(), highways.data());
  }
};

// A (T,B,n) array whose rows lie apart, with NaN in between; time-major or batch-major.
template <class Real>
class Sequence {
 public:
  Sequence(size_t steps, size_t batch, size_t n, bool batch_first)
      : steps_(steps), batch_(batch), n_(n), all_(steps * batch * (n + kGap)) {
    plane_.base = all_.data();
    plane_.step = (batch_first ? 1 : batch) * (n + kGap);
    plane_.row = (batch_first ? steps : 1) * (n + kGap);
  }
  Plane<Real> plane() const { return plane_; }
  Plane<const Real> input() const { return {plane_.base, plane_.step, plane_.row, 0}; }
  void randomise() {
    each([&](Real* row) {
      const auto v = uniform<Real>(n_);
      std::copy(v.begin(), v.end(), row);
    });
  }
  // The elements alone; nothing else may have been written.
  std::vector<Real> copy() const {
    std::vector<Real> v;
    each([&](const Real* row) {
      v.insert(v.end(), row, row + n_);
      CHECK(std::isnan(row[n_]) && std::isnan(row[n_ + 1]) && std::isnan(row[n_ + 2]));
    });
    return v;
  }

 private:
  static constexpr size_t kGap = 3;
  template <class F>
  void each(F&& f) const {
    for (size_t t = 0; t < steps_; ++t)
      for (size_t b = 0; b < batch_; ++b) f(plane_.at(t, b));
  }
  size_t steps_, batch_, n_;
  Guarded<Real> all_;
  Plane<Real> plane_;
};

// The inputs of a run. Made once: runs may be at the same time.
template <class Real>
struct Inputs {
  size_t steps, batch;
  bool batch_first, states;
  std::vector<int64_t> lengths;
  std::vector<unsigned char> resets;
  std::vector<std::vector<unsigned char>> bytes;  // of the masks
  Masks masks;
  Sequence<Real> x, dy, dcells;
  Guarded<Real> h0, c0, dh, dc;

  Inputs(const Case& what, const Sizes& s, size_t steps_, size_t batch_, size_t number)
      : steps(steps_),
        batch(batch_),
        batch_first(number % 2),
        states(number % 3),
        x(steps, batch, s.input, batch_first),
        dy(steps, batch, s.output(), batch_first),
        dcells(steps, batch, s.directions * s.cell(), batch_first),
        h0(uniform<Real>(s.states() * batch * s.recurrent())),
        c0(uniform<Real>(s.states() * batch * s.cell())),
        dh(uniform<Real>(h0.size())),
        dc(uniform<Real>(c0.size())) {
    for (Sequence<Real>* one : {&x, &dy, &dcells}) one->randomise();
    if (what.lengths)
      for (size_t b = 0; b < batch; ++b)
        lengths.push_back(int64_t(b + 1 == batch ? steps : b == 0 ? 0 : 1 + 5 * b % steps));
    if (what.resets)
      // The longest row keeps its initial state, whose gradient may not vanish.
      for (size_t i = 0; i < steps * batch; ++i) resets.push_back(engine()() % 4 == 0 && i + 1 != batch);
    const Options& o = s.options;
    auto draw = [&](double rate, std::vector<const unsigned char*>& list, size_t n) {
      if (rate == 0) return;
      bytes.push_back(flags(n));
      list.push_back(bytes.back().data());
    };
    const size_t R = s.recurrent(), H = s.hidden, rows = steps * batch;
    for (size_t k = 0; k < s.states(); ++k) {
      draw(o.weight_drop, masks.weight, s.gates() * H * R);
      draw(o.recurrent_dropout, masks.recurrent, batch * R);
      draw(o.cell.zoneout_h, masks.zoneout_h, rows * R);
      draw(o.cell.zoneout_c, masks.zoneout_c, rows * H);
    }
    for (size_t l = 0; l + 1 < s.layers; ++l) draw(o.dropout, masks.dropout, rows * s.output());
  }
};

}  // namespace network_cases
