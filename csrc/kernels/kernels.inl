// The source of every instruction set: an isa_*.cpp names the set and includes this file.
//
// Forward and backward are mirrors: a product over k into a register tile, then the pointwise part on the sums.
// See kernels.h for shapes and for the order of summation that all tile shapes share.
#include "gate.h"
#include "kernels.h"
#include "microkernel.h"

namespace fourgate {
namespace FG_ISA {
namespace {

template <class T>
FG_INLINE int lanes_of(size_t block, size_t n) {
  constexpr size_t W = Vec<T>::kWidth;
  size_t left = n - block * W;
  return int(left < W ? left : W);
}

// ---- forward ----

// The cell in two halves. One after the other they are a chain of two activations, some 140 cycles, and the scheduler
// is too small to hold more than one and a half rows of it; a tile does the first half of all its rows, then the
// second.
template <class T>
FG_INLINE Cell<T> finish_cell(const ForwardStep<T>& step, const ForwardRow<T>& row, const Vec<T> (&a)[4],
                              size_t block) {
  const size_t hidden = step.hidden_size;
  size_t u = block * Vec<T>::kWidth;
  int n = lanes_of<T>(block, hidden);
  Cell<T> s = cell_forward(a, load_upto(row.c_prev + u, n));
  store_upto(row.c + u, s.c, n);
  if (row.gates) {
    const Vec<T> gates[4] = {s.i, s.f, s.g, s.o};
    if (step.large_tape)
      for (size_t v = 0; v < 4; ++v) stream_upto(row.gates + v * hidden + u, gates[v], n);
    else
      for (size_t v = 0; v < 4; ++v) store_upto(row.gates + v * hidden + u, gates[v], n);
  }
  return s;
}

template <class T>
FG_INLINE void finish_output(const ForwardRow<T>& row, Vec<T> o, Vec<T> c, size_t block, size_t hidden) {
  size_t u = block * Vec<T>::kWidth;
  int n = lanes_of<T>(block, hidden);
  Vec<T> h = cell_output(o, c);
  store_upto(row.y + u, h, n);
  if (row.y2) store_upto(row.y2 + u, h, n);
}

// MR rows of NP neighbouring blocks: all of k, then the cell.
template <class T, int NP, int MR>
FG_INLINE void forward_tile(const ForwardStep<T>& s, const ForwardRow<T>* rows, size_t block, size_t next, size_t tile,
                            size_t n_tiles) {
  constexpr size_t W = Vec<T>::kWidth;
  const size_t I = s.input_size, H = s.hidden_size;
  Vec<T> a[NP][MR][4];
  const T *x[MR], *h[MR];
  for (int r = 0; r < MR; ++r) {
    const T* from = s.use_pre ? rows[r].pre : s.bias;
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < 4; ++v) a[p][r][v] = load(from + ((block + p) * 4 + v) * W);
    x[r] = rows[r].x;
    h[r] = rows[r].h;
  }
  const Ahead<T> ih = {s.w_ih + block * I * 4 * W, s.w_ih + next * I * 4 * W, n_tiles};
  const Ahead<T> hh = {s.w_hh + block * H * 4 * W, s.w_hh + next * H * 4 * W, n_tiles};
  if (!s.use_pre) multiply(a, x, 0, 1, ih.panel, I * 4 * W, I, ih.slice(tile, I, 4));
  multiply(a, h, 0, 1, hh.panel, H * 4 * W, H, hh.slice(tile, H, 4));
  if constexpr (MR == 1) {
    Cell<T> cells[NP];
    for (int p = 0; p < NP; ++p) cells[p] = finish_cell(s, rows[0], a[p][0], block + p);
    for (int p = 0; p < NP; ++p) finish_output(rows[0], cells[p].o, cells[p].c, block + p, H);
  } else {
    // Through the stack, so that the cell's code stands once and not MR times.
    alignas(64) T sums[MR][4][W];
    for (int r = 0; r < MR; ++r)
      for (int v = 0; v < 4; ++v) store(sums[r][v], a[0][r][v]);
#pragma GCC unroll 1
    for (int r = 0; r < MR; ++r) {
      Vec<T> b[4] = {load(sums[r][0]), load(sums[r][1]), load(sums[r][2]), load(sums[r][3])};
      Cell<T> cell = finish_cell(s, rows[r], b, block);
      store(sums[r][0], cell.o);
      store(sums[r][1], cell.c);
    }
#pragma GCC unroll 1
    for (int r = 0; r < MR; ++r) finish_output(rows[r], load(sums[r][0]), load(sums[r][1]), block, H);
  }
}

template <class T>
FG_INLINE void forward_blocks(const ForwardStep<T>& s) {
  const size_t n_blocks = s.block_end - s.block_begin;
  if (s.n_rows == 1) {  // two panels at a time: 8 chains
    const size_t pairs = n_blocks / 2;
    if (s.descending && n_blocks % 2) forward_tile<T, 1, 1>(s, s.rows, s.block_end - 1, s.block_end - 1, 0, 1);
    for (size_t i = 0; i < pairs; ++i) {
      const size_t block = s.block_begin + 2 * (s.descending ? pairs - 1 - i : i);
      forward_tile<T, 2, 1>(s, s.rows, block, block, 0, 1);
    }
    if (!s.descending && n_blocks % 2) forward_tile<T, 1, 1>(s, s.rows, s.block_end - 1, s.block_end - 1, 0, 1);
    return;
  }
  const Tiles tiles(s.n_rows, kMaxRows);
  for (size_t i = 0; i < n_blocks; ++i) {
    const size_t block = s.descending ? s.block_end - 1 - i : s.block_begin + i;
    const size_t next = i + 1 == n_blocks ? block : s.descending ? block - 1 : block + 1;
    for (size_t t = 0; t < tiles.count; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            forward_tile<T, 1, decltype(mr)::value>(s, s.rows + tiles.begin(t), block, next, t, tiles.count);
          });
  }
}

template <class T>
void forward(const ForwardStep<T>& s) {
  forward_blocks(s);
  if (s.large_tape) stream_end();
}

template <class T>
void project(const Project<T>& s) {
  constexpr size_t W = Vec<T>::kWidth;
  const Tiles tiles(s.n_rows, kMaxRows);
  for (size_t block = s.block_begin; block < s.block_end; ++block)
    for (size_t t = 0; t < tiles.count; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            constexpr int MR = decltype(mr)::value;
            const size_t row = tiles.begin(t);
            Vec<T> a[1][MR][4];
            const T* x[MR];
            for (int r = 0; r < MR; ++r) {
              for (int v = 0; v < 4; ++v) a[0][r][v] = load(s.bias + (block * 4 + v) * W);
              x[r] = s.x[row + r];
            }
            const T* panel = s.w_ih + block * s.input_size * 4 * W;
            const Ahead<T> ahead = {panel, block + 1 < s.block_end ? panel + s.input_size * 4 * W : nullptr,
                                    tiles.count};
            multiply(a, x, 0, 1, panel, 0, s.input_size, ahead.slice(t, s.input_size, 4));
            for (int r = 0; r < MR; ++r)
              for (int v = 0; v < 4; ++v) store(s.pre + (((row + r) * s.n_blocks + block) * 4 + v) * W, a[0][r][v]);
          });
}

// ---- backward ----

// Rows that a group's panel is used for while one gate's quarter of it is in L2.
constexpr size_t kChunkRows = 96;

// The sums of MR rows over the gates from `gate` on, NP of them side by side; those of later gates are added to what
// the earlier ones left, so that a row's sum is ((i + f) + g) + o whatever NP is.
template <class T, int NP, int MR, int NV>
__attribute__((noinline)) void back_tile(T (*sums)[NV][Vec<T>::kWidth], const T* const* dg, int gate, const T* panel,
                                         Slice ahead, size_t hidden) {
  constexpr size_t W = Vec<T>::kWidth;
  Vec<T> a[NP][MR][NV];
  const T* from[MR];
  for (int r = 0; r < MR; ++r) {
    from[r] = dg[r] + gate * hidden;
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < NV; ++v) a[p][r][v] = zero<T>();
  }
  multiply(a, from, hidden, 1, panel + gate * hidden * NV * W, hidden * NV * W, hidden, ahead);
  for (int r = 0; r < MR; ++r)
    for (int v = 0; v < NV; ++v) {
      Vec<T> sum = gate == 0 ? a[0][r][v] : load(sums[r][v]) + a[0][r][v];
      for (int p = 1; p < NP; ++p) sum = sum + a[p][r][v];
      store(sums[r][v], sum);
    }
}

// sums[r][v] = dg[r] @ a group's back panel, for at most kChunkRows rows. Gate by gate for all rows: a quarter of the
// panel stays in L2 while they pass by. `next` is the panel that follows this one, or null.
template <class T, int NV>
FG_INLINE void back_sums(T (*sums)[NV][Vec<T>::kWidth], const T* const* dg, size_t n_rows, const T* panel,
                         const T* next, size_t hidden) {
  constexpr size_t W = Vec<T>::kWidth;
  if constexpr (NV <= kMaxRows)
    if (n_rows == 1) return back_tile<T, 4, 1, NV>(sums, dg, 0, panel, {}, hidden);  // a single row has too few chains
  if constexpr (2 * NV <= kMaxRows)
    if (n_rows == 2) return back_tile<T, 4, 2, NV>(sums, dg, 0, panel, {}, hidden);
  const Tiles tiles(n_rows, kMaxRows);
#pragma GCC unroll 1
  for (int gate = 0; gate < 4; ++gate) {
    const T* quarter = panel + gate * hidden * NV * W;
    const Ahead<T> ahead = {quarter, gate < 3 ? quarter + hidden * NV * W : next, tiles.count};
    for (size_t t = 0; t < tiles.count; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            back_tile<T, 1, decltype(mr)::value, NV>(sums + tiles.begin(t), dg + tiles.begin(t), gate, panel,
                                                     ahead.slice(t, hidden, NV), hidden);
          });
  }
}

// For groups [begin, end) of output columns and all rows: finish(row, block, sum) for every vector of dg @ weight.
// row(r) gives the (4H) operand; if `absent`, there is none and the sums are zero.
template <class T, class Row, class Finish>
FG_INLINE void back_products(const T* w_back, size_t hidden, size_t n_cols, size_t n_rows, size_t begin, size_t end,
                             bool descending, bool absent, Row&& row, Finish&& finish) {
  constexpr size_t W = Vec<T>::kWidth;
  const Tiles groups((n_cols + W - 1) / W, 4), chunks(n_rows, kChunkRows);
  for (size_t i = 0; i < end - begin; ++i) {
    const size_t group = descending ? end - 1 - i : begin + i, block = groups.begin(group);
    const T* panel = w_back + block * 4 * hidden * W;
    const T* next =
        i + 1 == end - begin ? nullptr : w_back + groups.begin(descending ? group - 1 : group + 1) * 4 * hidden * W;
    with_constant<4>(
        groups.size(group), [&](auto nv) __attribute__((always_inline)) {
          constexpr int NV = decltype(nv)::value;
          alignas(64) T sums[kChunkRows][NV][W];
          const T* dg[kChunkRows];
          for (size_t c = 0; c < chunks.count; ++c) {
            const size_t first = chunks.begin(c), n = size_t(chunks.size(c));
            for (size_t r = 0; r < n; ++r) dg[r] = row(first + r);
            if (!absent) back_sums<T, NV>(sums, dg, n, panel, c + 1 == chunks.count ? next : panel, hidden);
#pragma GCC unroll 1
            for (size_t r = 0; r < n; ++r)
#pragma GCC unroll 1
              for (int v = 0; v < NV; ++v) finish(first + r, block + v, absent ? zero<T>() : load(sums[r][v]));
          }
        });
  }
}

template <class T>
FG_INLINE void finish_backward(const BackwardRow<T>& row, Vec<T> dh, size_t block, size_t hidden, size_t panel_stride) {
  constexpr size_t W = Vec<T>::kWidth;
  size_t u = block * W;
  int n = lanes_of<T>(block, hidden);
  if (row.dh) dh = dh + load_upto(row.dh + u, n);
  if (row.dy) dh = dh + load_upto(row.dy + u, n);
  Cell<T> s;
  s.i = load_upto(row.gates + u, n);
  s.f = load_upto(row.gates + hidden + u, n);
  s.g = load_upto(row.gates + 2 * hidden + u, n);
  s.o = load_upto(row.gates + 3 * hidden + u, n);
  s.c = load_upto(row.c + u, n);
  Vec<T> dc = load_upto(row.dc + u, n), da[4];
  cell_backward(s, load_upto(row.c_prev + u, n), dh, dc, da);
  store_upto(row.dc + u, dc, n);
  for (int v = 0; v < 4; ++v) {
    store_upto(row.dg + v * hidden + u, da[v], n);
    store(row.dg_panel + block * panel_stride + v * W, da[v]);
  }
}

template <class T>
void backward(const BackwardStep<T>& s) {
  back_products<T>(
      s.w_back, s.hidden_size, s.hidden_size, s.n_rows, s.group_begin, s.group_end, s.descending,
      !s.rows[0].dg_next, [&](size_t r) __attribute__((always_inline)) { return s.rows[r].dg_next; },
      [&](size_t r, size_t block, Vec<T> sum)
          __attribute__((always_inline)) { finish_backward(s.rows[r], sum, block, s.hidden_size, s.panel_stride); });
}

template <class T>
void back_product(const BackProduct<T>& s) {
  back_products<T>(
      s.w_back, s.hidden_size, s.n_cols, s.n_rows, s.group_begin, s.group_end, false,
      false, [&](size_t r) __attribute__((always_inline)) { return s.dg[r]; },
      [&](size_t r, size_t block, Vec<T> sum) __attribute__((always_inline)) {
        T* out = s.out[r] + block * Vec<T>::kWidth;
        int n = lanes_of<T>(block, s.n_cols);
        store_upto(out, s.add ? load_upto(out, n) + sum : sum, n);
      });
}

// ---- weights ----

// The product of the forward pass with other operands: k runs over rows, and the panel is the gates' gradient.
template <class T>
void weight_gradient(const WeightGradient<T>& s) {
  constexpr size_t W = Vec<T>::kWidth;
  const Tiles tiles(s.n_k, kMaxRows);
  for (size_t block = s.block_begin; block < s.block_end; ++block)
    for (size_t t = s.tile_begin; t < s.tile_end; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            constexpr int MR = decltype(mr)::value;
            T* dw = s.dw + (block * s.n_k + tiles.begin(t)) * 4 * W;
            Vec<T> a[1][MR][4];
            const T* x[MR];
            for (int r = 0; r < MR; ++r) {
              for (int v = 0; v < 4; ++v) a[0][r][v] = load(dw + (r * 4 + v) * W);
              x[r] = s.xh + tiles.begin(t) + r;
            }
            const T* panel = s.dg_panels + block * s.panel_stride;
            const Ahead<T> ahead = {panel, block + 1 < s.block_end ? panel + s.panel_stride : nullptr,
                                    s.tile_end - s.tile_begin};
            multiply(a, x, 0, s.xh_stride, panel, 0, s.n_rows, ahead.slice(t - s.tile_begin, s.n_rows, 4));
            for (int r = 0; r < MR; ++r)
              for (int v = 0; v < 4; ++v) store(dw + (r * 4 + v) * W, a[0][r][v]);
          });
}

// ---- the activations by themselves ----

template <class T>
void sigmoid_all(const T* x, T* y, size_t n) {
  constexpr size_t W = Vec<T>::kWidth;
  for (size_t i = 0; i < n; i += W) {
    int lanes = lanes_of<T>(i / W, n);
    store_upto(y + i, sigmoid(load_upto(x + i, lanes)), lanes);
  }
}

template <class T>
void tanh_all(const T* x, T* y, size_t n) {
  constexpr size_t W = Vec<T>::kWidth;
  for (size_t i = 0; i < n; i += W) {
    int lanes = lanes_of<T>(i / W, n);
    store_upto(y + i, tanh(load_upto(x + i, lanes)), lanes);
  }
}

template <class T>
constexpr Kernels<T> functions() {
  return {size_t(Vec<T>::kWidth), size_t(kMaxRows),   forward<T>,     project<T>, backward<T>,
          back_product<T>,        weight_gradient<T>, sigmoid_all<T>, tanh_all<T>};
}

}  // namespace

extern const KernelTable table;
const KernelTable table = {FG_ISA_NAME, functions<float>(), functions<double>()};

}  // namespace FG_ISA
}  // namespace fourgate
