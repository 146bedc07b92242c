#include "stream.h"

#include <cstring>

#include "../plan.h"
#include "forward.h"

namespace fourgate {

template <class T>
Stream<T>::Stream(const Sizes& sizes, size_t batch) : sizes_(sizes), batch_(batch) {
  const size_t n = checked_mul(sizes.layers, batch, sizes.hidden), layer = batch * sizes.hidden;
  for (int i = 0; i < 2; ++i) {
    h_[i].resize_zero(n);
    c_[i].resize_zero(n);
    rows_[i].resize_discard(sizes.layers * batch);
  }
  for (int now = 0; now < 2; ++now)
    for (size_t l = 0; l < sizes.layers; ++l)
      for (size_t b = 0; b < batch; ++b) {
        const size_t at = l * layer + b * sizes.hidden;
        ForwardRow<T>& row = rows_[now][l * batch + b];
        row = {};
        row.x = l ? h_[1 - now].data() + at - layer : nullptr;
        row.h = h_[now].data() + at;
        row.c_prev = c_[now].data() + at;
        row.y = h_[1 - now].data() + at;
        row.c = c_[1 - now].data() + at;
      }
}

// Whether a step is best done by this thread alone: then it needs no plan, no threads and no workspace.
template <class T>
bool Stream<T>::small(const Weights<T>& w) {
  const int threads = get_num_threads();
  if (threads != threads_asked_) {
    const Work work = {1, batch_,          sizes_.input,       sizes_.hidden, sizes_.layers,
                       1, w.kernels.width, w.kernels.max_rows, sizeof(T),     false};
    const double flops = 8.0 * double(batch_ * sizes_.hidden) * double(sizes_.layers * (sizes_.input + sizes_.hidden));
    small_ = flops < 1e8 && choose_plan(work, size_t(threads)).threads() == 1;
    threads_asked_ = threads;
  }
  return small_;
}

template <class T>
bool Stream<T>::step(const Weights<T>& w, const T* x, size_t x_row, T* y, size_t y_row, Control::Callback interrupted) {
  if (!small(w)) return run(w, 1, {x, 0, x_row, 0}, {y, 0, y_row, 0}, interrupted);
  ForwardRow<T>* rows = rows_[now_].data();
  ForwardRow<T>* last = rows + (sizes_.layers - 1) * batch_;
  for (size_t b = 0; b < batch_; ++b) {
    rows[b].x = x + b * x_row;
    last[b].y2 = y + b * y_row;
  }
  for (size_t l = 0; l < sizes_.layers; ++l) {
    const PackedLayer<T>& p = w.layer(l, 0);
    w.kernels.forward({p.w_ih, p.w_hh, p.bias, p.input, sizes_.hidden, rows + l * batch_, batch_, 0, w.blocks(), false,
                       now_ == 1, false});
  }
  now_ = 1 - now_;
  return true;
}

template <class T>
bool Stream<T>::run(const Weights<T>& w, size_t steps, Plane<const T> x, Plane<T> y, Control::Callback interrupted) {
  const bool done = forward<T>({&w, steps, batch_, x, nullptr, h_[now_].data(), c_[now_].data(), y, h_[1 - now_].data(),
                                c_[1 - now_].data(), nullptr, interrupted});
  if (done) now_ = 1 - now_;
  return done;
}

template <class T>
void Stream<T>::reset(const bool* mask) {
  for (size_t l = 0; l < sizes_.layers; ++l)
    for (size_t b = 0; b < batch_; ++b) {
      if (mask && !mask[b]) continue;
      for (Buffer<T>* state : {&h_[now_], &c_[now_]})
        std::memset(static_cast<void*>(state->data() + (l * batch_ + b) * sizes_.hidden), 0, sizes_.hidden * sizeof(T));
    }
}

template <class T>
void Stream<T>::set(const T* h, const T* c) {
  if (!state_size()) return;
  std::memcpy(h_[now_].data(), h, state_size() * sizeof(T));
  std::memcpy(c_[now_].data(), c, state_size() * sizeof(T));
}

template class Stream<float>;
template class Stream<double>;

}  // namespace fourgate
