// Weights of 16 bits as floats: which networks are packed as such, and which calls widen them.
#include <algorithm>
#include <type_traits>

#include "cpu/caches.h"
#include "parallel/this_thread.h"
#include "rnn/weights.h"

namespace quadgate {
namespace {

// Steps from which on widening the weights of a layer for them pays where they fit L2 as floats; rows of all steps from
// which on it does where they do not, but multiply-adds take longer than reading; and the most memory that is borrowed
// for it. bench/notes/quantized.md has the measurements.
constexpr size_t kWideSteps = 8, kManyWideRows = 256, kMostWideBytes = size_t(64) << 20;
// Weights of bfloat16 take one operation to widen: for one row that is slower than reading floats only from L1.
constexpr size_t kCheapBytes = size_t(128) << 10;

// Small networks of 16 bits whose padding is no matter.
constexpr size_t kTinyBytes = size_t(64) << 10;

}  // namespace

template <class Real>
size_t Weights<Real>::wide_elements(size_t l, size_t rows, size_t steps) const {
  if (!compact() || !functions_.widen || steps < kWideSteps) return 0;
  const Packed<Real>&ih = layer(l, 0).ih, &hh = layer(l, 0).hh;
  const size_t n = checked_mul(checked_add(ih.n_k, hh.n_k), hh.row()), bytes = checked_mul(n, sizeof(Real));
  const bool bound = rows > kernels.max_rows && steps * rows >= kManyWideRows;  // by arithmetic
  return bytes <= (rows == 1 ? most_kept(1, steps) : bound ? kMostWideBytes : l2_bytes()) ? n : 0;
}

// Bytes of floats up to which reading them is no slower for so many rows. In many steps of one row only weight_hh is
// read at each; half of all it is, more or less.
template <class Real>
size_t Weights<Real>::most_kept(size_t rows, size_t steps) const {
  if (rows == 1 && sizes.options.weights == WeightType::bfloat16) return steps > 1 ? kCheapBytes : 0;
  if (rows == 1) return l2_bytes() / 4 * (steps < kWideSteps ? 3 : 6);
  if (rows <= kernels.max_rows) return l2_bytes();
  return rows <= 2 * kernels.max_rows ? std::min(4 * l2_bytes(), kMostWideBytes) : kMostWideBytes;
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

// The shape of a layer's panels of floats.
template <class Real>
PanelShape Weights<Real>::floats_shape(const PackedLayer<Real>& layer) const {
  PanelShape shape = layer.ih.shape;
  shape.narrow = narrow_floats_;
  return shape;
}

template <class Real>
const Real* Weights<Real>::kept_floats(size_t rows, size_t steps, bool stays) const {
  if constexpr (std::is_same_v<Real, float>) {
    if (!compact() || !functions_.widen) return nullptr;
    const size_t most = most_kept(rows, steps);
    if (n_floats_ > most / sizeof(Real)) return nullptr;
    ThisThread* thread = this_thread();
    if (!thread) return nullptr;
    KeptFloats& kept = thread->kept;
    ++kept.calls;
    KeptFloats::Slot* slot = kept.find(id_);
    if (!slot) {
      slot = kept.make(id_, n_floats_, most, stays);
      if (!slot) return nullptr;
      for (size_t i = 0; i < layers_.size(); ++i) {
        const PackedLayer<Real> to = with_floats(i / sizes.directions, i % sizes.directions, slot->floats.data());
        widen(to.ih, 0, blocks_);
        widen(to.hh, 0, blocks_);
      }
      slot->network = id_;
    }
    slot->last_call = kept.calls;
    return slot->floats.data();
  }
  (void)rows;
  (void)steps;
  (void)stays;
  return nullptr;
}

// True for small matrices of 16 bits: floats are read as fast as they are then, also by one row, and no product has to
// widen them. They must not take more memory than two copies of 16 bits, of which one has no padding, but for sizes at
// which that is no matter.
template <class Real>
bool Weights<Real>::better_as_floats() const {
  const WeightType type = sizes.options.weights;
  if (type != WeightType::float16 && type != WeightType::bfloat16) return false;
  size_t whole = 0, padded = 0;
  each_packed([&](const Packed<Real>& p, bool) {
    whole += p.shape.total() * p.n_k;
    padded += p.row() * p.n_k;
  });
  const size_t bytes = padded * sizeof(Real), most = type == WeightType::float16 ? l2_bytes() / 4 : kCheapBytes;
  return bytes <= most && (bytes <= kTinyBytes || 10 * padded <= 12 * whole);
}

template <class Real>
PackedLayer<Real> Weights<Real>::with_floats(size_t l, size_t d, const Real* floats) const {
  auto size = [](const Packed<Real>& p) { return p.n_k * p.row(); };
  const size_t at = l * sizes.directions + d;
  auto* to = const_cast<Real*>(floats);  // the thread's own memory, written by kept_floats only
  for (size_t i = 0; i < at; ++i) to += size(layers_[i].ih) + size(layers_[i].hh);
  return with_panels(l, d, to);
}

template <class Real>
PackedLayer<Real> Weights<Real>::with_panels(size_t l, size_t d, Real* panels) const {
  // A copy: compact weights have no back panels, which another call may be making.
  PackedLayer<Real> layer = layers_[l * sizes.directions + d];
  layer.ih.shape = layer.hh.shape = floats_shape(layer);
  layer.ih.panels = panels;
  layer.hh.panels = panels + layer.ih.n_k * layer.ih.row();
  if (layer.float_bias) layer.ih.bias = layer.float_bias;
  return layer;
}

#define QG_INSTANTIATE(Real)                                                                \
  template size_t Weights<Real>::wide_elements(size_t, size_t, size_t) const;               \
  template void Weights<Real>::widen(const Packed<Real>&, size_t, size_t) const;            \
  template PanelShape Weights<Real>::floats_shape(const PackedLayer<Real>&) const;          \
  template const Real* Weights<Real>::kept_floats(size_t, size_t, bool) const;              \
  template bool Weights<Real>::better_as_floats() const;                                    \
  template PackedLayer<Real> Weights<Real>::with_floats(size_t, size_t, const Real*) const; \
  template PackedLayer<Real> Weights<Real>::with_panels(size_t, size_t, Real*) const;
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
