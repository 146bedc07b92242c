// The backward pass, the mirror of forward.inl; included by kernels.inl.

// Rows that a group's panel is used for while one gate's quarter of it is in L2.
constexpr size_t kChunkRows = 96;

// The sums of MR rows over the gates from `gate` on, NP of them side by side; those of later gates are added to what
// the earlier ones left, so that a row's sum is ((i + f) + g) + o whatever NP is.
template <class Real, int NP, int MR, int NV>
__attribute__((noinline)) void back_tile(Real (*sums)[NV][Vec<Real>::kWidth], const Real* const* dg, int gate,
                                         const Real* panel, Slice ahead, size_t hidden) {
  constexpr size_t W = Vec<Real>::kWidth;
  Vec<Real> a[NP][MR][NV];
  const Real* from[MR];
  for (int r = 0; r < MR; ++r) {
    from[r] = dg[r] + gate * hidden;
    for (int p = 0; p < NP; ++p)
      for (int v = 0; v < NV; ++v) a[p][r][v] = zero<Real>();
  }
  multiply(a, from, hidden, 1, panel + gate * hidden * NV * W, hidden * NV * W, hidden, ahead);
  for (int r = 0; r < MR; ++r)
    for (int v = 0; v < NV; ++v) {
      Vec<Real> sum = gate == 0 ? a[0][r][v] : load(sums[r][v]) + a[0][r][v];
      for (int p = 1; p < NP; ++p) sum = sum + a[p][r][v];
      store(sums[r][v], sum);
    }
}

// sums[r][v] = dg[r] @ a group's back panel, for at most kChunkRows rows. Gate by gate for all rows: a quarter of the
// panel stays in L2 while they pass by. `next` is the panel that follows this one, or null.
template <class Real, int NV>
QG_INLINE void back_sums(Real (*sums)[NV][Vec<Real>::kWidth], const Real* const* dg, size_t n_rows, const Real* panel,
                         const Real* next, int gates, size_t hidden) {
  constexpr size_t W = Vec<Real>::kWidth;
  if constexpr (NV <= kMaxRows)
    if (n_rows == 1 && gates == 4)
      return back_tile<Real, 4, 1, NV>(sums, dg, 0, panel, {}, hidden);  // a single row has too few chains
  if constexpr (2 * NV <= kMaxRows)
    if (n_rows == 2 && gates == 4) return back_tile<Real, 4, 2, NV>(sums, dg, 0, panel, {}, hidden);
  const Tiles tiles(n_rows, kMaxRows);
#pragma GCC unroll 1
  for (int gate = 0; gate < gates; ++gate) {
    const Real* quarter = panel + gate * hidden * NV * W;
    const Ahead<Real> ahead = {quarter, gate + 1 < gates ? quarter + hidden * NV * W : next, tiles.count};
    for (size_t t = 0; t < tiles.count; ++t)
      with_constant<kMaxRows>(
          tiles.size(t), [&](auto mr) __attribute__((always_inline)) {
            back_tile<Real, 1, decltype(mr)::value, NV>(sums + tiles.begin(t), dg + tiles.begin(t), gate, panel,
                                                        ahead.slice(t, hidden, NV), hidden);
          });
  }
}

// For groups [begin, end) of output columns and all rows: finish(row, block, sum) for every vector of dg @ weight.
// `hidden` rows for each gate; row(r) gives the (gates * hidden) operand; if `absent`, there is none and the sums are
// zero. touch(row, block, n) is called for every row and its n blocks before the product that they are finished with.
template <class Real, class Row, class Touch, class Finish>
QG_INLINE void back_products(const Real* w_back, size_t gates, size_t hidden, size_t n_cols, size_t n_rows,
                             size_t begin, size_t end, bool descending, bool absent, Row&& row, Touch&& touch,
                             Finish&& finish) {
  constexpr size_t W = Vec<Real>::kWidth;
  const Tiles groups((n_cols + W - 1) / W, 4), chunks(n_rows, kChunkRows);
  for (size_t i = 0; i < end - begin; ++i) {
    const size_t group = descending ? end - 1 - i : begin + i, block = groups.begin(group);
    const Real* panel = w_back + block * gates * hidden * W;
    const Real* next =
        i + 1 == end - begin ? nullptr : w_back + groups.begin(descending ? group - 1 : group + 1) * gates * hidden * W;
    with_constant<4>(
        groups.size(group), [&](auto nv) __attribute__((always_inline)) {
          constexpr int NV = decltype(nv)::value;
          alignas(64) Real sums[kChunkRows][NV][W];
          const Real* dg[kChunkRows];
          for (size_t c = 0; c < chunks.count; ++c) {
            const size_t first = chunks.begin(c), n = size_t(chunks.size(c));
            for (size_t r = 0; r < n; ++r) dg[r] = row(first + r);
            for (size_t r = 0; r < n; ++r) touch(first + r, block, NV);
            if (!absent)
              back_sums<Real, NV>(sums, dg, n, panel, c + 1 == chunks.count ? next : panel, int(gates), hidden);
#pragma GCC unroll 1
            for (size_t r = 0; r < n; ++r)
#pragma GCC unroll 1
              for (int v = 0; v < NV; ++v) finish(first + r, block + v, absent ? zero<Real>() : load(sums[r][v]));
          }
        });
  }
}

// dh complete: with dy, what zoneout passed on, and so on. What is left for the fresh h, the rest in `carry`.
template <class Real>
QG_INLINE Vec<Real> finish_dh(Vec<Real> dh, const Real* more, const Real* dy, const BackwardExtra<Real>* extra,
                              size_t u, int n) {
  if (extra && extra->h_mask) dh = dh * load_upto(extra->h_mask + u, n);
  if (more) dh = dh + load_upto(more + u, n);
  if (dy) dh = dh + load_upto(dy + u, n);
  if (!extra) return dh;
  if (extra->carry) dh = dh + load_upto(extra->carry + u, n);
  if (extra->dh_total) store_upto(extra->dh_total + u, dh, n);
  if (!extra->keep_h) return dh;
  const Vec<Real> keep = load_flags<Real>(extra->keep_h + u, n), none = zero<Real>();
  store_upto(extra->carry + u, where_less(none, keep, dh, none), n);
  return where_less(none, keep, none, dh);
}

// What reaches the fresh c from the next step and from outside; what zoneout passes on is left in `direct`.
template <class Real>
QG_INLINE Vec<Real> fresh_dc(Vec<Real> dc, const BackwardExtra<Real>* extra, size_t u, int n, Vec<Real>& direct) {
  direct = zero<Real>();
  if (!extra) return dc;
  if (extra->dcell) dc = dc + load_upto(extra->dcell + u, n);
  if (!extra->keep_c) return dc;
  const Vec<Real> keep = load_flags<Real>(extra->keep_c + u, n), none = zero<Real>();
  direct = where_less(none, keep, dc, none);
  return where_less(none, keep, none, dc);
}

template <class Real>
QG_INLINE void store_gates(Real* dg, Real* dg_panel, const Vec<Real> (&da)[4], size_t block, size_t hidden,
                           size_t panel_stride) {
  constexpr size_t W = Vec<Real>::kWidth;
  for (int v = 0; v < 4; ++v) {
    store_upto(dg + v * hidden + block * W, da[v], lanes_of<Real>(block, hidden));
    store(dg_panel + block * panel_stride + v * W, da[v]);
  }
}

// `kind` and `extra` are constants null for the plain cell.
template <class Real>
QG_INLINE void finish_backward(const BackwardStep<Real>& s, const BackwardRow<Real>& row, Vec<Real> dh, size_t block,
                               const CellKind<Real>* kind, const BackwardExtra<Real>* extra) {
  constexpr size_t W = Vec<Real>::kWidth;
  const size_t hidden = s.hidden_size, u = block * W;
  int n = lanes_of<Real>(block, hidden);
  dh = finish_dh(dh, row.dh, row.dy, extra, u, n);
  if (kind && kind->elman) {
    Vec<Real> h = load_upto(row.gates + u, n), da = dh * slope(kind->gate, h, h);
    store_upto(row.dg + u, da, n);
    store(row.dg_panel + block / 4 * s.panel_stride + block % 4 * W, da);
    return;
  }
  Vec<Real> a[4], da[4];
  for (int v = 0; v < 4; ++v) a[v] = load_upto(row.gates + v * hidden + u, n);
  Vec<Real> c_prev = load_upto(row.c_prev + u, n), d = load_upto(row.dc + u, n), direct = zero<Real>();
  Cell<Real> cell;
  Peephole<Real> loaded;
  const Peephole<Real>* p = nullptr;
  if (kind) {
    p = load_peephole(loaded, s.peephole, hidden, u, n);
    cell_forward(cell, a, c_prev, kind, static_cast<const Peephole<Real>*>(nullptr));  // `a` has the peepholes already
    cell.o = gate_forward(kind, a[3]);
  } else {
    cell = {a[0], a[1], a[2], a[3], load_upto(row.c + u, n)};
  }
  d = fresh_dc(d, extra, u, n, direct);
  output_gate_backward(cell, cell.n, dh, d, d, da, a, kind, p);
  if (extra && extra->fresh) store_upto(extra->fresh + u, cell.n, n);
  if (extra && extra->dc_total) store_upto(extra->dc_total + u, d + direct, n);
  Vec<Real> dc = cell_backward(cell, c_prev, d, da, a, kind, p);
  store_upto(row.dc + u, extra ? dc + direct : dc, n);
  store_gates(row.dg, row.dg_panel, da, block, hidden, s.panel_stride);
}

template <class Real>
__attribute__((noinline)) void finish_other_backward(const BackwardStep<Real>& s, size_t r, Vec<Real> dh,
                                                     size_t block) {
  finish_backward(s, s.rows[r], dh, block, s.kind, s.extra ? s.extra + r : nullptr);
}

// Asks for what a row's n blocks will read from the tape, which has left the caches since the forward pass.
template <class Real>
QG_INLINE void touch_tape(const BackwardStep<Real>& s, const BackwardRow<Real>& row, size_t block, int n) {
  const Real* const dy = row.dy ? row.dy : row.c;
  for (size_t u = block * Vec<Real>::kWidth; n > 0; --n, u += Vec<Real>::kWidth) {
    for (size_t gate = 0; gate < 4; ++gate) __builtin_prefetch(row.gates + gate * s.hidden_size + u, 0, 2);
    __builtin_prefetch(row.c + u, 0, 2);
    __builtin_prefetch(row.c_prev + u, 0, 2);
    __builtin_prefetch(dy + u, 0, 2);
  }
}

template <class Real>
void backward(const BackwardStep<Real>& s) {
  const CellKind<Real>* const plain = nullptr;
  const BackwardExtra<Real>* const none = nullptr;
  // A shorter product has no time to spare, and the tape of a smaller network is often still near.
  const bool tape_is_far = s.n_gates == 4 && s.hidden_size >= 64;
  back_products<Real>(
      s.w_back, s.n_gates, s.n_rows_of_gate, s.hidden_size, s.n_rows, s.group_begin, s.group_end, s.descending,
      !s.rows[0].dg_next, [&](size_t r) __attribute__((always_inline)) { return s.rows[r].dg_next; },
      [&](size_t r, size_t block, int n) __attribute__((always_inline)) {
        if (tape_is_far) touch_tape(s, s.rows[r], block, n);
      },
      [&](size_t r, size_t block, Vec<Real> sum) __attribute__((always_inline)) {
        if (s.kind || s.extra)
          finish_other_backward(s, r, sum, block);
        else
          finish_backward(s, s.rows[r], sum, block, plain, none);
      });
}

template <class Real>
void back_product(const BackProduct<Real>& s) {
  back_products<Real>(
      s.w_back, s.n_gates, s.n_rows_of_gate, s.n_cols, s.n_rows, s.group_begin, s.group_end, false,
      false, [&](size_t r) __attribute__((always_inline)) { return s.dg[r]; }, [](size_t, size_t, int) {},
      [&](size_t r, size_t block, Vec<Real> sum) __attribute__((always_inline)) {
        Real* out = s.out[r] + block * Vec<Real>::kWidth;
        int n = lanes_of<Real>(block, s.n_cols);
        store_upto(out, s.add ? load_upto(out, n) + sum : sum, n);
      });
}

template <class Real>
void projected_backward(const ProjectedBackwardStep<Real>& s) {
  constexpr size_t W = Vec<Real>::kWidth;
  for (size_t r = 0; r < s.n_rows; ++r)
    for (size_t u = s.begin; u < s.end; u += W) {
      const ProjectedBackwardRow<Real>& row = s.rows[r];
      const size_t block = u / W;
      const int n = lanes_of<Real>(block, s.size);
      Vec<Real> dh = row.through ? load_upto(row.through + u, n) : zero<Real>();
      Vec<Real> dz = finish_dh(dh, row.dh, row.dy, s.extra ? s.extra + r : nullptr, u, n);
      if (s.clip < Real(__builtin_inf())) {  // what was clipped lies at the clip
        Vec<Real> size = zero<Real>() - negative_abs(load_upto(row.h + u, n));
        dz = where_less(size, set1(s.clip), dz, zero<Real>());
      }
      store_upto(row.dz + u, dz, n);
      if (row.dz_panel) store(row.dz_panel + block / 4 * s.panel_stride + block % 4 * W, dz);
    }
}
