// The forward pass; included by kernels.inl.

template <class Real>
QG_INLINE const Peephole<Real>* load_peephole(Peephole<Real>& to, const Real* from, size_t hidden, size_t u, int n) {
  if (!from) return nullptr;
  to = {load_upto(from + u, n), load_upto(from + hidden + u, n), load_upto(from + 2 * hidden + u, n)};
  return &to;
}

// c as it is carried on.
template <class Real>
QG_INLINE Vec<Real> kept_cell(Vec<Real> c_prev, Vec<Real> fresh, const CellKind<Real>* kind,
                              const OutputExtra<Real>* extra, size_t u, int n) {
  const unsigned char* keep = extra ? extra->keep_c : nullptr;
  return keep || kind->zoneout_c != 0 ? zoneout(c_prev, fresh, keep ? keep + u : nullptr, kind->zoneout_c, n) : fresh;
}

// h of one vector of units, to all who want it.
template <class Real>
QG_INLINE void finish_h(Real* y, Real* y2, Vec<Real> h, Real rate, const OutputExtra<Real>* extra, size_t u, int n) {
  if (extra && extra->h_prev)
    h = zoneout(load_upto(extra->h_prev + u, n), h, extra->keep_h ? extra->keep_h + u : nullptr, rate, n);
  store_upto(y + u, h, n);
  if (y2) store_upto(y2 + u, h, n);
  if (extra && extra->h_mask) store_upto(extra->h_masked + u, h * load_upto(extra->h_mask + u, n), n);
}

// To the tape, past the caches where it is large.
template <class Real>
QG_INLINE void tape_gate(const ForwardStep<Real>& step, const ForwardRow<Real>& row, size_t gate, Vec<Real> value,
                         size_t u, int n) {
  Real* to = row.gates + gate * step.hidden_size + u;
  if (step.large_tape)
    stream_upto(to, value, n);
  else
    store_upto(to, value, n);
}

// The cell in two halves. One after the other they are a chain of two activations, some 140 cycles, and the scheduler
// is too small to hold more than one and a half rows of it; a tile does the first half of all its rows, then the
// second. o belongs to the second, where it is worked out while tanh(n) is waited for.
// `kind` and `extra` are constants null for the plain cell.
//
// To n, from the sums of i, f and g.
template <class Real>
QG_INLINE Vec<Real> finish_cell(const ForwardStep<Real>& step, const ForwardRow<Real>& row, Vec<Real> (&a)[4],
                                size_t block, const CellKind<Real>* kind, const OutputExtra<Real>* extra) {
  const size_t hidden = step.hidden_size;
  size_t u = block * Vec<Real>::kWidth;
  int n = lanes_of<Real>(block, hidden);
  Vec<Real> c_prev = load_upto(row.c_prev + u, n);
  Cell<Real> s;
  Peephole<Real> loaded;
  cell_forward(s, a, c_prev, kind, kind ? load_peephole(loaded, step.peephole, hidden, u, n) : nullptr);
  store_upto(row.c + u, kind ? kept_cell(c_prev, s.n, kind, extra, u, n) : s.n, n);
  if (row.gates) {
    tape_gate(step, row, 0, kind ? a[0] : s.i, u, n);
    tape_gate(step, row, 1, kind ? a[1] : s.f, u, n);
    tape_gate(step, row, 2, kind ? a[2] : s.g, u, n);
  }
  return s.n;
}

// To h, from n and the sum of o.
template <class Real>
QG_INLINE void finish_output(const ForwardStep<Real>& step, const ForwardRow<Real>& row, Vec<Real> a, Vec<Real> v,
                             size_t block, const CellKind<Real>* kind, const OutputExtra<Real>* extra) {
  const size_t hidden = step.hidden_size;
  size_t u = block * Vec<Real>::kWidth;
  int n = lanes_of<Real>(block, hidden);
  Peephole<Real> loaded;
  Vec<Real> o = output_gate_forward(a, v, kind, kind ? load_peephole(loaded, step.peephole, hidden, u, n) : nullptr);
  if (row.gates) tape_gate(step, row, 3, kind ? a : o, u, n);
  finish_h(row.y, row.y2, o * squash(v, kind), kind ? kind->zoneout_h : Real(0), extra, u, n);
}

// The same for rows with a cell that is not plain or with something extra; their sums lie in memory.
template <class Real>
__attribute__((noinline)) void finish_rows(const ForwardStep<Real>& s, size_t first, Real (*sums)[4][Vec<Real>::kWidth],
                                           size_t n_rows, size_t block) {
  const ForwardRow<Real>* rows = s.rows + first;
  const OutputExtra<Real>* extra = s.extra ? s.extra + first : nullptr;
  const Real rate = s.kind ? s.kind->zoneout_h : Real(0);
  if (s.kind && s.kind->elman) {
    const size_t blocks = (s.hidden_size + Vec<Real>::kWidth - 1) / Vec<Real>::kWidth;
    for (size_t r = 0; r < n_rows; ++r)
      for (size_t v = 0; v < 4 && block * 4 + v < blocks; ++v)
        finish_h(rows[r].y, rows[r].y2, activate(s.kind->gate, load(sums[r][v])), rate, extra ? extra + r : nullptr,
                 (block * 4 + v) * Vec<Real>::kWidth, lanes_of<Real>(block * 4 + v, s.hidden_size));
    return;
  }
  for (size_t r = 0; r < n_rows; ++r) {
    Vec<Real> a[4] = {load(sums[r][0]), load(sums[r][1]), load(sums[r][2]), load(sums[r][3])};
    store(sums[r][0], finish_cell(s, rows[r], a, block, s.kind, extra ? extra + r : nullptr));
  }
  for (size_t r = 0; r < n_rows; ++r)
    finish_output(s, rows[r], load(sums[r][3]), load(sums[r][0]), block, s.kind, extra ? extra + r : nullptr);
}

// MR rows of NP neighbouring blocks: all of k, then the cell.
template <class Real, int NP, int MR>
QG_INLINE void forward_tile(const ForwardStep<Real>& s, size_t first, size_t block, size_t next, size_t tile,
                            size_t n_tiles) {
  constexpr size_t W = Vec<Real>::kWidth;
  const size_t I = s.input_size, R = s.recurrent_size;
  const ForwardRow<Real>* rows = s.rows + first;
  Vec<Real> a[NP][MR][4];
  const Real *x[MR], *h[MR];
  for (int r = 0; r < MR; ++r) {
    const Real* from = s.use_pre ? rows[r].pre : s.bias;
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < 4; ++v) a[p][r][v] = load(from + ((block + p) * 4 + v) * W);
    x[r] = rows[r].x;
    h[r] = rows[r].h;
  }
  const Ahead<Real> ih = {s.w_ih + block * I * 4 * W, s.w_ih + next * I * 4 * W, n_tiles};
  const Ahead<Real> hh = {s.w_hh + block * R * 4 * W, s.w_hh + next * R * 4 * W, n_tiles};
  if (!s.use_pre) multiply(a, x, 0, 1, ih.panel, I * 4 * W, I, ih.slice(tile, I, 4));
  multiply(a, h, 0, 1, hh.panel, R * 4 * W, R, hh.slice(tile, R, 4));
  const CellKind<Real>* const plain = nullptr;
  const OutputExtra<Real>* const none = nullptr;
  const bool is_plain = !s.kind && !s.extra;
  if (MR == 1 && is_plain) {
    Vec<Real> n[NP];
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p) n[p] = finish_cell(s, rows[0], a[p][0], block + p, plain, none);
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p) finish_output(s, rows[0], a[p][0][3], n[p], block + p, plain, none);
    return;
  }
  // Through the stack, so that the cell's code stands once and not MR times.
  alignas(64) Real sums[NP][MR][4][W];
  for (int p = 0; p < NP; ++p)
    for (int r = 0; r < MR; ++r)
      for (int v = 0; v < 4; ++v) store(sums[p][r][v], a[p][r][v]);
  if (!is_plain) {
    for (int p = 0; p < NP; ++p) finish_rows(s, first, sums[p], MR, block + p);
  } else if constexpr (MR > 1) {
#pragma GCC unroll 1
    for (int r = 0; r < MR; ++r) {
      Vec<Real> b[4] = {load(sums[0][r][0]), load(sums[0][r][1]), load(sums[0][r][2]), load(sums[0][r][3])};
      store(sums[0][r][0], finish_cell(s, rows[r], b, block, plain, none));
    }
#pragma GCC unroll 1
    for (int r = 0; r < MR; ++r)
      finish_output(s, rows[r], load(sums[0][r][3]), load(sums[0][r][0]), block, plain, none);
  }
}

template <class Real>
QG_INLINE void forward_blocks(const ForwardStep<Real>& s, bool descending) {
  const size_t n_blocks = s.block_end - s.block_begin;
  if (s.n_rows == 1) {  // two panels at a time: 8 chains
    const size_t pairs = n_blocks / 2;
    if (descending && n_blocks % 2) forward_tile<Real, 1, 1>(s, 0, s.block_end - 1, s.block_end - 1, 0, 1);
    for (size_t i = 0; i < pairs; ++i) {
      const size_t block = s.block_begin + 2 * (descending ? pairs - 1 - i : i);
      forward_tile<Real, 2, 1>(s, 0, block, block, 0, 1);
    }
    if (!descending && n_blocks % 2) forward_tile<Real, 1, 1>(s, 0, s.block_end - 1, s.block_end - 1, 0, 1);
    return;
  }
  const Tiles tiles(s.n_rows, kMaxRows);
  for (size_t i = 0; i < n_blocks; ++i) {
    const size_t block = descending ? s.block_end - 1 - i : s.block_begin + i;
    const size_t next = i + 1 == n_blocks ? block : descending ? block - 1 : block + 1;
    for (size_t t = 0; t < tiles.count; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            forward_tile<Real, 1, decltype(mr)::value>(s, tiles.begin(t), block, next, t, tiles.count);
          });
  }
}

template <class Real>
void advance(ForwardRow<Real>* rows, size_t n_rows, const RowStrides& next) {
  for (size_t r = 0; r < n_rows; ++r) {
    ForwardRow<Real>& row = rows[r];
    row.x += next.x;
    row.pre += next.pre;
    row.h = row.y;
    row.y += next.y;
    row.y2 += next.y2;
    row.c_prev = row.c;
    row.c += next.c;
    row.gates += next.gates;
  }
}

template <class Real>
void forward(const ForwardStep<Real>& s) {
  bool descending = s.descending;
  for (size_t left = s.n_more;; --left, descending = !descending) {
    forward_blocks(s, descending);
    if (left == 0) break;
    advance(s.rows, s.n_rows, s.next);
  }
  if (s.large_tape) stream_end();
}

template <class Real, int NP, int MR>
QG_INLINE void project_tile(const Project<Real>& s, size_t row, size_t block, size_t next, size_t tile,
                            size_t n_tiles) {
  constexpr size_t W = Vec<Real>::kWidth;
  const size_t I = s.input_size;
  Vec<Real> a[NP][MR][4];
  const Real* x[MR];
  for (int r = 0; r < MR; ++r) {
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < 4; ++v) a[p][r][v] = s.bias ? load(s.bias + ((block + p) * 4 + v) * W) : zero<Real>();
    x[r] = s.x[row + r];
  }
  const Ahead<Real> ahead = {s.w_ih + block * I * 4 * W, s.w_ih + next * I * 4 * W, n_tiles};
  multiply(a, x, 0, 1, ahead.panel, I * 4 * W, I, ahead.slice(tile, I, 4));
  for (int r = 0; r < MR; ++r)
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < 4; ++v) store(s.pre + (((row + r) * s.n_blocks + block + p) * 4 + v) * W, a[p][r][v]);
}

template <class Real>
void project(const Project<Real>& s) {
  if (s.n_rows == 1) {
    size_t block = s.block_begin;
    for (; block + 1 < s.block_end; block += 2) project_tile<Real, 2, 1>(s, 0, block, block, 0, 1);
    if (block < s.block_end) project_tile<Real, 1, 1>(s, 0, block, block, 0, 1);
    return;
  }
  const Tiles tiles(s.n_rows, kMaxRows);
  for (size_t block = s.block_begin; block < s.block_end; ++block) {
    const size_t next = block + 1 < s.block_end ? block + 1 : block;
    for (size_t t = 0; t < tiles.count; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            project_tile<Real, 1, decltype(mr)::value>(s, tiles.begin(t), block, next, t, tiles.count);
          });
  }
}

// h from the products of a projection.
template <class Real>
void projected(const ProjectedStep<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth;
  for (size_t r = 0; r < s.n_rows; ++r)
    for (size_t u = s.begin; u < s.end; u += W) {
      const int n = int(s.end - u < W ? s.end - u : W);
      Vec<Real> z = clip(load_upto(s.rows[r].z + u, n), s.clip);
      finish_h(s.rows[r].y, s.rows[r].y2, z, s.zoneout_h, s.extra ? s.extra + r : nullptr, u, n);
    }
}
