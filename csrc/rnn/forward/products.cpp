#include "rnn/forward/products.h"

namespace quadgate {

template <class Real>
bool float_weights(const Team& team, const ForwardContext<Real>& pass, const ForwardTask<Real>& task,
                   PackedLayer<Real>& wide) {
  const Weights<Real>& w = pass.w;
  if (pass.floats.panels) {
    wide = w.with_floats(task.l, task.d, pass.floats);
    return true;
  }
  const FloatMatrices of =
      w.widened(task.l, {task.row1 - task.row0, task.s1 - task.s0, pass.one_loop ? 1 : team.size, false});
  if (!of.any() || w.float_elements(task.l, of) > pass.n.wide) return true;
  wide = w.with_panels(task.l, task.d, of, task.team->wide);
  return team.ranges(w.blocks(), [&](size_t begin, size_t end) { w.widen(wide, begin, end); });
}

namespace {

// Blocks [begin, end) of n rows.
template <class Real>
bool project_part(const Team& share, const Weights<Real>& w, const Packed<Real>& p, const Real* bias,
                  const Real* const* x, size_t n, size_t begin, size_t end, Real* to, char* work) {
  Project<Real> product = {};
  product.bias = bias;
  product.input_size = p.n_k;
  product.x = x;
  product.pre = to;
  product.n_rows = n;
  product.n_blocks = p.shape.blocks();
  product.n_vectors = int(p.shape.vectors());
  return sliced(share.whole(), end - begin, product_flops(n, p.shape.line(), p.n_k), [&](size_t first, size_t last) {
    product.block_begin = begin + first;
    product.block_end = begin + last;
    w.project(p, product, work);
  });
}

}  // namespace

template <class Real>
void project_share(const Team& share, const ProductCut& cut, const Weights<Real>& w, const Packed<Real>& p,
                   const Real* bias, const Real* const* x, Real* to, char* work) {
  cut.each(share, [&](size_t row, size_t row_end, size_t block, size_t block_end) {
    return project_part(share, w, p, bias, x + row, row_end - row, block, block_end, to + row * p.row(), work) &&
           share.go();
  });
}

template <class Real>
bool project(const Team& team, const Weights<Real>& w, const Packed<Real>& p, const Real* bias, const Real* const* x,
             size_t n, Real* to, char* work) {
  return team.share(p.shape.blocks(), [&](const Team& share) {
    project_part(share, w, p, bias, x, n, share.begin(p.shape.blocks()), share.end(p.shape.blocks()), to, work);
  });
}

template <class Real>
bool run_cells(const Team& team, const Weights<Real>& w, const PackedLayer<Real>& layer, ForwardStep<Real>& step,
               char* work) {
  const size_t k = step.recurrent_size + (step.use_pre ? 0 : step.input_size);
  const double flops = product_flops(step.n_rows, w.layer(0, 0).hh.shape.line(), k) * double(1 + step.n_more);
  return team.share(w.blocks(), [&](const Team& share) {
    sliced(share, w.blocks(), flops, [&](size_t begin, size_t end) {
      step.block_begin = begin;
      step.block_end = end;
      w.forward(layer, step, work);
    });
  });
}

template <class Real>
bool run_normalised_cells(const Team& team, const ForwardContext<Real>& pass, const ForwardTask<Real>& task,
                          const PackedLayer<Real>& layer, const ForwardStep<Real>& step) {
  const ForwardThreadScratch<Real>& scratch = *task.thread;
  for (size_t i = 0; i < step.n_rows; ++i) scratch.x[i] = step.rows[i].h;
  if (!project<Real>(team, pass.w, layer.hh, nullptr, scratch.x, step.n_rows, task.team->product, scratch.compact_work))
    return false;
  return team.ranges(step.n_rows, [&](size_t first, size_t end) {
    for (size_t i = first; i < end; ++i) scratch.norm[i].ih = step.rows[i].pre;
    NormStep<Real> norm = {};
    norm.norm = &layer.norm;
    norm.bias = step.bias;
    norm.rows = step.rows + first;
    norm.norm_rows = scratch.norm + first;
    norm.n_rows = end - first;
    norm.hidden_size = step.hidden_size;
    norm.options = step.options;
    norm.peephole = step.peephole;
    norm.extra = step.extra ? step.extra + first : nullptr;
    norm.work = scratch.norm_work;
    pass.w.kernels.normalised(norm);
  });
}

template <class Real>
bool project_h(const Team& team, const ForwardContext<Real>& pass, const ForwardTask<Real>& task, size_t n) {
  const ForwardThreadScratch<Real>& scratch = *task.thread;
  const Packed<Real>& hr = pass.w.layer(task.l, task.d).hr;
  const size_t R = pass.n.recurrent, line = hr.shape.line();
  for (size_t i = 0; i < n; ++i) scratch.x[i] = scratch.rows[i].y;
  return team.share(hr.shape.blocks(), [&](const Team& share) {
    Project<Real> product = {};
    product.input_size = hr.n_k;
    product.x = scratch.x;
    product.pre = task.team->z;
    product.n_rows = n;
    product.n_blocks = hr.shape.blocks();
    product.block_begin = share.begin(product.n_blocks);
    product.block_end = share.end(product.n_blocks);
    pass.w.project(hr, product, scratch.compact_work);
    const Options& o = pass.sizes.options;
    ProjectedStep<Real> step = {};
    step.rows = scratch.projected;
    step.n_rows = n;
    step.begin = product.block_begin * line;
    step.end = std::min(R, product.block_end * line);
    step.clip = Real(o.proj_clip);
    step.zoneout_h = Real(o.cell.zoneout_h);
    step.extra = scratch.extra;
    pass.w.kernels.projected(step);
    share.worked(product_flops(n, line * (product.block_end - product.block_begin), hr.n_k));
  });
}

#define QG_INSTANTIATE(Real)                                                                                           \
  template bool float_weights<Real>(const Team&, const ForwardContext<Real>&, const ForwardTask<Real>&,                \
                                    PackedLayer<Real>&);                                                               \
  template void project_share<Real>(const Team&, const ProductCut&, const Weights<Real>&, const Packed<Real>&,         \
                                    const Real*, const Real* const*, Real*, char*);                                    \
  template bool project<Real>(const Team&, const Weights<Real>&, const Packed<Real>&, const Real*, const Real* const*, \
                              size_t, Real*, char*);                                                                   \
  template bool run_cells<Real>(const Team&, const Weights<Real>&, const PackedLayer<Real>&, ForwardStep<Real>&,       \
                                char*);                                                                                \
  template bool run_normalised_cells<Real>(const Team&, const ForwardContext<Real>&, const ForwardTask<Real>&,         \
                                           const PackedLayer<Real>&, const ForwardStep<Real>&);                        \
  template bool project_h<Real>(const Team&, const ForwardContext<Real>&, const ForwardTask<Real>&, size_t);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
