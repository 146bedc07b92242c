// A stack of layers: its packed weights, and what a training pass keeps.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/table.h"
#include "memory/buffer.h"
#include "memory/packing.h"
#include "parallel/plan.h"
#include "rnn/model.h"

namespace quadgate {

// A matrix in panels, for products in both directions.
template <class Real>
struct Packed {
  Real* panels = nullptr;
  Real* bias = nullptr;
  Real* back = nullptr;  // null until a backward pass needs it
  PanelShape shape = {4, 0, 1};
  size_t n_k = 0;  // columns
};

// One layer and direction in panels (kernels.h has the layouts), inside the memory of its Weights.
template <class Real>
struct PackedLayer {
  Packed<Real> ih, hh, hr;   // ih has the bias; hr is there with a projection only
  Real* peephole = nullptr;  // (3,H) or null
  Norm<Real> norm = {};      // gains null without layer normalisation
  Real* hh_scale = nullptr;  // multipliers that weight dropping left in hh, in its panels' layout; null without
};

// An immutable set of packed weights: calls share it by pointer, a change of parameters makes a new one. So a call that
// runs while another thread sets parameters uses the old ones throughout.
template <class Real>
class Weights {
 public:
  // params: states() of them, layer by layer, forward direction first; highways: one for each layer. Packs at once.
  Weights(const Sizes& sizes, const LayerParameters<const Real*>* params,
          const HighwayParameters<const Real*>* highways);

  // The same with parts of each hh dropped, the others scaled up by 1 / (1 - rate). dropped: states() pointers to
  // (G*H, R) bytes, 1 where dropped.
  Weights(const Weights& whole, const std::vector<const unsigned char*>& dropped, double rate);

  const Kernels<Real>& kernels;
  const Sizes sizes;
  size_t blocks() const { return blocks_; }  // of a layer's panels
  const PackedLayer<Real>& layer(size_t l, size_t d) const { return layers_[l * sizes.directions + d]; }
  const Packed<Real>& highway(size_t l) const { return highways_[l]; }
  const CellOptions<Real>* kind() const { return plain_ ? nullptr : &kind_; }  // null: the plain cell

  size_t bytes() const { return (panels_.capacity() + back_panels_.capacity()) * sizeof(Real); }
  // Makes the back panels; the first call works, concurrent ones wait for it.
  void need_back() const;

 private:
  Weights(const Sizes& sizes, bool dropping);
  template <class F>
  void each_packed(F&& f) const;

  CellOptions<Real> kind_;
  bool plain_;
  size_t blocks_;
  Buffer<Real> panels_;
  mutable Buffer<Real> back_panels_;
  mutable std::vector<PackedLayer<Real>> layers_;
  mutable std::vector<Packed<Real>> highways_;
  mutable std::once_flag back_;
};

// A call in numbers, for its plan.
template <class Real>
Work work_of(const Weights<Real>& w, size_t steps, size_t batch, bool backward) {
  const Sizes& s = w.sizes;
  const size_t units = w.blocks() * w.kernels.width;  // a block without gates holds four times as many
  const size_t passes = 1 + (s.options.projection > 0) + (s.options.layer_norm != LayerNorm::none);
  return {steps,      batch,  s.input,         std::min(units, s.hidden), s.layers,     s.directions, s.recurrent(),
          s.output(), passes, w.kernels.width, w.kernels.max_rows,        sizeof(Real), backward,     s.forward_only()};
}

// The large buffers of a tape. Contents of steps past a row's length are undefined.
template <class Real>
struct TapeBuffers {
  Buffer<Real> x;                // (T,B,I)
  std::vector<Buffer<Real>> y;   // per layer (T,B,D*R): h of every step
  std::vector<Buffer<Real>> in;  // per layer (T,B,input_of): its input, where that is not x or the y below; else empty
  std::vector<Buffer<Real>> transform;  // per layer (T,B,O): a highway's gate, activated; else empty
  std::vector<Buffer<Real>> gates;      // per state (T,B,4,H): i, f, g, o, activated; of a cell that is not plain, the
                                        // arguments of the activations; empty for Elman's
  std::vector<Buffer<Real>> c;          // per state (T,B,H)
  std::vector<Buffer<Real>> m;          // per state (T,B,H): what a projection takes; else empty
  std::vector<Buffer<Real>> normal;     // per state (T,B,2,4H): normalised products of x and of h; else empty
  std::vector<Buffer<Real>> inverse;    // per state (T,B,2): 1 / their deviations

  template <class F>
  void each(F&& f) {
    f(x);
    for (auto* list : {&y, &in, &transform, &gates, &c, &m, &normal, &inverse})
      for (Buffer<Real>& b : *list) f(b);
  }
};

// One set of buffers that a network keeps from a tape that is gone for its next one, until it is used for inference:
// the page faults of fresh memory cost a training step of middling size 10 %.
template <class Real>
class SpareTape {
 public:
  TapeBuffers<Real> take() {
    std::lock_guard<std::mutex> lock(mutex_);
    full_.store(false, std::memory_order_relaxed);
    return std::exchange(buffers_, {});
  }
  void give(TapeBuffers<Real>&& buffers) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::swap(buffers_, buffers);  // the caller frees what was there
    full_.store(true, std::memory_order_relaxed);
  }
  void drop() {
    if (full_.load(std::memory_order_relaxed)) take();
  }

 private:
  std::mutex mutex_;
  TapeBuffers<Real> buffers_;
  std::atomic<bool> full_{false};
};

// What a training pass draws at random; bytes, 1 where an element is dropped or where zoneout keeps the old value. Each
// list is empty without its option. The owner keeps the memory as long as the tape.
struct Masks {
  std::vector<const unsigned char*> weight;     // per state (G*H,R)
  std::vector<const unsigned char*> recurrent;  // per state (B,R)
  std::vector<const unsigned char*> zoneout_h;  // per state (T,B,R)
  std::vector<const unsigned char*> zoneout_c;  // per state (T,B,H)
  std::vector<const unsigned char*> dropout;    // per layer but the last (T,B,O)
};

// What a training forward keeps for its backward. Holds copies, but for the masks: the caller may change its arrays
// meanwhile.
template <class Real>
struct Tape : TapeBuffers<Real> {
  std::shared_ptr<const Weights<Real>> weights;
  std::shared_ptr<const Weights<Real>> made_of;  // the same, unless a part of them was dropped for this tape
  size_t steps = 0, batch = 0;
  bool ragged = false;
  std::vector<int64_t> lengths;       // (B) when ragged
  std::vector<unsigned char> resets;  // (T,B) or empty
  Masks masks;
  std::vector<Buffer<Real>> h_mask;  // per state (B,R): multipliers of recurrent dropout; else empty
  Buffer<Real> h0, c0;               // (L*D,B,R), (L*D,B,H)
  std::shared_ptr<SpareTape<Real>> spare;

  // Allocates for the shape, from `spare` and in the end back to it. resets: (T,B) or null.
  Tape(std::shared_ptr<const Weights<Real>> w, std::shared_ptr<SpareTape<Real>> spare, size_t steps, size_t batch,
       const int64_t* lengths, const unsigned char* resets, Masks masks);
  Tape(const Tape&) = delete;
  ~Tape() { spare->give(std::move(*static_cast<TapeBuffers<Real>*>(this))); }
  size_t bytes() const;

  // Input of a layer: (T,B,input_of(l)).
  const Real* input(size_t l) const {
    return l == 0 ? this->x.data() : this->in[l].size() ? this->in[l].data() : this->y[l - 1].data();
  }
};

}  // namespace quadgate
