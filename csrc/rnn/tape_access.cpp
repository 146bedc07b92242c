// Parts of a tape that few calls need: its arrays in the caller's order, and its size.
#include <algorithm>

#include "rnn/rows.h"
#include "rnn/tape.h"

namespace quadgate {
namespace {

// For each block of H units of a row of gates: f(place on the tape, u, n, gate) for each gate of its units [u, u + n).
template <class F>
void each_gate(size_t H, size_t W, F&& f) {
  for (size_t u = 0; u < H; u += W) {
    const size_t n = std::min(W, H - u);
    for (size_t g = 0; g < 4; ++g) f(4 * u + g * n, u, n, g);
  }
}

}  // namespace

TapeRows::TapeRows(size_t steps, size_t batch, size_t n) : steps_(steps), batch_(batch) {
  if (n <= 1 || steps <= 1) return;
  parts_.reserve(batch);
  for (size_t i = 0; i < n; ++i) {
    const Part part = {batch * i / n, batch * (i + 1) / n - batch * i / n};
    parts_.insert(parts_.end(), part.rows, part);
  }
}

size_t TapeRows::in_part(size_t t, size_t b) const {
  const Part& part = parts_[b];
  return steps_ * part.begin + t * part.rows + b - part.begin;
}

template <class Real>
size_t Tape<Real>::bytes() const {
  size_t n = h0.capacity() + c0.capacity();
  const_cast<Tape*>(this)->each([&](const Buffer<Real>& b) { n += b.capacity(); });
  for (const Buffer<Real>& b : h_mask) n += b.capacity();
  const Sizes& s = weights->sizes;
  const size_t all = steps * batch, R = s.recurrent();
  const size_t bytes = masks.weight.size() * s.gates() * s.hidden * R + masks.recurrent.size() * batch * R +
                       masks.zoneout_h.size() * all * R + masks.zoneout_c.size() * all * s.hidden +
                       masks.dropout.size() * all * s.output();
  const size_t own = own_weights ? weights->bytes() : 0;
  return n * sizeof(Real) + lengths.size() * sizeof(int64_t) + resets.size() + bytes + own;
}

template <class Real>
void Tape<Real>::read_gates(size_t state, Real* to) const {
  const size_t H = weights->sizes.hidden, W = weights->kernels.width;
  const Real* from = this->gates[state].data();
  const CellOptions<Real>* kind = weights->cell_options();
  const RowOrder order(steps, batch, ragged ? lengths.data() : nullptr);
  std::fill(to, to + steps * batch * 4 * H, Real(0));
  for (size_t r = 0; r < batch; ++r)
    for (size_t t = 0; t < order.length(r); ++t) {
      const size_t b = order.index(r), at = (t * batch + b) * 4 * H;
      const Real* row = from + rows.at(t, b) * 4 * H;
      each_gate(H, W,
                [&](size_t place, size_t u, size_t n, size_t g) { std::copy_n(row + place, n, to + at + g * H + u); });
      if (!kind) continue;  // a plain cell's gates are taped after their activations, others before
      for (size_t g = 0; g < 4; ++g) {
        Real* gate = to + at + g * H;
        for (size_t u = 0; u < H; ++u)
          if (gate[u] > kind->gate_clip || gate[u] < -kind->gate_clip)
            gate[u] = gate[u] < 0 ? -kind->gate_clip : kind->gate_clip;
        weights->kernels.activate(g == 2 ? kind->cell : kind->gate, gate, gate, H);
        if (g == 1 && kind->coupled)
          for (size_t u = 0; u < H; ++u) gate[u] = Real(1) - to[at + u];
      }
    }
}

template <class Real>
void Tape<Real>::read_cells(size_t state, Real* to) const {
  const size_t C = weights->sizes.cell();
  const Buffer<Real>& from = this->c[state];
  const RowOrder order(steps, batch, ragged ? lengths.data() : nullptr);
  for (size_t t = 0; t < steps; ++t)
    for (size_t b = 0; b < batch; ++b) std::copy_n(from.data() + rows.at(t, b) * C, C, to + (t * batch + b) * C);
  zero_padding<Real>(order, steps, {to, batch * C, C, 0}, C);
}

template <class Real>
void Tape<Real>::fill(const Real* x, const Real* y, const Real* gates, const Real* c, const Real* h0_from,
                      const Real* c0_from) {
  const size_t all = steps * batch, H = weights->sizes.hidden, I = weights->sizes.input, W = weights->kernels.width;
  begin(h0_from, c0_from);
  for (size_t t = 0; t < steps; ++t) keep_x(t, 0, batch, x + t * batch * I, I);
  std::copy(y, y + all * H, this->y[0].data());
  for (size_t i = 0; i < all; ++i)
    each_gate(H, W, [&](size_t place, size_t u, size_t n, size_t g) {
      std::copy_n(gates + i * 4 * H + g * H + u, n, this->gates[0].data() + i * 4 * H + place);
    });
  std::copy(c, c + all * H, this->c[0].data());
}

#define QG_INSTANTIATE(Real)                                 \
  template size_t Tape<Real>::bytes() const;                 \
  template void Tape<Real>::read_gates(size_t, Real*) const; \
  template void Tape<Real>::read_cells(size_t, Real*) const; \
  template void Tape<Real>::fill(const Real*, const Real*, const Real*, const Real*, const Real*, const Real*);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
