// Weights of 16 bits as floats: which networks are packed as such, and which calls widen them.
#include <algorithm>
#include <type_traits>

#include "cpu/caches.h"
#include "cpu/throughput.h"
#include "parallel/this_thread.h"
#include "rnn/weights.h"

namespace quadgate {
namespace {

// bench/notes/quantized.md has the measurements.
//
// Steps of a layer from which on widening its weights for them pays if the floats fit L2. For fewer steps L2 would have
// to hold the floats of all layers in turn.
constexpr size_t kWideSteps = 8;
// Rows of all steps together from which on it pays even if the floats do not fit L2, since multiply-adds take longer
// than reading.
constexpr size_t kManyWideRows = 256;
// The most memory that is borrowed for it, or kept.
constexpr size_t kMostWideBytes = size_t(64) << 20;
// Weights that are cheap to widen (CompactFunctions::cheap_rows) are slower than floats only where these come from L1.
constexpr size_t kCheapBytes = size_t(64) << 10;

// Small networks of 16 bits whose padding is no matter.
constexpr size_t kTinyBytes = size_t(64) << 10;
// Blocks of which half an empty one is much.
constexpr size_t kFewBlocks = 8;

// True where reading floats from beyond L2 takes several rows no longer than widening weights: on AMD up to Zen 4,
// whose L3 gives 24 bytes a cycle, with vectors of 64 bytes, of which widening one takes two cycles.
bool reads_floats_fast(size_t width) {
  const CoreThroughput& speed = core_throughput();
  return speed.beyond > 16 && speed.multiply_adds <= 64 && width == 16;
}

// `of` without the matrices for which kMostWideBytes has no room. Where a step reads both `together`, one alone is of
// no use; else weight_hh comes first, which every step reads.
FloatMatrices within_limit(FloatMatrices of, size_t n_ih, size_t n_hh, bool together) {
  constexpr size_t most = kMostWideBytes / sizeof(float);
  if (together && n_ih + n_hh > most) return {};
  of.hh = of.hh && n_hh <= most;
  of.ih = of.ih && n_ih <= most - (of.hh ? n_hh : 0);
  return of;
}

}  // namespace

// Bytes of floats up to which so many rows read them at each step as fast as compact weights, by `parts` threads with
// an L2 of their own each and one L3.
template <class Real>
size_t Weights<Real>::most_floats(size_t rows, size_t steps, size_t parts) const {
  if (rows <= functions_.cheap_rows) return steps > 1 ? kCheapBytes * parts : 0;
  if (rows == 1) return l2_bytes() / 4 * 3 * parts;
  if (rows > 2 * kernels.max_rows) return kMostWideBytes * parts;
  const bool few = rows <= functions_.few_rows;
  // Few rows gain by weights of bfloat16, but where these have the empty lanes that narrow panels of floats lack.
  const bool cheap = sizes.options.weights == WeightType::bfloat16, fast_beyond = reads_floats_fast(kernels.width);
  const bool padded = blocks_ <= kFewBlocks && floats_shape(layers_[0]).narrow_last();
  const size_t beyond = fast_beyond && (!few || !cheap || padded) ? cache_sizes().l3 / 8 * 3 : 0;
  return std::max((few ? 1 : 4) * l2_bytes() * parts, beyond);
}

// The matrices of a layer for several steps. In a few of them no layer's weights stay in a cache while the others are
// read, so that the sum of all layers counts.
template <class Real>
FloatMatrices Weights<Real>::float_matrices(size_t l, const Reads& s) const {
  const bool few = s.steps < kWideSteps;
  const size_t n_ih = few ? n_ih_ : float_elements(l, {true, false}),
               n_hh = few ? n_hh_ : float_elements(l, {false, true});
  auto fit = [&](size_t n, size_t rows) { return n <= most_floats(rows, s.steps, s.parts) / sizeof(Real); };
  const size_t input = layer(l, 0).ih.n_k;
  if (projects_ahead(input, s.rows, s.steps))
    return {fit(n_ih, s.rows * std::min(s.steps, ahead_steps(s.rows, s.steps))), fit(n_hh, s.rows)};
  const bool both = fit(n_ih + n_hh, s.rows);
  return {both, both};
}

template <class Real>
FloatMatrices Weights<Real>::float_matrices(const Reads& call) const {
  if (!widening_rows() || call.rows == 0) return {};
  if (call.steps == 1) {
    const size_t most = std::min(most_floats(call.rows, 1, call.parts), kMostWideBytes) / sizeof(Real);
    // A step without the product with h needs the floats of weight_ih alone, so both are kept only if they are small,
    // or if a narrow last panel, which panels have only if both matrices are floats, saves much of a few panels.
    const bool much = blocks_ <= kFewBlocks && floats_shape(layers_[0]).narrow_last();
    const bool both = n_ih_ + n_hh_ <= (call.without_h && !much ? most / 4 : most);
    return {both || (call.without_h && n_ih_ <= most), both};
  }
  FloatMatrices all = {true, true};
  bool together = false;
  for (size_t l = 0; l < sizes.layers; ++l) {
    const FloatMatrices one = float_matrices(l, call);
    all = {all.ih && one.ih, all.hh && one.hh};
    together |= !projects_ahead(layer(l, 0).ih.n_k, call.rows, call.steps);
  }
  return within_limit(all, n_ih_, n_hh_, together);
}

template <class Real>
FloatMatrices Weights<Real>::widened(size_t l, const Reads& s) const {
  if (!widening_rows() || s.rows == 0 || s.steps < kWideSteps) return {};
  const size_t n_ih = float_elements(l, {true, false}), n_hh = float_elements(l, {false, true});
  const bool many = s.steps * s.rows >= kManyWideRows, together = !projects_ahead(layer(l, 0).ih.n_k, s.rows, s.steps);
  auto pays = [&](size_t n) { return many || n / s.parts <= l2_bytes() / sizeof(Real); };
  FloatMatrices of = float_matrices(l, s);
  of.ih = of.ih && pays(together ? n_ih + n_hh : n_ih);
  of.hh = of.hh && pays(together ? n_ih + n_hh : n_hh);
  return within_limit(of, n_ih, n_hh, together);
}

template <class Real>
size_t Weights<Real>::float_elements(size_t l, FloatMatrices of) const {
  const Packed<Real>&ih = layer(l, 0).ih, &hh = layer(l, 0).hh;
  return checked_mul((of.ih ? ih.n_k : 0) + (of.hh ? hh.n_k : 0), hh.row());
}

template <class Real>
void Weights<Real>::widen(const Packed<Real>& matrix, size_t block_begin, size_t block_end) const {
  const PanelShape& shape = matrix.shape;
  if constexpr (std::is_same_v<Real, float>)
    if (block_begin < block_end)
      functions_.widen(static_cast<const char*>(matrix.compact.panels) + block_begin * matrix.compact.panel_bytes,
                       block_end - block_begin, matrix.n_k, int(shape.vectors()),
                       shape.narrow_last() && block_end == shape.blocks(),
                       matrix.panels + block_begin * matrix.n_k * shape.line());
}

template <class Real>
void Weights<Real>::widen(const PackedLayer<Real>& layer, size_t block_begin, size_t block_end) const {
  if (layer.ih.panels) widen(layer.ih, block_begin, block_end);
  if (layer.hh.panels) widen(layer.hh, block_begin, block_end);
}

template <class Real>
PanelShape Weights<Real>::floats_shape(const PackedLayer<Real>& layer) const {
  PanelShape shape = layer.ih.shape;
  shape.narrow = narrow_floats_;
  return shape;
}

template <class Real>
FloatWeights<Real> Weights<Real>::kept_floats(const Reads& call, bool stays) const {
  FloatWeights<Real> floats;
  if constexpr (std::is_same_v<Real, float>) {
    const FloatMatrices of = float_matrices(call);
    if (!of.any()) return floats;
    ThisThread* thread = this_thread();
    if (!thread) return floats;
    KeptFloats& kept = thread->kept;
    ++kept.calls;
    const uint64_t id = id_ + (of.both() ? 0 : of.ih ? 1 : 2);
    KeptFloats::Slot* slot = kept.find(id);
    if (!slot) {
      const size_t n = (of.ih ? n_ih_ : 0) + (of.hh ? n_hh_ : 0);
      size_t most = kMostWideBytes;
      if (call.steps < kWideSteps) {  // a cache should hold the floats of all networks that are called in turn
        const size_t fast = most_floats(call.rows, call.steps, call.parts);
        most = std::min(most, std::max(n * sizeof(Real), fast));
      }
      slot = kept.make(id, n, most, stays);
      if (!slot) return floats;
      floats = {slot->floats.data(), of};
      for (size_t i = 0; i < layers_.size(); ++i)
        widen(with_floats(i / sizes.directions, i % sizes.directions, floats), 0, blocks_);
      slot->key = id;
    }
    slot->last_call = kept.calls;
    floats = {slot->floats.data(), of};
  }
  (void)call;
  (void)stays;
  return floats;
}

// True for small matrices of 16 bits: floats are read as fast as they are then, also by one row, and no product has to
// widen them. They must not take a tenth more memory than two copies of 16 bits, of which one has no padding, but for
// sizes at which that is no matter.
template <class Real>
bool Weights<Real>::better_as_floats() const {
  const WeightType type = sizes.options.weights;
  if (type != WeightType::float16 && type != WeightType::bfloat16) return false;
  size_t whole = 0, padded = 0, compact = 0;
  each_packed([&](const Packed<Real>& p, bool) {
    PanelShape floats = p.shape;
    floats.narrow = narrow_floats_;
    whole += p.shape.total() * p.n_k;
    padded += floats.elements(p.n_k);
    compact += p.shape.elements(p.n_k);
  });
  // Empty lanes, which narrow panels of floats lack, cost bfloat16 its lead.
  const bool leads = type == WeightType::bfloat16 && 10 * compact < 11 * padded;
  const size_t bytes = padded * sizeof(Real), most = leads ? 2 * kCheapBytes : l2_bytes() / 4;
  return bytes <= most && (bytes <= kTinyBytes || 20 * padded <= 11 * (compact + whole));
}

template <class Real>
PackedLayer<Real> Weights<Real>::with_floats(size_t l, size_t d, const FloatWeights<Real>& floats) const {
  auto* to = const_cast<Real*>(floats.panels);  // the thread's own memory, written by kept_floats only
  for (size_t i = 0; i < l * sizes.directions + d; ++i) to += float_elements(i / sizes.directions, floats.of);
  return with_panels(l, d, floats.of, to);
}

template <class Real>
PackedLayer<Real> Weights<Real>::with_panels(size_t l, size_t d, FloatMatrices of, Real* panels) const {
  // A copy: compact weights have no back panels, which another call may be making.
  PackedLayer<Real> layer = layers_[l * sizes.directions + d];
  if (of.both()) {  // else sums of one matrix meet those of the other in whole panels
    layer.ih.shape = layer.hh.shape = floats_shape(layer);
    if (layer.float_bias) layer.ih.bias = layer.float_bias;
  }
  if (of.ih) layer.ih.panels = panels;
  if (of.hh) layer.hh.panels = panels + (of.ih ? layer.ih.n_k * layer.ih.row() : 0);
  return layer;
}

#define QG_INSTANTIATE(Real)                                                                              \
  template FloatMatrices Weights<Real>::float_matrices(const Reads&) const;                               \
  template FloatMatrices Weights<Real>::widened(size_t, const Reads&) const;                              \
  template size_t Weights<Real>::float_elements(size_t, FloatMatrices) const;                             \
  template void Weights<Real>::widen(const PackedLayer<Real>&, size_t, size_t) const;                     \
  template PanelShape Weights<Real>::floats_shape(const PackedLayer<Real>&) const;                        \
  template FloatWeights<Real> Weights<Real>::kept_floats(const Reads&, bool) const;                       \
  template bool Weights<Real>::better_as_floats() const;                                                  \
  template PackedLayer<Real> Weights<Real>::with_floats(size_t, size_t, const FloatWeights<Real>&) const; \
  template PackedLayer<Real> Weights<Real>::with_panels(size_t, size_t, FloatMatrices, Real*) const;
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
