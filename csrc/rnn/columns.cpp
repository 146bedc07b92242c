#include "rnn/columns.h"

namespace quadgate {

template <class Real>
void copy_to_panels(const Kernels<Real>& kernels, const Real* from, size_t from_stride, size_t n_rows,
                    const ColumnPanels<Real>& panels, size_t at) {
  kernels.rows_to_panels({from, from_stride, n_rows, panels.columns.n, panels.data, panels.rows, panels.first + at});
}

template <class Real>
void multiply_in_panels(const ColumnPanels<Real>& panels, size_t at, const Real* mask) {
  const Columns& columns = panels.columns;
  for (size_t p = 0; p < columns.panels(); ++p) {
    const size_t k = p * columns.line, line = columns.line_of(p), n = std::min(line, columns.n - k);
    Real* to = panels.panel(p) + at * line;
    for (size_t i = 0; i < n; ++i) to[i] *= mask[k + i];
  }
}

#define QG_INSTANTIATE(Real)                                                                                       \
  template void copy_to_panels<Real>(const Kernels<Real>&, const Real*, size_t, size_t, const ColumnPanels<Real>&, \
                                     size_t);                                                                      \
  template void multiply_in_panels<Real>(const ColumnPanels<Real>&, size_t, const Real*);
QG_INSTANTIATE(float)
QG_INSTANTIATE(double)
#undef QG_INSTANTIATE

}  // namespace quadgate
