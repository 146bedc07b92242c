#include "train/dense.h"

#include <cstring>
#include <mutex>
#include <vector>

#include "rnn/scratch.h"
#include "train/narrow.h"
#include "train/weight_product.h"

namespace quadgate {
namespace {

constexpr size_t kSliceRows = 1024;              // of k: 256 KiB of a full group's floats, with AVX-512
constexpr size_t kPanelBytes = size_t(1) << 20;  // of the groups that a piece iterates over
constexpr size_t kPieceRows = 10 * kChunkRows, kLeastRows = kChunkRows;
// Some 0.3 ms of one core, between which a call can be stopped; with several slices of k, 6 ms.
constexpr double kPieceFlops = 4e7, kSlicedFlops = 1e9;
constexpr double kPieces = 16;  // at least, for threads of unequal speed
// Bytes of x above which copying is worth waking threads.
constexpr size_t kSharedCopy = size_t(1) << 18;

// The cut of out = a M into pieces: rows by column groups.
struct DenseCut {
  Parts rows, groups;
  size_t n() const { return rows.count * groups.count; }

  template <class Real>
  static DenseCut of(const Operand<Real>& m, size_t n_rows) {
    const double flops_row = 2.0 * double(m.n_k()) * double(m.n_cols());
    const size_t panel = std::max<size_t>(1, m.bytes() / std::max<size_t>(1, m.groups()));
    const size_t all = std::max<size_t>(1, m.groups());
    size_t groups = std::max<size_t>(1, kPanelBytes / panel);
    // With several slices of k, the rows' part of a slice stays in L2 while the panels of many groups pass by, so `a`
    // is read less often.
    if (m.n_k() > kSliceRows) {
      const double most = kSlicedFlops / (flops_row / double(all) * double(kLeastRows) + 1);
      const size_t wanted = n_blocks(all * Parts(n_rows, kLeastRows).count, size_t(kPieces));
      groups = std::max(groups, std::min(wanted, size_t(most)));
    }
    groups = std::min(groups, all);
    const double share = double(groups) / double(all);
    const double most = std::min(kPieceFlops, flops_row * double(n_rows) / kPieces);
    size_t rows = size_t(std::min(most / (flops_row * share + 1), double(kPieceRows)));
    rows = std::max(kLeastRows, rows / kLeastRows * kLeastRows);
    return {Parts(n_rows, rows), Parts(m.groups(), groups)};
  }
};

size_t product_work(size_t width) { return kChunkRows * kGroupBlocks * width; }

// The memory of one thread.
template <class Real>
struct Scratch {
  const Real** a;
  Real** out;
  Real* work;
  typename WeightProduct<Real>::Work weights;
  void take(Carver& pieces, size_t width) {
    a = pieces.take<const Real*>(kPieceRows);
    out = pieces.take<Real*>(kPieceRows);
    work = pieces.take<Real>(product_work(width));
  }
};

// One for each thread of a lease.
template <class Real>
class Scratches {
 public:
  // weights: the weight gradient to make, which gets its panels, or null.
  Scratches(int n, const Kernels<Real>& kernels, WeightProduct<Real>* weights = nullptr) : all_(size_t(n)) {
    lease_.carve([&](Carver& pieces) {
      for (Scratch<Real>& s : all_) {
        s.take(pieces, kernels.width);
        if (weights) s.weights = weights->take_work(pieces);
      }
      if (weights) weights->take_panels(pieces);
    });
  }
  Scratch<Real>& operator[](int rank) { return all_[size_t(rank)]; }

 private:
  ScratchLease lease_;
  std::vector<Scratch<Real>> all_;
};

// One piece of out = a M + start, where a and out are dense rows.
template <class Real>
struct Product {
  const Operand<Real>& m;
  const Kernels<Real>& kernels;
  const Real* a;
  Real* out;
  const Real* start;  // a row that every row of out begins with, or null
  DenseCut cut;

  void run(size_t piece, Scratch<Real>& s) const {
    const size_t row_part = piece % cut.rows.count, group_part = piece / cut.rows.count;
    const size_t first = cut.rows.begin(row_part), n = size_t(cut.rows.size(row_part)), N = m.n_cols();
    const size_t begin = cut.groups.begin(group_part), end = begin + size_t(cut.groups.size(group_part));
    const size_t from = group_column(begin, N, kernels.width), to = group_column(end, N, kernels.width);
    for (size_t r = 0; r < n; ++r) {
      s.a[r] = a + (first + r) * m.n_k();
      s.out[r] = out + (first + r) * N;
      if (start) std::copy(start + from, start + to, s.out[r] + from);
    }
    m.multiply(kernels, s.a, s.out, n, begin, end, start != nullptr, s.work);
  }
};

// db = the sum of dz's rows, by blocks of columns.
template <class Real>
struct BiasSums {
  const Kernels<Real>& kernels;
  const Real* dz;
  size_t n_rows, n_out;
  Real* db;

  size_t block() const { return kLineVectors * kernels.width; }
  size_t n() const { return db ? n_blocks(n_out, block()) : 0; }
  void run(size_t piece, Scratch<Real>& s) const {
    ColumnSums<Real> sums = {};
    sums.a = s.a;
    sums.out = db;
    sums.begin = piece * block();
    sums.end = std::min(n_out, sums.begin + block());
    std::fill(db + sums.begin, db + sums.end, Real(0));
    for (size_t row = 0; row < n_rows; row += kPieceRows) {
      sums.n_rows = std::min(kPieceRows, n_rows - row);
      for (size_t r = 0; r < sums.n_rows; ++r) s.a[r] = dz + (row + r) * n_out;
      kernels.column_sums(sums);
    }
  }
};

constexpr size_t kElements = 16384;  // of a piece of elementwise work

}  // namespace

template <class Real>
Operand<Real>::Operand(size_t n_k, size_t n_cols, size_t width)
    : n_k_(n_k),
      n_cols_(n_cols),
      width_(width),
      slices_(n_k, kSliceRows),
      panels_(Buffer<Real>::hot(checked_mul(n_k, n_blocks(n_cols, width) * width))) {}

template <class Real>
void Operand<Real>::pack_group(const Real* m, bool transposed, size_t k0, size_t k1, size_t group) {
  const Parts groups = column_groups(n_cols_, width_);
  const Kernels<Real>& kernels = kernels_for<Real>();
  const size_t end = (groups.begin(group) + size_t(groups.size(group))) * width_;
  const size_t line = back_line(size_t(groups.size(group)), kernels.half_lines) * width_;
  Real* to = slice(k0) + groups.begin(group) * width_ * (k1 - k0);
  for (size_t first = groups.begin(group) * width_; first < end; first += line) {
    const size_t columns = std::min(line, n_cols_ - first);
    if (transposed) {
      if (columns < line) std::memset(static_cast<void*>(to), 0, (k1 - k0) * line * sizeof(Real));
      kernels.transpose(m + first * n_k_ + k0, n_k_, to, line, columns, k1 - k0, false);
      to += (k1 - k0) * line;
      continue;
    }
    for (size_t k = k0; k < k1; ++k, to += line) {
      std::memcpy(to, m + k * n_cols_ + first, columns * sizeof(Real));
      if (columns < line) std::memset(static_cast<void*>(to + columns), 0, (line - columns) * sizeof(Real));
    }
  }
}

template <class Real>
void Operand<Real>::pack(const Real* m, bool transposed) {
  const size_t n = slices_.count * groups();
  Lease lease(threads_for(n, kElementFlops * double(n_k_) * double(n_cols_)));
  for_pieces(lease, n, nullptr, [&](size_t piece, int) {
    const size_t s = piece / groups();
    pack_group(m, transposed, slices_.begin(s), slices_.begin(s) + size_t(slices_.size(s)), piece % groups());
  });
}

template <class Real>
void Operand<Real>::multiply(const Kernels<Real>& kernels, const Real** a, Real* const* out, size_t n_rows,
                             size_t begin, size_t end, bool add, Real* work) const {
  BackProduct<Real> p = {};
  p.n_gates = 1;
  p.n_cols = n_cols_;
  p.dg = a;
  p.out = out;
  p.n_rows = n_rows;
  p.group_begin = begin;
  p.group_end = end;
  p.work = work;
  for (size_t s = 0; s < slices_.count; ++s) {
    p.n_rows_of_gate = size_t(slices_.size(s));
    p.w_back = slice(slices_.begin(s));
    p.add = add || s > 0;
    kernels.back_product(p);
    for (size_t r = 0; r < n_rows; ++r) a[r] += p.n_rows_of_gate;
  }
  for (size_t r = 0; r < n_rows; ++r) a[r] -= n_k_;
}

template <class Real>
DenseLayer<Real>::DenseLayer(const Real* weight, const Real* bias, size_t n_in, size_t n_out, const Activation<Real>* f)
    : kernels_(kernels_for<Real>()),
      weight_(weight),
      bias_(bias),
      n_in_(n_in),
      n_out_(n_out),
      f_(f ? *f : Activation<Real>{}),
      active_(f != nullptr),
      ahead_(narrow() ? 0 : n_in, n_out, kernels_.width) {
  if (!narrow()) ahead_.pack(weight, true);
}

template <class Real>
bool DenseLayer<Real>::needs_z() const {
  return active_ && f_.function != kSigmoid && f_.function != kTanh && f_.function != kRelu;
}

template <class Real>
const Operand<Real>* DenseLayer<Real>::back() const {
  if (const Operand<Real>* made = back_.load(std::memory_order_acquire)) return made;
  std::lock_guard<ForkLock> lock(making_back_);
  if (const Operand<Real>* made = back_.load(std::memory_order_acquire)) return made;
  auto made = std::make_unique<Operand<Real>>(n_out_, n_in_, kernels_.width);
  made->pack(weight_, false);
  back_.store(made.get(), std::memory_order_release);
  return made.release();
}

template <class Real>
bool DenseLayer<Real>::forward(const Real* x, size_t n_rows, Real* z, Real* y, Interrupted interrupted) const {
  if (n_rows == 0) return true;
  Real* const sums = z ? z : y;
  const bool done = narrow()
                        ? narrow_forward<Real>({x, nullptr, weight_, bias_, sums, n_rows, n_in_, n_out_}, interrupted)
                        : multiply(x, n_rows, sums, interrupted);
  if (!done || !active_) return done;
  const size_t n = n_rows * n_out_, pieces = n_blocks(n, kElements);
  Lease lease(threads_for(pieces, kElementFlops * double(n)));
  return for_pieces(lease, pieces, interrupted, [&](size_t piece, int) {
    const size_t at = piece * kElements;
    kernels_.activate(f_, sums + at, y + at, std::min(kElements, n - at));
  });
}

template <class Real>
bool DenseLayer<Real>::multiply(const Real* x, size_t n_rows, Real* sums, Interrupted interrupted) const {
  const Product<Real> product = {ahead_, kernels_, x, sums, bias_, DenseCut::of(ahead_, n_rows)};
  Lease lease(threads_for(product.cut.n(), 2.0 * double(n_rows) * double(n_in_) * double(n_out_)));
  Scratches<Real> scratch(lease.size(), kernels_);
  return for_pieces(lease, product.cut.n(), interrupted,
                    [&](size_t piece, int rank) { product.run(piece, scratch[rank]); });
}

template <class Real>
bool DenseLayer<Real>::backward(const Backward& b, Interrupted interrupted) const {
  const size_t n = b.n_rows * n_out_, pieces = n_blocks(n, kElements);
  Buffer<Real> own(active_ ? n : 0);
  if (active_) {
    Lease lease(threads_for(pieces, kElementFlops * double(n)));
    const bool done = for_pieces(lease, pieces, interrupted, [&](size_t piece, int) {
      const size_t at = piece * kElements;
      kernels_.slopes(f_, b.z + at, b.y + at, b.dy + at, own.data() + at, std::min(kElements, n - at));
    });
    if (!done) return false;
  }
  const Real* dz = active_ ? own.data() : b.dy;
  if (narrow() && !narrow_backward<Real>({b.x, dz, weight_, nullptr, nullptr, b.n_rows, n_in_, n_out_}, b.dx, b.dweight,
                                         interrupted))
    return false;
  return products(b, dz, interrupted);
}

// dx, dweight and dbias by panels; of a narrow layer, whose dx and dweight narrow_backward made, dbias alone.
template <class Real>
bool DenseLayer<Real>::products(const Backward& b, const Real* dz, Interrupted interrupted) const {
  const Operand<Real>* m = b.dx && !narrow() ? back() : nullptr;
  const DenseCut cut = m && b.n_rows ? DenseCut::of(*m, b.n_rows) : DenseCut{Parts(0, 1), Parts(0, 1)};
  WeightProduct<Real> weights(kernels_, b.x, dz, b.n_rows, n_in_, n_out_, b.dweight);
  const BiasSums<Real> sums = {kernels_, dz, b.n_rows, n_out_, b.dbias};
  const size_t phases = narrow() ? 0 : weights.phases(), n_dw = phases ? weights.n() : 0;
  const size_t n_dx = cut.n(), others = n_dx + sums.n();
  if (!b.n_rows && !narrow()) std::fill_n(b.dweight, n_in_ * n_out_, Real(0));
  Lease lease(threads_for(others + n_dw, weights.flops() * (m ? 2 : 1)));
  Scratches<Real> scratch(lease.size(), kernels_, phases ? &weights : nullptr);
  for (size_t phase = 0; phase < phases; ++phase) {
    auto copy = [&](size_t part, int) { weights.copy(phase, part); };
    auto run = [&](size_t piece, int rank) { weights.run(phase, piece, scratch[rank].weights); };
    const size_t copies = weights.copies(phase);
    if (weights.copied_bytes(phase) > kSharedCopy) {
      if (!for_pieces(lease, copies, interrupted, copy)) return false;
    } else {
      for (size_t part = 0; part < copies; ++part) copy(part, 0);
    }
    if (phase + 1 < phases && !for_pieces(lease, n_dw, interrupted, run)) return false;
  }
  // With the last phase goes all that needs no panels, so that threads wait for each other once.
  return for_pieces(lease, n_dw + others, interrupted, [&](size_t piece, int rank) {
    Scratch<Real>& s = scratch[rank];
    if (piece < n_dw)
      weights.run(phases - 1, piece, s.weights);
    else if (piece < n_dw + n_dx)
      Product<Real>{*m, kernels_, dz, b.dx, nullptr, cut}.run(piece - n_dw, s);
    else
      sums.run(piece - n_dw - n_dx, s);
  });
}

template class Operand<float>;
template class Operand<double>;
template class DenseLayer<float>;
template class DenseLayer<double>;

}  // namespace quadgate
