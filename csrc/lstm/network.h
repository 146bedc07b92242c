// A stack of LSTM layers: its sizes and its packed weights.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "../kernels/kernels.h"
#include "../memory.h"

namespace fourgate {

struct Sizes {
  size_t input, hidden, layers, directions;
  bool bias;
  size_t input_of(size_t layer) const { return layer == 0 ? input : hidden * directions; }
  size_t output() const { return hidden * directions; }
  size_t states() const { return layers * directions; }  // leading axis of h and c
};

// The parameters of one layer and direction as the user has them, row-major; read during a call only.
template <class T>
struct Parameters {
  const T* weight_ih;  // (4H, I)
  const T* weight_hh;  // (4H, H)
  const T* bias;       // (4H) or null
};

// Where their gradients go; the same shapes.
template <class T>
struct ParameterGradients {
  T* weight_ih;
  T* weight_hh;
  T* bias;  // null without bias
};

// One layer and direction in panels (kernels.h has the layouts), inside the memory of its Weights.
template <class T>
struct PackedLayer {
  T *w_ih, *w_hh, *bias;
  T *back_ih, *back_hh;  // null until a backward pass needs them
  size_t input;
};

// An immutable set of packed weights: calls share it by pointer, a change of parameters makes a new one. So a call that
// runs while another thread sets parameters uses the old ones throughout.
template <class T>
class Weights {
 public:
  // params: states() of them, layer by layer, forward direction first. Packs at once.
  Weights(const Sizes& sizes, const Parameters<T>* params);

  const Kernels<T>& kernels;
  const Sizes sizes;
  size_t blocks() const { return (sizes.hidden + kernels.width - 1) / kernels.width; }
  const PackedLayer<T>& layer(size_t l, size_t d) const { return layers_[l * sizes.directions + d]; }

  // Makes the back panels; the first call works, concurrent ones wait for it.
  void need_back() const;

 private:
  Buffer<T> panels_;
  mutable Buffer<T> back_panels_;
  mutable std::vector<PackedLayer<T>> layers_;
  mutable std::once_flag back_;
};

// The large buffers of a tape.
template <class T>
struct TapeBuffers {
  Buffer<T> x;                   // (T,B,I)
  std::vector<Buffer<T>> y;      // per layer (T,B,D*H): h of every step, the next layer's input
  std::vector<Buffer<T>> gates;  // per layer and direction (T,B,4,H): i, f, g, o, activated
  std::vector<Buffer<T>> c;      // per layer and direction (T,B,H)
};

// One set of buffers that a network keeps from a tape that is gone for its next one, until it is used for inference:
// the page faults of fresh memory cost a training step of middling size 10 %.
template <class T>
class SpareTape {
 public:
  TapeBuffers<T> take() {
    std::lock_guard<std::mutex> lock(mutex_);
    full_.store(false, std::memory_order_relaxed);
    return std::exchange(buffers_, {});
  }
  void give(TapeBuffers<T>&& buffers) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::swap(buffers_, buffers);  // the caller frees what was there
    full_.store(true, std::memory_order_relaxed);
  }
  void drop() {
    if (full_.load(std::memory_order_relaxed)) take();
  }

 private:
  std::mutex mutex_;
  TapeBuffers<T> buffers_;
  std::atomic<bool> full_{false};
};

// What a training forward keeps for its backward. Holds copies: the caller may change its arrays meanwhile.
template <class T>
struct Tape : TapeBuffers<T> {
  std::shared_ptr<const Weights<T>> weights;
  size_t steps = 0, batch = 0;
  bool ragged = false;
  std::vector<int64_t> lengths;  // (B) when ragged
  Buffer<T> h0, c0;              // (L*D,B,H)
  std::shared_ptr<SpareTape<T>> spare;

  // Allocates for the shape, from `spare` and in the end back to it; contents of steps past a row's length are
  // undefined.
  Tape(std::shared_ptr<const Weights<T>> w, std::shared_ptr<SpareTape<T>> spare, size_t steps, size_t batch,
       const int64_t* lengths);
  Tape(const Tape&) = delete;
  ~Tape() { spare->give(std::move(*static_cast<TapeBuffers<T>*>(this))); }
  size_t bytes() const;
};

}  // namespace fourgate
