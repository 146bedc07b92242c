// The packed weights of a stack of layers.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/table.h"
#include "memory/buffer.h"
#include "memory/packing.h"
#include "parallel/cost.h"
#include "parallel/fork.h"
#include "parallel/plan.h"
#include "rnn/model.h"

namespace quadgate {

// A matrix in panels, for products in both directions.
template <class Real>
struct Packed {
  Real* panels = nullptr;  // null where weights are compact, and not widened for a call
  Real* bias = nullptr;
  Real* back = nullptr;        // null until a backward pass needs it
  CompactMatrix compact = {};  // in the place of `panels` where weights are compact; there is no `back` then
  PanelShape shape = {4, 0, 1};
  size_t n_k = 0;                                               // columns
  size_t row() const { return shape.blocks() * shape.line(); }  // elements of one k, or of one row of a product
};

// One layer and direction in panels (kernels/layouts.h has the layouts), inside the memory of its Weights.
template <class Real>
struct PackedLayer {
  Packed<Real> ih, hh, hr;     // ih has the bias; hr is there with a projection only
  Real* float_bias = nullptr;  // of compact weights: ih's as their floats need it, whose last panel may be narrow
  Real* peephole = nullptr;    // (3,H) or null
  Norm<Real> norm = {};        // gains null without layer normalisation
  // True if a step with products of x, of h, or of neither, reads floats alone.
  bool floats_for(bool x, bool h) const { return (ih.panels || hh.panels) && (!x || ih.panels) && (!h || hh.panels); }
};

// The matrices of compact weights that are read as floats.
struct FloatMatrices {
  bool ih = false, hh = false;
  bool any() const { return ih || hh; }
  bool both() const { return ih && hh; }
};

// The products that read a network's weights in a call, or some steps of a layer.
struct Reads {
  size_t rows, steps;
  size_t parts;    // threads that share the units of a step, each with an L2 of its own
  bool without_h;  // of one step: it leaves the product with h out
};

// Some matrices of all layers as floats, one behind the other.
template <class Real>
struct FloatWeights {
  const Real* panels = nullptr;  // null: none
  FloatMatrices of = {};
};

// An immutable set of packed weights: calls share it by pointer, a change of parameters makes a new one. So a call that
// runs while another thread sets parameters uses the old ones throughout.
template <class Real>
class Weights {
 public:
  // params: states() of them, layer by layer, forward direction first; highways: one for each layer. Packs at once.
  Weights(const Sizes& sizes, const LayerParameters<const Real*>* params,
          const HighwayParameters<const Real*>* highways);

  // Compact weights of a float32 network. Matrices are of the stored type, all else of float; scales: the same, with a
  // float for each row of a matrix of int8.
  Weights(const Sizes& sizes, const LayerParameters<const void*>* params, const LayerParameters<const void*>* scales,
          const HighwayParameters<const void*>* highways, const HighwayParameters<const void*>* highway_scales);

  // The same with parts of each hh dropped, the others scaled up by 1 / (1 - rate). dropped: states() pointers to
  // (G*H, R) bytes, 1 where dropped. All that is not hh stays in the memory of `whole`.
  Weights(std::shared_ptr<const Weights> whole, const std::vector<const unsigned char*>& dropped, double rate);

  const Kernels<Real>& kernels;
  const Sizes sizes;
  size_t blocks() const { return blocks_; }  // of a layer's panels
  KernelSizes kernel_sizes() const { return {kernels.width, kernels.max_rows, sizeof(Real)}; }
  const PackedLayer<Real>& layer(size_t l, size_t d) const { return layers_[l * sizes.directions + d]; }
  const Packed<Real>& highway(size_t l) const { return highways_[l]; }
  const CellOptions<Real>* cell_options() const { return plain_ ? nullptr : &cell_options_; }  // null: the plain cell

  ~Weights() { delete back_panels_.load(std::memory_order_relaxed); }

  // Without what a buffer has to spare.
  size_t used_bytes() const {
    const Buffer<Real>* back = back_panels_.load(std::memory_order_acquire);
    return (panels_.size() + (back ? back->size() : 0)) * sizeof(Real);
  }
  size_t bytes() const {
    const Buffer<Real>* back = back_panels_.load(std::memory_order_acquire);
    return (panels_.capacity() + (back ? back->capacity() : 0)) * sizeof(Real);
  }
  // The step of a layer, complete but for its weights, and any other product with a packed matrix, by the kernel for
  // floats where all that it reads is float, else by that of the compact type. work: compact_work(step.n_rows) bytes;
  // null where that is 0.
  void forward(const PackedLayer<Real>& layer, ForwardStep<Real>& step, char* work) const;
  void project(const Packed<Real>& matrix, Project<Real>& product, char* work) const;
  // True if matrices are packed in a compact type. Small ones of 16 bits are packed as floats, their only copy: as many
  // bytes as two of 16 bits, and as fast as those of a float32 network.
  bool compact() const { return sizes.compact_type() && !floats_; }
  // Bytes of a packed weight, and CompactFunctions::rate; as they are without compact weights: sizeof(Real) and 1.
  double weight_size() const { return compact() ? compact_weight_size(sizes.options.weights) : sizeof(Real); }
  double rate(size_t rows) const {
    if (!compact()) return 1;
    if (functions_.widen) return double(rows) / (double(rows) + widening_rows());
    return rows < kFewestTileRows ? functions_.rate : functions_.tile_rate;
  }
  // Rows whose multiply-adds take as long as widening a line for them; 0 where none is.
  double widening_rows() const { return !compact() || !functions_.widen ? 0 : functions_.cheap_rows ? 1 : 2; }
  // The rate of int8 for plans. Tiles of few rows take no less time than of more, so a part of the rows gains nothing
  // by them.
  double plan_rate(size_t rows) const {
    return widening_rows() ? 1 : compact() && rows < kFastTileRows ? functions_.rate : rate(rows);
  }
  // Row-major copies of the matrices that are packed as they are, in the order of each_parameter. to: as many pointers.
  void unpack(Real* const* to) const;
  // True if the input products of a layer are made ahead, many steps' rows at a time; false if they join each step's
  // product as more k.
  bool projects_ahead(size_t input, size_t rows, size_t steps) const;
  // The matrices that should be floats in such a call, where reading those is no slower.
  FloatMatrices float_matrices(const Reads& call) const;
  // Their floats, in memory that the calling thread keeps for the networks that it called last; the caller has its
  // scratch. Null where there are none, and in a network's first call unless it `stays`: the copy takes as long as a
  // few calls.
  FloatWeights<Real> kept_floats(const Reads& call, bool stays = false) const;
  // The shape of a layer's panels of floats where both matrices are.
  PanelShape floats_shape(const PackedLayer<Real>& layer) const;
  // The layer with panels that lie there.
  PackedLayer<Real> with_floats(size_t l, size_t d, const FloatWeights<Real>& floats) const;
  // The same with its own panels alone.
  PackedLayer<Real> with_panels(size_t l, size_t d, FloatMatrices of, Real* panels) const;
  size_t quantized_k() const { return quantized_k_; }  // the largest n_k if rows of products are quantised, else 0
  size_t compact_work(size_t n_rows) const {
    return compact() ? compact_work_bytes(n_rows, quantized_k_, kernels.width) : 0;
  }
  // The matrices of a layer that should be widened for these steps alone.
  FloatMatrices widened(size_t l, const Reads& steps) const;
  // Elements of such matrices of a layer in float.
  size_t float_elements(size_t l, FloatMatrices of) const;
  // Panels of blocks [block_begin, block_end) of the matrices that with_floats or with_panels gave places, to those.
  void widen(const PackedLayer<Real>& layer, size_t block_begin, size_t block_end) const;
  // Makes the back panels; the first call works, concurrent ones wait for it.
  void need_back() const;
  // True if every weight_hh is known to be finite: its product with an h of zeros is zero then, and a step may leave it
  // out. Checks that if it is not known yet and a call of so many rows gains by it.
  bool zero_for_zero_h(size_t rows) const;

 private:
  Weights(const Sizes& sizes, bool dropping);
  bool better_as_floats() const;
  size_t most_floats(size_t rows, size_t steps, size_t parts) const;
  FloatMatrices float_matrices(size_t l, const Reads& steps) const;
  void widen(const Packed<Real>& matrix, size_t block_begin, size_t block_end) const;
  bool products_with_zeros_are_zero() const;
  template <class F>
  void each_packed(F&& f) const;

  CellOptions<Real> cell_options_;
  bool plain_, floats_ = false;
  bool narrow_floats_ = false;  // panels of floats of compact weights may end with a narrow one
  CompactFunctions functions_ = {};
  size_t quantized_k_ = 0;
  size_t n_ih_ = 0, n_hh_ = 0;  // elements of compact weights in all layers
  uint64_t id_ = 0;             // of compact weights, unique in the process with the two behind it, see kept_floats
  size_t blocks_;
  std::shared_ptr<const Weights> whole_;  // that parts were dropped of, or null
  Buffer<Real> panels_;
  mutable std::vector<PackedLayer<Real>> layers_;
  mutable std::vector<Packed<Real>> highways_;
  mutable ForkLock making_back_;
  mutable std::atomic<const Buffer<Real>*> back_panels_{nullptr};  // set once they and all pointers to them are ready
  enum class Finite : unsigned char { unasked, unknown, yes, no };
  mutable std::atomic<Finite> finite_hh_{Finite::unasked};
};

// f(packed, whether it has a bias) for every packed matrix there is.
template <class Real>
template <class F>
void Weights<Real>::each_packed(F&& f) const {
  for (PackedLayer<Real>& layer : layers_) {
    f(layer.ih, true);
    f(layer.hh, false);
    if (layer.hr.n_k) f(layer.hr, false);
  }
  for (Packed<Real>& highway : highways_)
    if (highway.n_k) f(highway, true);
}

// A call in numbers, for its plan. floats: the matrices of compact weights that are read as such.
template <class Real>
Work work_of(const Weights<Real>& w, size_t steps, size_t batch, Pass pass, FloatMatrices floats = {}) {
  const Sizes& s = w.sizes;
  const size_t units = w.blocks() * w.kernels.width;  // a block without gates holds four times as many
  const size_t passes = 1 + (s.options.projection > 0) + (s.options.layer_norm != LayerNorm::none);
  Work work = {steps,
               batch,
               s.input,
               std::min(units, s.hidden),
               s.layers,
               s.directions,
               s.recurrent(),
               s.output(),
               passes,
               w.kernels.width,
               w.kernels.max_rows,
               sizeof(Real),
               floats.hh ? sizeof(Real) : w.weight_size(),
               w.plan_rate(batch),
               pass,
               s.forward_only(),
               (floats.both() ? w.floats_shape(w.layer(0, 0)) : w.layer(0, 0).hh.shape).narrow_last()};
  work.widening = floats.hh ? 0 : w.widening_rows();
  return work;
}

}  // namespace quadgate
