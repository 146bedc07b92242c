// The tape of a training forward: all that its backward needs.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "memory/buffer.h"
#include "rnn/columns.h"
#include "rnn/tape_rows.h"
#include "rnn/weights.h"

namespace quadgate {

// The large buffers of a tape, whose rows (T,B) lie in the order of Tape::rows. Contents of steps past a row's length
// are undefined.
template <class Real>
struct TapeBuffers {
  Buffer<Real> x;                // (T,B,I), or panels: see Tape::x_in_panels
  std::vector<Buffer<Real>> y;   // per layer (T,B,D*R): h of every step
  std::vector<Buffer<Real>> in;  // per layer (T,B,input_of): its input, where that is not x or the y below; else empty
  std::vector<Buffer<Real>> transform;  // per layer (T,B,O): a highway's gate, activated; else empty
  std::vector<Buffer<Real>> gates;   // per state (T,B,4H), see kernels/layouts.h: i, f, g, o, activated; of a cell that
                                     // is not plain, the arguments of the activations; empty for Elman's
  std::vector<Buffer<Real>> c;       // per state (T,B,H)
  std::vector<Buffer<Real>> m;       // per state (T,B,H): what a projection takes; else empty
  std::vector<Buffer<Real>> normal;  // per state (T,B,2,4H): normalised products of x and of h; else empty
  std::vector<Buffer<Real>> inverse;  // per state (T,B,2): 1 / their deviations

  template <class F>
  void each(F&& f) {
    f(x);
    for (auto* list : lists())
      for (Buffer<Real>& b : *list) f(b);
  }
  void swap(TapeBuffers& other) noexcept {
    static_assert(sizeof(TapeBuffers) == sizeof(x) + 8 * sizeof(y), "lists() has all vectors");
    x.swap(other.x);
    const auto mine = lists(), theirs = other.lists();
    for (size_t i = 0; i < mine.size(); ++i) mine[i]->swap(*theirs[i]);
  }

 private:
  std::array<std::vector<Buffer<Real>>*, 8> lists() { return {&y, &in, &transform, &gates, &c, &m, &normal, &inverse}; }
};

// One set of buffers that a network keeps from a tape that is gone for its next one, until it is used for inference:
// the page faults of fresh memory cost a training step of middling size 10 %. No lock: a fork may happen at any time.
template <class Real>
class SpareTape {
 public:
  using Owned = std::unique_ptr<TapeBuffers<Real>>;
  SpareTape() = default;
  SpareTape(const SpareTape&) = delete;
  ~SpareTape() { drop(); }

  // Null while there are none.
  Owned take() { return Owned(kept_.exchange(nullptr, std::memory_order_acq_rel)); }
  void give(Owned buffers) { delete kept_.exchange(buffers.release(), std::memory_order_acq_rel); }
  void drop() {
    if (kept_.load(std::memory_order_relaxed)) take();
  }

 private:
  std::atomic<TapeBuffers<Real>*> kept_{nullptr};
};

// The random choices of a training pass, as bytes: 1 where an element is dropped or where zoneout keeps the old value.
// Each list is empty without its option. The owner keeps the memory as long as the tape.
struct Masks {
  std::vector<const unsigned char*> weight;     // per state (G*H,R)
  std::vector<const unsigned char*> recurrent;  // per state (B,R)
  std::vector<const unsigned char*> zoneout_h;  // per state (T,B,R)
  std::vector<const unsigned char*> zoneout_c;  // per state (T,B,H)
  std::vector<const unsigned char*> dropout;    // per layer but the last (T,B,O)
};

// A training forward's records for its backward. All but the masks are copies, since the caller may change its arrays.
template <class Real>
struct Tape : TapeBuffers<Real> {
  std::shared_ptr<const Weights<Real>> weights;
  bool own_weights = false;  // made for this tape alone, with a part of them dropped
  size_t steps = 0, batch = 0;
  bool ragged = false;
  std::vector<int64_t> lengths;       // (B) when ragged
  std::vector<unsigned char> resets;  // (T,B) or empty
  Masks masks;
  std::vector<Buffer<Real>> h_mask;  // per state (B,R): multipliers of recurrent dropout; else empty
  Buffer<Real> h0, c0;               // (L*D,B,R), (L*D,B,H); empty where the call had none: zeros
  bool zero_h0 = false, zero_c0 = false;
  bool by_rows = false;      // gradients of weights are to be made by rows, see backward/columns.h
  bool x_in_panels = false;  // of T*B rows, those of later steps first, as their products take them
  TapeRows rows;             // of all but x in panels
  // Allocates for the shape, from `spare` and in the end back to it. resets: (T,B) or null.
  Tape(std::shared_ptr<const Weights<Real>> w, std::shared_ptr<SpareTape<Real>> spare, size_t steps, size_t batch,
       const int64_t* lengths, const unsigned char* resets, Masks masks);
  Tape(const Tape&) = delete;
  ~Tape();
  size_t bytes() const;

  // Records the initial state; chooses how gradients will be made, and hence the layout of x. To be called before
  // anything else is recorded. h0: (L*D,B,R), c0: (L*D,B,H), or null for zeros. parts: of TapeRows.
  void begin(const Real* h0, const Real* c0, size_t parts = 1);
  // Records the input of a step of n_rows rows of the batch from b on, which are from_stride apart. Threads may call it
  // at once for different steps or rows.
  void keep_x(size_t t, size_t b, size_t n_rows, const Real* from, size_t from_stride);
  // The panels of x where it lies in them, from the rows of step t on.
  ColumnPanels<const Real> x_panels(size_t t) const {
    return {x_columns(), this->x.data(), steps * batch, (steps - 1 - t) * batch};
  }

  // A state's gates and cells as they were computed, zeros past a row's length: (T,B,4,H) and (T,B,H) out.
  void read_gates(size_t state, Real* to) const;
  void read_cells(size_t state, Real* to) const;

  // Fills in the tape of a network of one plain layer and direction from arrays of others: (T,B,I), (T,B,H),
  // (T,B,4,H), (T,B,H); h0 and c0 (B,H), or null for zeros.
  void fill(const Real* x, const Real* y, const Real* gates, const Real* c, const Real* h0, const Real* c0);

  size_t h_columns() const;  // R; 0 where all rows of h are zero, as in a single step without a state
  // Input of a layer: `rows` of (input_of(l)); not of the first where x lies in panels.
  const Real* input(size_t l) const {
    return l == 0 ? this->x.data() : this->in[l].size() ? this->in[l].data() : this->y[l - 1].data();
  }

 private:
  std::shared_ptr<SpareTape<Real>> spare_;
  bool gradients_by_rows() const;
  Columns x_columns() const {
    const size_t W = weights->kernels.width;
    return {weights->sizes.input, kLineVectors * W, W, least_vectors<Real>()};
  }
  typename SpareTape<Real>::Owned shell_;  // for the buffers on their way back: no allocation then
};

// True if Tape::fill can serve a network.
inline bool can_fill(const Sizes& s) {
  return s.states() == 1 && s.options.plain_cell() && !s.options.projection && !s.options.reverse;
}

}  // namespace quadgate
