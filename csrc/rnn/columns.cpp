#include "rnn/columns.h"

#include <cstring>

namespace quadgate {

template <class Real>
void copy_to_panels(const ColumnPanels<Real>& panels, const Real* from, const Real* mask, size_t at) {
  const Columns& columns = panels.columns;
  for (size_t p = 0; p < columns.panels(); ++p) {
    const size_t k = p * columns.line, line = columns.line_of(p), n = std::min(line, columns.n - k);
    Real* to = panels.panel(p) + at * line;
    std::memcpy(to, from + k, n * sizeof(Real));
    for (size_t i = 0; mask && i < n; ++i) to[i] *= mask[k + i];
    if (n < line) std::memset(static_cast<void*>(to + n), 0, (line - n) * sizeof(Real));
  }
}

template void copy_to_panels<float>(const ColumnPanels<float>&, const float*, const float*, size_t);
template void copy_to_panels<double>(const ColumnPanels<double>&, const double*, const double*, size_t);

}  // namespace quadgate
