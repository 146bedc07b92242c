#include "rnn/weights.h"

#include "cpu/dispatch.h"

namespace quadgate {
namespace {

template <class Real>
const Kernels<Real>& table_for();
template <>
const Kernels<float>& table_for<float>() {
  return kernels().f32;
}
template <>
const Kernels<double>& table_for<double>() {
  return kernels().f64;
}

template <class Real>
Activation<Real> as(const Activation<double>& f) {
  return {f.function, Real(f.alpha), Real(f.beta)};
}

// Hands out pieces of a buffer; with a null base it only counts.
template <class Real>
class Pieces {
 public:
  explicit Pieces(Real* base) : base_(base) {}
  Real* take(size_t n) {
    Real* at = base_ ? base_ + used_ : nullptr;
    used_ = checked_add(used_, n);
    return at;
  }
  size_t used() const { return used_; }

 private:
  Real* base_;
  size_t used_ = 0;
};

}  // namespace

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

// Sizes and memory only. All layers lie in one piece.
template <class Real>
Weights<Real>::Weights(const Sizes& s, bool dropping)
    : kernels(table_for<Real>()), sizes(s), plain_(s.options.plain_cell()), layers_(s.states()), highways_(s.layers) {
  const CellOptions<double>& c = s.options.cell;
  kind_ = {as<Real>(c.gate),  as<Real>(c.cell),  as<Real>(c.output),
           Real(c.gate_clip), Real(c.cell_clip), Real(c.zoneout_h),
           Real(c.zoneout_c), c.coupled,         c.type};
  const size_t W = kernels.width, H = s.hidden, R = s.recurrent(), O = s.output();
  blocks_ = PanelShape{s.gates(), H, W}.blocks();
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].ih.shape = layers_[i].hh.shape = {s.gates(), H, W};
    layers_[i].ih.n_k = s.input_of(i / s.directions);
    layers_[i].hh.n_k = R;
    layers_[i].hr.shape = {1, R, W};
    layers_[i].hr.n_k = s.options.projection ? H : 0;
  }
  for (size_t l = 0; l < s.layers; ++l) {
    highways_[l].shape = {1, O, W};
    highways_[l].n_k = s.highway(l) ? O : 0;
  }
  auto carve = [&](Pieces<Real>& pieces) {
    each_packed([&](Packed<Real>& p, bool) {
      const size_t lines = checked_mul(p.shape.blocks(), 4, W);
      p.panels = pieces.take(checked_mul(lines, p.n_k));
    });
    each_packed([&](Packed<Real>& p, bool biased) {
      if (biased) p.bias = pieces.take(p.shape.blocks() * p.shape.line());
    });
    for (PackedLayer<Real>& layer : layers_) {
      if (s.options.peephole) layer.peephole = pieces.take(checked_mul(3, H));
      if (dropping) layer.hh_scale = pieces.take(checked_mul(layer.hh.shape.blocks(), 4, W, R));
      if (s.options.layer_norm == LayerNorm::none) continue;
      Real* at = pieces.take(checked_mul(10, H));
      layer.norm = {
          at, at + 4 * H, at + 8 * H, at + 9 * H, Real(s.options.epsilon), s.options.layer_norm == LayerNorm::carried};
    }
  };
  Pieces<Real> count(nullptr);
  carve(count);
  panels_ = Buffer<Real>::hot(count.used());
  Pieces<Real> pieces(panels_.data());
  carve(pieces);
}

template <class Real>
Weights<Real>::Weights(const Sizes& s, const LayerParameters<const Real*>* params,
                       const HighwayParameters<const Real*>* highways)
    : Weights(s, false) {
  const size_t H = s.hidden;
  auto pack = [](const Real* weight, const Real* bias, const Packed<Real>& to) {
    pack_panels(weight, to.shape, to.n_k, to.panels);
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
    to = std::copy(from.norm_ih, from.norm_ih + 4 * H, to);
    to = std::copy(from.norm_hh, from.norm_hh + 4 * H, to);
    std::copy(from.norm_c, from.norm_c + 2 * H, to);
  }
  for (size_t l = 0; l < s.layers; ++l)
    if (highways_[l].n_k) pack(highways[l].weight, highways[l].bias, highways_[l]);
}

template <class Real>
Weights<Real>::Weights(const Weights& whole, const std::vector<const unsigned char*>& dropped, double rate)
    : Weights(whole.sizes, true) {
  // Pieces have the same order and sizes, apart from those of hh_scale, which come behind the packed matrices.
  auto copy = [](const Real* from, Real* to, size_t n) {
    if (to) std::copy(from, from + n, to);
  };
  std::vector<const Packed<Real>*> from;
  whole.each_packed([&](Packed<Real>& p, bool) { from.push_back(&p); });
  size_t i = 0;
  each_packed([&](Packed<Real>& p, bool) {
    const size_t lines = p.shape.blocks() * p.shape.line();
    copy(from[i]->panels, p.panels, lines * p.n_k);
    copy(from[i++]->bias, p.bias, lines);
  });
  const Real kept = rate < 1 ? Real(1 / (1 - rate)) : Real(0);
  std::vector<Real> scale;
  for (size_t k = 0; k < layers_.size(); ++k) {
    PackedLayer<Real>& p = layers_[k];
    copy(whole.layers_[k].peephole, p.peephole, 3 * sizes.hidden);
    copy(whole.layers_[k].norm.gain_ih, const_cast<Real*>(p.norm.gain_ih), 10 * sizes.hidden);
    scale.resize(p.hh.shape.total() * p.hh.n_k);
    for (size_t j = 0; j < scale.size(); ++j) scale[j] = dropped[k][j] ? Real(0) : kept;
    pack_panels(scale.data(), p.hh.shape, p.hh.n_k, p.hh_scale);
    for (size_t j = 0; j < p.hh.shape.blocks() * p.hh.shape.line() * p.hh.n_k; ++j) p.hh.panels[j] *= p.hh_scale[j];
  }
}

template <class Real>
void Weights<Real>::need_back() const {
  std::call_once(back_, [this] {
    auto size = [](const Packed<Real>& p) {
      return checked_mul(p.shape.total(), n_blocks(p.n_k, p.shape.width) * p.shape.width);
    };
    size_t total = 0;
    each_packed([&](Packed<Real>& p, bool) { total = checked_add(total, size(p)); });
    back_panels_ = Buffer<Real>::hot(total);
    Real* at = back_panels_.data();
    each_packed([&](Packed<Real>& p, bool) {
      p.back = at;
      at += size(p);
      pack_back_panels(p.panels, p.shape, p.n_k, p.back);
    });
  });
}

template <class Real>
Tape<Real>::Tape(std::shared_ptr<const Weights<Real>> w, std::shared_ptr<SpareTape<Real>> spare_, size_t steps_,
                 size_t batch_, const int64_t* lengths_, const unsigned char* resets_, Masks masks_)
    : TapeBuffers<Real>(spare_->take()),
      weights(std::move(w)),
      steps(steps_),
      batch(batch_),
      ragged(lengths_ != nullptr),
      masks(std::move(masks_)),
      spare(std::move(spare_)) {
  const Sizes& s = weights->sizes;
  const Options& o = s.options;
  const size_t rows = checked_mul(steps, batch), H = s.hidden, R = s.recurrent();
  if (lengths_) lengths.assign(lengths_, lengths_ + batch);
  if (resets_) resets.assign(resets_, resets_ + rows);
  h0.resize_discard(checked_mul(s.states(), batch, R));
  c0.resize_discard(checked_mul(s.states(), batch, s.cell()));
  // A spare buffer far too large would be held in vain, and not be what bytes() says.
  auto fit = [&](Buffer<Real>& b, size_t columns) {
    const size_t n = checked_mul(rows, columns);
    if (b.capacity() > 2 * n) b = Buffer<Real>();
    b.resize_discard(n);
  };
  auto fit_all = [&](std::vector<Buffer<Real>>& list, size_t n, size_t columns) {
    list.resize(n);
    for (Buffer<Real>& b : list) fit(b, columns);
  };
  fit(this->x, s.input);
  fit_all(this->y, s.layers, s.raw());
  fit_all(this->gates, s.states(), 4 * s.cell());
  fit_all(this->c, s.states(), s.cell());
  fit_all(this->m, s.states(), o.projection ? H : 0);
  fit_all(this->normal, s.states(), o.layer_norm != LayerNorm::none ? checked_mul(8, H) : 0);
  fit_all(this->inverse, s.states(), o.layer_norm != LayerNorm::none ? 2 : 0);
  this->in.resize(s.layers);
  this->transform.resize(s.layers);
  for (size_t l = 0; l < s.layers; ++l) {
    fit(this->in[l], l > 0 && (s.joined() || o.dropout > 0) ? s.input_of(l) : 0);
    fit(this->transform[l], s.highway(l) ? s.output() : 0);
  }
  const Real kept = o.recurrent_dropout < 1 ? Real(1 / (1 - o.recurrent_dropout)) : Real(0);
  for (const unsigned char* dropped : masks.recurrent) {
    h_mask.emplace_back(batch * R);
    for (size_t i = 0; i < batch * R; ++i) h_mask.back()[i] = dropped[i] ? Real(0) : kept;
  }
}

template <class Real>
size_t Tape<Real>::bytes() const {
  size_t n = h0.capacity() + c0.capacity();
  const_cast<Tape*>(this)->each([&](const Buffer<Real>& b) { n += b.capacity(); });
  for (const Buffer<Real>& b : h_mask) n += b.capacity();
  const Sizes& s = weights->sizes;
  const size_t rows = steps * batch, R = s.recurrent();
  const size_t bytes = masks.weight.size() * s.gates() * s.hidden * R + masks.recurrent.size() * batch * R +
                       masks.zoneout_h.size() * rows * R + masks.zoneout_c.size() * rows * s.hidden +
                       masks.dropout.size() * rows * s.output();
  const size_t own = made_of && made_of != weights ? weights->bytes() : 0;
  return n * sizeof(Real) + lengths.size() * sizeof(int64_t) + resets.size() + bytes + own;
}

template class Weights<float>;
template class Weights<double>;
template struct Tape<float>;
template struct Tape<double>;

}  // namespace quadgate
