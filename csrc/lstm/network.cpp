#include "network.h"

#include "../dispatch.h"
#include "../pack.h"

namespace fourgate {
namespace {

template <class T>
const Kernels<T>& table_for();
template <>
const Kernels<float>& table_for<float>() {
  return kernels().f32;
}
template <>
const Kernels<double>& table_for<double>() {
  return kernels().f64;
}

}  // namespace

// All layers lie in one piece of memory.
template <class T>
Weights<T>::Weights(const Sizes& s, const Parameters<T>* params)
    : kernels(table_for<T>()), sizes(s), layers_(s.states()) {
  const size_t W = kernels.width, H = s.hidden, lines = checked_mul(blocks(), 4, W);
  size_t total = 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].input = s.input_of(i / s.directions);
    total = checked_add(total, checked_mul(lines, checked_add(checked_add(layers_[i].input, H), 1)));
  }
  panels_ = Buffer<T>::hot(total);
  T* at = panels_.data();
  for (size_t i = 0; i < layers_.size(); ++i) {
    PackedLayer<T>& p = layers_[i];
    p.w_ih = at;
    p.w_hh = p.w_ih + lines * p.input;
    p.bias = p.w_hh + lines * H;
    p.back_ih = p.back_hh = nullptr;
    at = p.bias + lines;
    pack_panels(params[i].weight_ih, H, p.input, W, p.w_ih);
    pack_panels(params[i].weight_hh, H, H, W, p.w_hh);
    pack_bias(params[i].bias, H, W, p.bias);
  }
}

template <class T>
void Weights<T>::need_back() const {
  std::call_once(back_, [this] {
    const size_t W = kernels.width, H = sizes.hidden;
    size_t total = 0;
    for (const PackedLayer<T>& p : layers_)
      total = checked_add(total, checked_mul(4 * H, (n_blocks(p.input, W) + blocks()) * W));
    back_panels_ = Buffer<T>::hot(total);
    T* at = back_panels_.data();
    for (PackedLayer<T>& p : layers_) {
      p.back_ih = at;
      p.back_hh = p.back_ih + 4 * H * n_blocks(p.input, W) * W;
      at = p.back_hh + 4 * H * blocks() * W;
      pack_back_panels(p.w_ih, H, p.input, W, p.back_ih);
      pack_back_panels(p.w_hh, H, H, W, p.back_hh);
    }
  });
}

template <class T>
Tape<T>::Tape(std::shared_ptr<const Weights<T>> w, std::shared_ptr<SpareTape<T>> spare_, size_t steps_, size_t batch_,
              const int64_t* lengths_)
    : TapeBuffers<T>(spare_->take()),
      weights(std::move(w)),
      steps(steps_),
      batch(batch_),
      ragged(lengths_ != nullptr),
      spare(std::move(spare_)) {
  const Sizes& s = weights->sizes;
  const size_t rows = checked_mul(steps, batch), state = checked_mul(s.states(), batch, s.hidden);
  if (lengths_) lengths.assign(lengths_, lengths_ + batch);
  h0.resize_discard(state);
  c0.resize_discard(state);
  // A spare buffer far too large would be held in vain, and not be what bytes() says.
  auto fit = [](Buffer<T>& b, size_t n) {
    if (b.capacity() > 2 * n) b = Buffer<T>();
    b.resize_discard(n);
  };
  this->y.resize(s.layers);
  this->gates.resize(s.states());
  this->c.resize(s.states());
  fit(this->x, checked_mul(rows, s.input));
  for (Buffer<T>& b : this->y) fit(b, checked_mul(rows, s.output()));
  for (Buffer<T>& b : this->gates) fit(b, checked_mul(rows, 4, s.hidden));
  for (Buffer<T>& b : this->c) fit(b, checked_mul(rows, s.hidden));
}

template <class T>
size_t Tape<T>::bytes() const {
  size_t n = this->x.capacity() + h0.capacity() + c0.capacity();
  for (const auto* buffers : {&this->y, &this->gates, &this->c})
    for (const Buffer<T>& b : *buffers) n += b.capacity();
  return n * sizeof(T) + lengths.size() * sizeof(int64_t);
}

template class Weights<float>;
template class Weights<double>;
template struct Tape<float>;
template struct Tape<double>;

}  // namespace fourgate
