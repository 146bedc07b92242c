#include "rnn/backward/column_sums.h"

#include "parallel/cost.h"
#include "rnn/backward/columns.h"

namespace quadgate {
namespace {

template <class Real>
class ColumnSumsOfBlock {
 public:
  ColumnSumsOfBlock(const Team& share, const BackwardContext<Real>& pass, const BackwardTask<Real>& task)
      : share_(share),
        pass_(pass),
        task_(task),
        id_(pass.state(task.l, task.d)),
        reverse_(pass.sizes.reverse(task.d)) {}

  void run() {
    for (size_t s = task_.s1; s-- > task_.s0;)
      for (size_t r = 0; r < pass_.order.active_rows(s); ++r) {
        rows_[count_++] = {pass_.blocks.row_in_block(task_.s1, s, r), s, r};
        if (count_ == kRows) add_all();
      }
    if (count_) add_all();
    if (!pass_.n.h_columns) multiply_zeros();
    share_.worked(kColumnSumFlops * double(task_.n_rows * pass_.n.gate_rows * (share_.last - share_.first)) /
                  double(share_.of));
  }

 private:
  struct Row {
    size_t at, s, r;  // in the block; step; of the order
  };

  // All sums over the rows collected so far.
  void add_all() {
    const BackwardBlockScratch<Real>& block = pass_.block;
    const BackwardStateScratch<Real>& sums = pass_.all.states[id_];
    const size_t H = pass_.sizes.hidden, G = pass_.n.gate_rows;
    if (pass_.n.norm) {
      const Real* normal = pass_.tape.normal[id_].data();
      auto da = [&](const Row& row) { return block.da + row.at * G; };
      auto dv = [&](const Row& row) { return block.dv_c + row.at * H; };
      add(sums.bias, G, da);
      add(sums.norm_ih, G, da, [&](const Row& row) { return normal + taped(row) * 2 * G; });
      add(sums.norm_hh, G, da, [&](const Row& row) { return normal + taped(row) * 2 * G + G; });
      add(sums.norm_c, H, dv, [&](const Row& row) { return block.normal_c + row.at * H; });
      add(sums.norm_c + H, H, dv);
    }
    if (pass_.n.by_rows || !pass_.n.h_columns)
      add(sums.bias, G, [&](const Row& row) { return block.dg + row.at * pass_.n.dg_stride; });
    if (sums.peephole) {
      const Real* d = pass_.n.norm ? block.da : block.dg;
      const size_t stride = pass_.n.norm ? G : pass_.n.dg_stride;
      auto before = [&](const Row& row) { return c_prev(row); };
      auto after = [&](const Row& row) { return c_new(row); };
      add(
          sums.peephole, H, [&](const Row& row) { return d + row.at * stride; }, before);
      add(
          sums.peephole + H, H, [&](const Row& row) { return d + row.at * stride + H; }, before);
      add(
          sums.peephole + 2 * H, H, [&](const Row& row) { return d + row.at * stride + 3 * H; }, after);
    }
    count_ = 0;
  }

  // The gradient of weight_hh where all h are zero: a number for each row.
  void multiply_zeros() {
    const BackwardStateScratch<Real>& sums = pass_.all.states[id_];
    const size_t G = pass_.n.gate_rows, stride = pass_.n.dg_stride, W = pass_.w.kernels.width, vectors = n_blocks(G, W);
    for (size_t j = share_.begin(vectors) * W; j < std::min(G, share_.end(vectors) * W); ++j)
      sums.zero_h[j] = zero_product(sums.bias[j], pass_.block.dg + j, stride, task_.n_rows);
  }

  // out += sum of a, or of a * b.
  template <class A>
  void add(Real* out, size_t columns, A&& a) {
    sum(out, columns, a, nullptr);
  }
  template <class A, class B>
  void add(Real* out, size_t columns, A&& a, B&& b) {
    for (size_t i = 0; i < count_; ++i) right_[i] = b(rows_[i]);
    sum(out, columns, a, right_);
  }
  template <class A>
  void sum(Real* out, size_t columns, A&& a, const Real* const* right) {
    const size_t W = pass_.w.kernels.width, vectors = n_blocks(columns, W);
    ColumnSums<Real> sums = {};
    sums.a = left_;
    sums.b = right;
    sums.out = out;
    sums.n_rows = count_;
    sums.begin = share_.begin(vectors) * W;
    sums.end = std::min(columns, share_.end(vectors) * W);
    if (sums.begin >= sums.end) return;
    for (size_t i = 0; i < count_; ++i) left_[i] = a(rows_[i]);
    pass_.w.kernels.column_sums(sums);
  }

  size_t time(const Row& row) const { return pass_.order.time(row.r, row.s, reverse_); }
  size_t taped(const Row& row) const { return pass_.tape.rows.at(time(row), pass_.order.index(row.r)); }
  const Real* c_prev(const Row& row) const {
    if (pass_.is_reset(row.r, row.s, reverse_)) return pass_.all.zeros;
    const size_t i = pass_.order.index(row.r), t = time(row);
    if (row.s == 0) return pass_.c0(id_, i);
    return pass_.tape.c[id_].data() + pass_.tape.rows.at(reverse_ ? t + 1 : t - 1, i) * pass_.sizes.hidden;
  }
  const Real* c_new(const Row& row) const {
    const size_t H = pass_.sizes.hidden;
    return pass_.block.c_new ? pass_.block.c_new + row.at * H : pass_.tape.c[id_].data() + taped(row) * H;
  }

  // Each thread needs pointers of its own, and few enough rows at a time for them to lie on the stack.
  static constexpr size_t kRows = 128;
  const Team& share_;
  const BackwardContext<Real>& pass_;
  const BackwardTask<Real>& task_;
  const size_t id_;
  const bool reverse_;
  size_t count_ = 0;
  Row rows_[kRows];
  const Real *left_[kRows], *right_[kRows];
};

}  // namespace

template <class Real>
void column_sums(const Team& share, const BackwardContext<Real>& pass, const BackwardTask<Real>& task) {
  ColumnSumsOfBlock<Real>(share, pass, task).run();
}

template void column_sums<float>(const Team&, const BackwardContext<float>&, const BackwardTask<float>&);
template void column_sums<double>(const Team&, const BackwardContext<double>&, const BackwardTask<double>&);

}  // namespace quadgate
