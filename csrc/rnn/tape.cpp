#include "rnn/tape.h"

#include <cstring>

#include "kernels/vec/inline.h"
#include "parallel/cost.h"
#include "rnn/rows.h"

namespace quadgate {

namespace {

// A spare buffer that is far too large would waste memory and make nbytes misleading.
template <class Real>
void fit_buffer(Buffer<Real>& buffer, size_t n) {
  if (buffer.capacity() > 2 * n) buffer = Buffer<Real>();
  buffer.resize_discard(n);
}

// n buffers of so many rows. Not inlined at each list of a tape, which would only make the wheel larger.
template <class Real>
QG_OUTLINE void fit_buffers(std::vector<Buffer<Real>>& list, size_t n, size_t rows, size_t columns) {
  list.resize(n);
  for (Buffer<Real>& b : list) fit_buffer(b, checked_mul(rows, columns));
}

}  // namespace

template <class Real>
Tape<Real>::Tape(std::shared_ptr<const Weights<Real>> w, std::shared_ptr<SpareTape<Real>> spare, size_t steps_,
                 size_t batch_, const int64_t* lengths_, const unsigned char* resets_, Masks masks_)
    : weights(std::move(w)),
      steps(steps_),
      batch(batch_),
      ragged(lengths_ != nullptr),
      masks(std::move(masks_)),
      spare_(std::move(spare)),
      shell_(spare_->take()) {
  if (shell_)
    this->swap(*shell_);
  else
    shell_ = std::make_unique<TapeBuffers<Real>>();
  const Sizes& s = weights->sizes;
  const Options& o = s.options;
  const size_t all = checked_mul(steps, batch), H = s.hidden, R = s.recurrent();
  if (lengths_) lengths.assign(lengths_, lengths_ + batch);
  if (resets_) resets.assign(resets_, resets_ + all);
  auto fit = [&](Buffer<Real>& b, size_t columns) { fit_buffer(b, checked_mul(all, columns)); };
  auto fit_all = [&](std::vector<Buffer<Real>>& list, size_t n, size_t columns) { fit_buffers(list, n, all, columns); };
  fit_all(this->y, s.layers, s.raw());
  fit_all(this->gates, s.states(), s.taped());
  fit_all(this->c, s.states(), s.cell());
  fit_all(this->m, s.states(), o.projection ? H : 0);
  fit_all(this->normal, s.states(), o.layer_norm != LayerNorm::none ? checked_mul(2 * s.gates(), H) : 0);
  fit_all(this->inverse, s.states(), o.layer_norm != LayerNorm::none ? 2 : 0);
  this->in.resize(s.layers);
  this->transform.resize(s.layers);
  for (size_t l = 0; l < s.layers; ++l) {
    fit(this->in[l], l > 0 && (s.joined() || o.dropout > 0) ? s.input_of(l) : 0);
    fit(this->transform[l], s.highway(l) ? s.output() : 0);
  }
  const Real kept = keep_scale<Real>(o.recurrent_dropout);
  for (const unsigned char* dropped : masks.recurrent) {
    h_mask.emplace_back(batch * R);
    for (size_t i = 0; i < batch * R; ++i) h_mask.back()[i] = dropped[i] ? Real(0) : kept;
  }
}

template <class Real>
Tape<Real>::~Tape() {
  this->swap(*shell_);
  spare_->give(std::move(shell_));
}

template <class Real>
void Tape<Real>::begin(const Real* h0_from, const Real* c0_from, size_t parts) {
  const Sizes& s = weights->sizes;
  auto keep = [&](const Real* from, size_t columns, Buffer<Real>& to) {
    if (!from) return true;
    to.resize_discard(checked_mul(s.states(), batch, columns));
    std::copy_n(from, to.size(), to.data());
    return false;
  };
  rows = TapeRows(steps, batch, parts);
  zero_h0 = keep(h0_from, s.recurrent(), h0);
  zero_c0 = keep(c0_from, s.cell(), c0);
  by_rows = gradients_by_rows();
  // Merges and shortcuts read the input row by row, and so do layers that run in another order than that of time.
  x_in_panels = by_rows && !ragged && s.forward_only() && !s.joined();
  fit_buffer(this->x, checked_mul(steps * batch, x_in_panels ? x_columns().row() : s.input));
}

// True if the lanes that panels of x and h leave empty cost less than those of panels of gradients, whose product is
// also transposed.
template <class Real>
bool Tape<Real>::gradients_by_rows() const {
  const Sizes& s = weights->sizes;
  const PackedLayer<Real>& layer = weights->layer(0, 0);
  if (s.options.layer_norm != LayerNorm::none || s.options.shortcut == Shortcut::highway) return false;
  const size_t widest = std::max(s.input, s.input_of(s.layers - 1)), of_h = h_columns();
  Columns columns = x_columns();
  const size_t total = RowOrder(steps, batch, ragged ? lengths.data() : nullptr).total();
  const double line = multiply_cycles(weights->kernel_sizes()), rows = double(total);
  const double K = double(widest + of_h + 1), G = double(s.gates() * s.hidden);
  columns.n = widest;
  size_t vectors = columns.vectors();
  columns.n = of_h;
  vectors += columns.vectors();
  const double of_columns = rows * line * G * double(vectors) / double(kLineVectors);
  const double of_gradients = rows * line * K * double(layer.hh.shape.blocks()) + kTransposeCycles * K * G;
  return of_columns < of_gradients;
}

template <class Real>
size_t Tape<Real>::h_columns() const {
  size_t most = steps;
  if (ragged) most = batch ? size_t(*std::max_element(lengths.begin(), lengths.end())) : 0;
  const bool none = zero_h0 && most == 1 && weights->sizes.options.layer_norm == LayerNorm::none;
  return none ? 0 : weights->sizes.recurrent();
}

template <class Real>
void Tape<Real>::keep_x(size_t t, size_t b, size_t n_rows, const Real* from, size_t from_stride) {
  const size_t I = weights->sizes.input;
  if (x_in_panels)
    return copy_to_panels<Real>(weights->kernels, from, from_stride, n_rows,
                                {x_columns(), this->x.data(), steps * batch, (steps - 1 - t) * batch}, b);
  for (size_t r = 0; r < n_rows; ++r)
    std::memcpy(this->x.data() + rows.at(t, b + r) * I, from + r * from_stride, I * sizeof(Real));
}

template struct Tape<float>;
template struct Tape<double>;

}  // namespace quadgate
