// An affine map of many rows, with an activation: y = f(x W^T + b), and its gradients.
#pragma once

#include <atomic>
#include <memory>

#include "kernels/table.h"
#include "memory/buffer.h"
#include "memory/packing.h"
#include "parallel/fork.h"
#include "train/flat.h"

namespace quadgate {

// A matrix M (n_k, n_cols), packed for out = a M: slices of k, so that a group of a slice stays in L2; each slice is a
// matrix in back panels (kernels/layouts.h).
template <class Real>
class Operand {
 public:
  Operand(size_t n_k, size_t n_cols, size_t width);

  // From M itself, or from its transpose (n_cols, n_k); row-major. Never interrupted: half of it would be of no use.
  void pack(const Real* m, bool transposed);

  // For rows [0, n_rows) and column groups [begin, end): out = a M, or out += a M. `a` and `out` are pointers to rows;
  // a is moved on and back. `work` as in BackProduct.
  void multiply(const Kernels<Real>& kernels, const Real** a, Real* const* out, size_t n_rows, size_t begin, size_t end,
                bool add, Real* work) const;

  size_t n_k() const { return n_k_; }
  size_t n_cols() const { return n_cols_; }
  size_t groups() const { return n_groups(n_cols_, width_); }
  size_t bytes() const { return panels_.nbytes(); }

 private:
  Real* slice(size_t k) { return panels_.data() + k * n_blocks(n_cols_, width_) * width_; }
  const Real* slice(size_t k) const { return panels_.data() + k * n_blocks(n_cols_, width_) * width_; }
  void pack_group(const Real* m, bool transposed, size_t k0, size_t k1, size_t group);

  size_t n_k_, n_cols_, width_;
  Parts slices_;
  Buffer<Real> panels_;
};

// An immutable layer. The caller keeps the arrays that it was made of.
template <class Real>
class DenseLayer {
 public:
  // weight (n_out, n_in) and bias (n_out) or null, row-major; f null for no activation. Packs for `forward` at once.
  DenseLayer(const Real* weight, const Real* bias, size_t n_in, size_t n_out, const Activation<Real>* f);
  ~DenseLayer() { delete back_.load(std::memory_order_relaxed); }

  size_t n_in() const { return n_in_; }
  size_t n_out() const { return n_out_; }
  bool biased() const { return bias_ != nullptr; }
  bool active() const { return active_; }
  // True if `backward` needs z beside y.
  bool needs_z() const;

  // x (n_rows, n_in), y (n_rows, n_out), z as y or null. False if interrupted.
  bool forward(const Real* x, size_t n_rows, Real* z, Real* y, Interrupted interrupted) const;

  // All arrays are row-major: x and dx (n_rows, n_in), z, y and dy (n_rows, n_out), dweight (n_out, n_in), dbias
  // (n_out). What is written overlaps nothing that is read.
  struct Backward {
    const Real *x, *z, *y, *dy;  // z and y null without an activation; z may be y, see needs_z
    size_t n_rows;
    Real *dx, *dweight, *dbias;  // out; dx may be null, and dbias without a bias
  };
  bool backward(const Backward& b, Interrupted interrupted) const;  // false if interrupted

 private:
  bool narrow() const { return n_out_ <= kNarrow; }  // no panels then, see kernels/narrow.h
  const Operand<Real>* back() const;
  bool multiply(const Real* x, size_t n_rows, Real* sums, Interrupted interrupted) const;
  bool products(const Backward& b, const Real* dz, Interrupted interrupted) const;

  const Kernels<Real>& kernels_;
  const Real *weight_, *bias_;
  size_t n_in_, n_out_;
  Activation<Real> f_;
  bool active_;
  Operand<Real> ahead_;
  mutable ForkLock making_back_;
  mutable std::atomic<const Operand<Real>*> back_{nullptr};
};

}  // namespace quadgate
