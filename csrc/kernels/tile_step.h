// A step of the plain LSTM cell with int8 weights in AMX's tiles: a unit, a panel and up to two blocks of rows, after
// the other.
//
// For some 200 cycles after an instruction for tiles the core has one unit for multiply-adds of 64 bytes instead of
// two. So tiles and cells of one block of rows alternate, while cells of two blocks, which take longer than their
// tiles, have these in between.
#pragma once

#include "kernels/compact_cell.h"
#include "kernels/tile_product.h"

namespace quadgate {
namespace QG_ISA {
namespace {

struct TileUnit {
  size_t done, row, n_rows;  // panels before it, its rows
  int32_t* sums;             // (products, stored, V, W)
  size_t stored;             // rows of a product that `sums` has room for
};

// Gives the tiles `parts` parts of their work, spread over `slots` pauses of other work.
struct TilePace {
  TileWork* work;
  size_t parts, slots, owed;
  QG_INLINE void slot() {
    for (owed += parts; owed >= slots; owed -= slots) next_tile(*work);
  }
};

// Rows whose cells are computed together; columns from which on the tiles' work is cut into parts however many rows.
constexpr size_t kRowsAtOnce = 8, kManyK = 200;
// Units of up to a block of rows whose sums are made before their cells: one at a time where its cells are few, since
// AMX's unit sleeps after some 700 cycles without tiles, and takes hundreds to wake.
constexpr size_t kUnitsAtOnce = 4, kOneUnitRows = 8;
static_assert(2 * kUnitsAtOnce * kTileSide <= kSumLines && 2 * 2 * kUnitRows <= kSumLines, "the memory of a call");

// The first panels are those behind the last ones where it iterates in reverse.
QG_INLINE size_t panel_of(const CompactStep& n, const TileUnit& u) {
  return n.descending ? n.step->block_end - 1 - u.done : n.step->block_begin + u.done;
}

QG_INLINE TileFactors factors_of(const CompactStep& n, const TileUnit& u, size_t i) {
  const CompactMatrix& m = n.matrices[i];
  return {n.rows[i].bytes, u.row, static_cast<const char*>(m.panels) + panel_of(n, u) * m.panel_bytes, m.n_k};
}

QG_INLINE void sum_unit(const CompactStep& n, const TileUnit& u) {
  int32_t* sums = u.sums;
  for (size_t i = n.step->use_pre; i < 2; ++i, sums += u.stored * kLineSums)
    sum_rows(factors_of(n, u, i), u.n_rows, sums);
}

// From sums to h.
[[maybe_unused]] QG_OUTLINE void finish_unit(const CompactStep& n, const TileUnit& u, TilePace& pace) {
  constexpr size_t W = VF::kWidth, line = kTileVectors * W;
  const ForwardStep<float>& s = *n.step;
  const size_t panel = panel_of(n, u);
  const ForwardRow<float>* rows = s.rows + u.row;
  auto* lines = reinterpret_cast<float*>(u.sums);
  Int8Sums of = {};
  of.sums = u.sums;
  of.from = (s.use_pre ? rows[0].pre : s.bias) + panel * line;
  of.from_stride = s.use_pre ? n.pre_stride : 0;
  of.lines = lines;
  of.row_stride = kLineSums;
  for (size_t i = s.use_pre; i < 2; ++i, of.sums += u.stored * kLineSums) {
    of.scales = n.matrices[i].scales + panel * line;
    of.weight_sums = n.matrices[i].sums + panel * line;
    of.row_scales = n.rows[i].scales + u.row;
    of.row_zeros = n.rows[i].zeros + u.row;
    finish_sums_with<int(kTileVectors)>(of, u.n_rows, ZeroInHalves{});
    of.from = lines;
    of.from_stride = kLineSums;
    pace.slot();
  }
  for (size_t first = 0; first < u.n_rows; first += kRowsAtOnce, pace.slot()) {
    const size_t end = u.n_rows - first < kRowsAtOnce ? u.n_rows : first + kRowsAtOnce;
#pragma GCC unroll 1
    for (size_t r = first; r < end; ++r) {
      float* kept = lines + r * kLineSums;
      __builtin_prefetch(rows[r].y + panel * W, 1, 3);  // new memory at each step
      store(kept, CompactCell::state(s, rows[r], kept, panel));
    }
  }
  for (size_t first = 0; first < u.n_rows; first += kRowsAtOnce, pace.slot()) {
    const size_t end = u.n_rows - first < kRowsAtOnce ? u.n_rows : first + kRowsAtOnce;
#pragma GCC unroll 1
    for (size_t r = first; r < end; ++r) {
      const float* kept = lines + r * kLineSums;
      CompactCell::output(s, rows[r], load(kept + Lstm<float>::kOutputGate * W), load(kept), panel);
    }
  }
}

QG_INLINE void step_of_block(const CompactStep& n, size_t n_blocks) {
  const size_t n_rows = n.step->n_rows, most = n_rows <= kOneUnitRows ? 1 : kUnitsAtOnce;
  for (size_t done = 0; done < n_blocks;) {
    TileUnit units[kUnitsAtOnce];
    auto* sums = reinterpret_cast<int32_t*>(n.work);
    size_t n_units = 0;
    for (; n_units < most && done < n_blocks; ++n_units, ++done, sums += 2 * n_rows * kLineSums) {
      units[n_units] = {done, 0, n_rows, sums, n_rows};
      sum_unit(n, units[n_units]);
    }
    for (size_t i = 0; i < n_units; ++i) {
      TilePace none = {nullptr, 0, 1, 0};
      finish_unit(n, units[i], none);
    }
  }
}

[[maybe_unused]] void tile_step(const CompactStep& n) {
  const ForwardStep<float>& s = *n.step;
  const size_t n_blocks = s.block_end - s.block_begin, skipped = s.use_pre ? 1 : 0, n_products = 2 - skipped;
  if (s.n_rows <= kTileSide) return step_of_block(n, n_blocks);
  // With many rows and few k parts of the tiles' work take longer among the cells than all of it before them.
  const bool in_turn = s.n_rows <= kUnitRows || n.matrices[1].n_k + (s.use_pre ? 0 : n.matrices[0].n_k) >= kManyK;
  constexpr size_t buffer = 2 * kUnitRows * kLineSums;
  TileFactors factors[2];
  TileWork work;
  auto unit_of = [&](size_t done, size_t row, size_t parity) __attribute__((always_inline)) {
    const size_t rest = s.n_rows - row;
    return TileUnit{done, row, rest < kUnitRows ? rest : kUnitRows,
                    reinterpret_cast<int32_t*>(n.work) + parity * buffer, kUnitRows};
  };
  auto begin = [&](const TileUnit& u) __attribute__((always_inline)) {
    work.parts = 0;
    if (!in_turn || u.n_rows <= kTileSide) return sum_unit(n, u);
    for (size_t i = skipped; i < 2; ++i) factors[i] = factors_of(n, u, i);
    begin_blocks(work, factors + skipped, n_products, u.sums);
  };
  TileUnit unit = unit_of(0, 0, 0), next = unit;
  begin(unit);
  for (size_t i = 0; i < work.parts; ++i) next_tile(work);
  for (size_t parity = 1;; unit = next, parity ^= 1) {
    const bool same = unit.row + kUnitRows < s.n_rows, more = same || unit.done + 1 < n_blocks;
    if (more) {
      next = unit_of(unit.done + !same, same ? unit.row + kUnitRows : 0, parity);
      begin(next);
    }
    TilePace pace = {&work, more ? work.parts : 0, n_products + 2 * ((unit.n_rows + kRowsAtOnce - 1) / kRowsAtOnce), 0};
    finish_unit(n, unit, pace);
    if (!more) return;
  }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
