#include "rnn/weights.h"

#include <algorithm>
#include <mutex>
#include <type_traits>
#include <utility>

#include "cpu/dispatch.h"
#include "memory/carver.h"

namespace quadgate {
namespace {

template <class Real>
Activation<Real> as(const Activation<double>& f) {
  return {f.function, Real(f.alpha), Real(f.beta)};
}

// Parameters of a layer's normalisation.
size_t norm_size(const Sizes& s) { return checked_mul(2 * (s.gates() + 1), s.hidden); }

}  // namespace

// Sizes and memory only. All layers lie in one piece. dropping: memory for the panels of hh only.
template <class Real>
Weights<Real>::Weights(const Sizes& s, bool dropping)
    : kernels(kernels_for<Real>()), sizes(s), plain_(s.options.plain_cell()), layers_(s.states()), highways_(s.layers) {
  const CellOptions<double>& c = s.options.cell;
  cell_options_ = {as<Real>(c.gate),  as<Real>(c.cell),  as<Real>(c.output),
                   Real(c.gate_clip), Real(c.cell_clip), Real(c.zoneout_h),
                   Real(c.zoneout_c), c.coupled,         c.type};
  const size_t W = kernels.width, H = s.hidden, R = s.recurrent(), O = s.output(), G = s.gates() * H;
  blocks_ = PanelShape{s.gates(), H, W}.blocks();
  // Kernels of double have no narrow panels, and normalisation reads products by whole vectors.
  const bool can_narrow = std::is_same_v<Real, float> && s.options.layer_norm == LayerNorm::none;
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].ih.shape = layers_[i].hh.shape = {s.gates(), H, W, can_narrow && !s.compact_type(), kernels.half_lines};
    layers_[i].ih.n_k = s.input_of(i / s.directions);
    layers_[i].hh.n_k = R;
    layers_[i].hr.shape = {1, R, W, false, kernels.half_lines};
    layers_[i].hr.n_k = s.options.projection ? H : 0;
  }
  for (size_t l = 0; l < s.layers; ++l) {
    highways_[l].shape = {1, O, W, false, kernels.half_lines};
    highways_[l].n_k = s.highway(l) ? O : 0;
  }
  narrow_floats_ = can_narrow && s.compact_type() && s.options.weights != WeightType::int8;
  floats_ = better_as_floats();
  for (PackedLayer<Real>& layer : layers_)
    if (floats_) layer.ih.shape.narrow = layer.hh.shape.narrow = narrow_floats_;
  auto carve = [&](Carver& pieces) {
    if (dropping) {
      for (PackedLayer<Real>& layer : layers_) layer.hh.panels = pieces.take<Real>(layer.hh.shape.elements(R));
      return;
    }
    each_packed([&](Packed<Real>& p, bool) {
      if (!compact()) {
        p.panels = pieces.take<Real>(p.shape.elements(p.n_k));
        return;
      }
      const bool scaled = s.options.weights == WeightType::int8;
      p.compact.panel_bytes = compact_panel_bytes(s.options.weights, p.shape, p.n_k);
      p.compact.panels = pieces.take<char>(checked_mul(p.shape.blocks(), p.compact.panel_bytes));
      p.compact.scales = pieces.take_if<float>(scaled, p.row());
      p.compact.sums = pieces.take_if<int32_t>(scaled, p.row());
      p.compact.n_k = p.n_k;
    });
    each_packed([&](Packed<Real>& p, bool biased) {
      if (biased) p.bias = pieces.take<Real>(p.row());
    });
    for (PackedLayer<Real>& layer : layers_) {
      if (compact() && floats_shape(layer).narrow_last()) layer.float_bias = pieces.take<Real>(layer.ih.row());
      if (s.options.peephole) layer.peephole = pieces.take<Real>(checked_mul(3, H));
      if (s.options.layer_norm == LayerNorm::none) continue;
      Real* at = pieces.take<Real>(norm_size(s));
      layer.norm = {
          at, at + G, at + 2 * G, at + 2 * G + H, Real(s.options.epsilon), s.options.layer_norm == LayerNorm::cell};
    }
  };
  Carver count;
  carve(count);
  panels_ = Buffer<Real>::hot(count.used() / sizeof(Real));
  Carver pieces(panels_.data(), panels_.nbytes());
  carve(pieces);
}

template <class Real>
Weights<Real>::Weights(const Sizes& s, const LayerParameters<const Real*>* params,
                       const HighwayParameters<const Real*>* highways)
    : Weights(s, false) {
  const size_t H = s.hidden, G = s.gates() * H;
  auto pack = [&](const Real* weight, const Real* bias, const Packed<Real>& to) {
    pack_panels(kernels.transpose, weight, to.shape, to.n_k, to.panels);
    if (to.bias) pack_bias(bias, to.shape, to.bias);
  };
  for (size_t i = 0; i < layers_.size(); ++i) {
    PackedLayer<Real>& p = layers_[i];
    const LayerParameters<const Real*>& from = params[i];
    pack(from.weight_ih, from.bias, p.ih);
    pack(from.weight_hh, nullptr, p.hh);
    if (p.hr.n_k) pack(from.weight_hr, nullptr, p.hr);
    if (p.peephole) std::copy(from.peephole, from.peephole + 3 * H, p.peephole);
    if (!p.norm.gain_ih) continue;
    Real* to = const_cast<Real*>(p.norm.gain_ih);  // inside our own memory, one after the other
    to = std::copy(from.norm_ih, from.norm_ih + G, to);
    to = std::copy(from.norm_hh, from.norm_hh + G, to);
    std::copy(from.norm_c, from.norm_c + 2 * H, to);
  }
  for (size_t l = 0; l < s.layers; ++l)
    if (highways_[l].n_k) pack(highways[l].weight, highways[l].bias, highways_[l]);
}

template <class Real>
Weights<Real>::Weights(const Sizes& s, const LayerParameters<const void*>* params,
                       const LayerParameters<const void*>* scales, const HighwayParameters<const void*>* highways,
                       const HighwayParameters<const void*>* highway_scales)
    : Weights(s, false) {
  const WeightType type = s.options.weights;
  functions_ = compact_functions(quadgate::kernels(), type).front();
  static std::atomic<uint64_t> last_id{0};
  id_ = last_id += 3;
  for (const PackedLayer<Real>& p : layers_) {
    n_ih_ += p.ih.n_k * p.ih.row();
    n_hh_ += p.hh.n_k * p.hh.row();
  }
  Buffer<char> passing;
  auto pack = [&](const void* weight, const void* scale, const void* bias, Packed<Real>& to) {
    if (type == WeightType::int8) {
      quantized_k_ = std::max(quantized_k_, to.n_k);
      pack_bias(static_cast<const float*>(scale), to.shape, const_cast<float*>(to.compact.scales));
    }
    void* panels = const_cast<void*>(to.compact.panels);
    if (floats_) {
      passing.resize_discard(to.shape.blocks() * compact_panel_bytes(type, to.shape, to.n_k));
      panels = passing.data();
    }
    pack_compact(weight, type, to.shape, to.n_k, panels, const_cast<int32_t*>(to.compact.sums));
    if constexpr (std::is_same_v<Real, float>)
      if (floats_)
        functions_.widen(panels, to.shape.blocks(), to.n_k, int(to.shape.vectors()), to.shape.narrow_last(), to.panels);
    if (to.bias) pack_bias(static_cast<const Real*>(bias), to.shape, to.bias);
  };
  const size_t H = s.hidden, G = s.gates() * H;
  for (size_t i = 0; i < layers_.size(); ++i) {
    PackedLayer<Real>& p = layers_[i];
    const LayerParameters<const void*>& from = params[i];
    pack(from.weight_ih, scales[i].weight_ih, from.bias, p.ih);
    if (p.float_bias) pack_bias(static_cast<const Real*>(from.bias), floats_shape(p), p.float_bias);
    pack(from.weight_hh, scales[i].weight_hh, nullptr, p.hh);
    if (p.hr.n_k) pack(from.weight_hr, scales[i].weight_hr, nullptr, p.hr);
    auto copy = [](const void* values, size_t n, Real* to) {
      std::copy_n(static_cast<const Real*>(values), n, to);
      return to + n;
    };
    if (p.peephole) copy(from.peephole, 3 * H, p.peephole);
    if (!p.norm.gain_ih) continue;
    Real* to = copy(from.norm_ih, G, const_cast<Real*>(p.norm.gain_ih));
    copy(from.norm_c, 2 * H, copy(from.norm_hh, G, to));
  }
  for (size_t l = 0; l < s.layers; ++l)
    if (highways_[l].n_k) pack(highways[l].weight, highway_scales[l].weight, highways[l].bias, highways_[l]);
}

template <class Real>
void Weights<Real>::unpack(Real* const* to) const {
  auto copy = [&](const Packed<Real>& p) {
    if (p.n_k) unpack_panels(kernels.transpose, p.panels, p.shape, p.n_k, 0, p.n_k, 0, p.shape.blocks(), false, *to++);
  };
  for (size_t l = 0; l < sizes.layers; ++l) {
    for (size_t d = 0; d < sizes.directions; ++d) {
      copy(layer(l, d).ih);
      copy(layer(l, d).hh);
      copy(layer(l, d).hr);
    }
    copy(highway(l));
  }
}

template <class Real>
void Weights<Real>::forward(const PackedLayer<Real>& layer, ForwardStep<Real>& step, char* work) const {
  if constexpr (std::is_same_v<Real, float>)
    if (!layer.floats_for(!step.use_pre, step.recurrent_size > 0))
      return quadgate::kernels().compact.forward({&step, layer.ih.compact, layer.hh.compact, functions_, work});
  (void)work;
  step.w_ih = layer.ih.panels;
  step.w_hh = layer.hh.panels;
  step.narrow_last = layer.hh.shape.narrow_last();
  kernels.forward(step);
}

template <class Real>
bool Weights<Real>::projects_ahead(size_t input, size_t rows, size_t steps) const {
  if (rows == 0) return false;
  if (sizes.options.layer_norm != LayerNorm::none) return true;  // which takes this product by itself
  if (steps == 1) return false;
  InputProduct product = {};
  product.input = input;
  product.recurrent = sizes.recurrent();
  product.rows = rows;
  product.steps = steps;
  product.n_blocks = blocks_;
  product.kernels = kernel_sizes();
  // 16-bit weights have their products as floats wherever more than a few rows make this matter.
  const bool int8 = sizes.options.weights == WeightType::int8;
  product.weight_size = int8 ? 1 : sizeof(Real);
  product.rate = int8 ? rate(rows) : 1;
  product.layers = sizes.forward_only() ? sizes.layers : 1;
  return cheaper_ahead(product);
}

template <class Real>
void Weights<Real>::project(const Packed<Real>& matrix, Project<Real>& product, char* work) const {
  if constexpr (std::is_same_v<Real, float>)
    if (!matrix.panels) return quadgate::kernels().compact.project({&product, matrix.compact, functions_, work});
  (void)work;
  product.w_ih = matrix.panels;
  product.narrow_last = matrix.shape.narrow_last();
  kernels.project(product);
}

template <class Real>
Weights<Real>::Weights(std::shared_ptr<const Weights> whole, const std::vector<const unsigned char*>& dropped,
                       double rate)
    : Weights(whole->sizes, true) {
  auto share = [](const Packed<Real>& from, Packed<Real>& to) {  // all but the back panels, which may be in the making
    to.panels = from.panels;
    to.bias = from.bias;
  };
  for (size_t i = 0; i < layers_.size(); ++i) {
    const PackedLayer<Real>& from = whole->layers_[i];
    PackedLayer<Real>& to = layers_[i];
    share(from.ih, to.ih);
    share(from.hr, to.hr);
    to.peephole = from.peephole;
    to.norm = from.norm;
    const Packed<Real>& hh = to.hh;
    std::copy_n(from.hh.panels, hh.shape.elements(hh.n_k), hh.panels);
    drop_in_panels(dropped[i], keep_scale<Real>(rate), hh.shape, hh.n_k, 0, hh.n_k, 0, hh.shape.blocks(), hh.panels);
  }
  for (size_t l = 0; l < sizes.layers; ++l) share(whole->highways_[l], highways_[l]);
  whole_ = std::move(whole);
}

template <class Real>
void Weights<Real>::need_back() const {
  if (back_panels_.load(std::memory_order_acquire)) return;
  std::lock_guard<ForkLock> lock(making_back_);
  if (back_panels_.load(std::memory_order_acquire)) return;
  auto size = [](const Packed<Real>& p) {
    return checked_mul(p.shape.total(), n_blocks(p.n_k, p.shape.width) * p.shape.width);
  };
  size_t total = 0;
  each_packed([&](Packed<Real>& p, bool) { total = checked_add(total, size(p)); });
  auto made = std::make_unique<Buffer<Real>>(Buffer<Real>::hot(total));
  Real* at = made->data();
  each_packed([&](Packed<Real>& p, bool) {
    p.back = at;
    at += size(p);
    pack_back_panels(kernels.transpose, p.panels, p.shape, p.n_k, p.back);
  });
  back_panels_.store(made.release(), std::memory_order_release);
}

// Calls in several threads may both do the work, or one may forget that another did; neither changes a result.
template <class Real>
bool Weights<Real>::zero_for_zero_h(size_t rows) const {
  // The check costs as much as one more row: little for a call of so many rows, even if every call has new weights. A
  // call of fewer rows leaves it to the next one with these weights.
  constexpr size_t kManyRows = 4;
  if (sizes.compact_type()) return true;  // they are finite: others are refused before they come here
  const Finite known = finite_hh_.load(std::memory_order_relaxed);
  if (known == Finite::yes || known == Finite::no) return known == Finite::yes;
  if (known == Finite::unasked && rows < kManyRows) {
    finite_hh_.store(Finite::unknown, std::memory_order_relaxed);
    return false;
  }
  const bool finite = products_with_zeros_are_zero();
  finite_hh_.store(finite ? Finite::yes : Finite::no, std::memory_order_relaxed);
  return finite;
}

template <class Real>
bool Weights<Real>::products_with_zeros_are_zero() const {
  const std::vector<Real> zeros(sizes.recurrent());
  Buffer<Real> sums(layers_[0].hh.row());
  for (const PackedLayer<Real>& one : layers_) {
    const Real* x = zeros.data();
    Project<Real> product = {};
    product.input_size = zeros.size();
    product.x = &x;
    product.pre = sums.data();
    product.n_rows = 1;
    product.n_blocks = product.block_end = one.hh.shape.blocks();
    product.n_vectors = int(one.hh.shape.vectors());
    std::fill(sums.begin(), sums.end(), Real(0));  // a narrow panel fills half of its part
    project(one.hh, product, nullptr);
    if (std::any_of(sums.begin(), sums.end(), [](Real sum) { return sum != 0; })) return false;
  }
  return true;
}

template class Weights<float>;
template class Weights<double>;

}  // namespace quadgate
