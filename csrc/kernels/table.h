// The table of plain functions that one instruction set exports.
#pragma once

#include "kernels/compact_steps.h"
#include "kernels/norm_steps.h"
#include "kernels/steps.h"
#include "kernels/train_steps.h"

namespace quadgate {

template <class Real>
struct Kernels {
  size_t width;         // W
  size_t max_rows;      // rows of the largest register tile of whole lines
  bool copies_columns;  // weight_gradient has a use for WeightGradient::columns
  bool half_lines;      // panels lie in halves of lines (layouts.h)
  void (*forward)(const ForwardStep<Real>&);
  // Moves rows from a step to the next, where h is the y of the step before.
  void (*advance)(ForwardRow<Real>* rows, size_t n_rows, const RowStrides&);
  void (*project)(const Project<Real>&);
  void (*projected)(const ProjectedStep<Real>&);
  void (*normalised)(const NormStep<Real>&);
  void (*backward)(const BackwardStep<Real>&);
  void (*back_product)(const BackProduct<Real>&);
  void (*projected_backward)(const ProjectedBackwardStep<Real>&);
  void (*normalised_backward)(const NormBackwardStep<Real>&);
  void (*weight_gradient)(const WeightGradient<Real>&);
  void (*column_sums)(const ColumnSums<Real>&);
  void (*rows_to_panels)(const RowsToPanels<Real>&);
  // to[c][r] = from[r][c], or += with `add`, for (rows, cols) whose rows are from_stride apart.
  void (*transpose)(const Real* from, size_t from_stride, Real* to, size_t to_stride, size_t rows, size_t cols,
                    bool add);
  void (*activate)(const Activation<Real>&, const Real* x, Real* y, size_t n);  // y may be x
  // dz = dy f'(z) for y = f(z); z may be y for sigmoid, tanh and relu; dz may be dy.
  void (*slopes)(const Activation<Real>&, const Real* z, const Real* y, const Real* dy, Real* dz, size_t n);
  void (*softmax_rows)(const SoftmaxRows<Real>&);
  void (*adam)(const AdamStep<Real>&);
  void (*sgd)(const SgdStep<Real>&);
  Real (*squares)(const Real* x, size_t n);  // their sum
  void (*narrow_forward)(const NarrowRows<Real>&);
  void (*narrow_input_gradient)(const NarrowRows<Real>&);
  void (*narrow_weight_gradient)(const NarrowRows<Real>&);
};

struct KernelTable {
  const char* name;  // "baseline", "avx2", "avx512", "neon"
  Kernels<float> f32;
  Kernels<double> f64;
  CompactKernels compact;
};

}  // namespace quadgate
