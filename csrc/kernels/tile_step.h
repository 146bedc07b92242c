// A step of the plain LSTM cell with int8 weights in AMX's tiles: while the cells of one unit, a panel and up to two
// blocks of rows, are computed in vectors, the tiles sum the products of the next.
#pragma once

#include "kernels/compact_cell.h"
#include "kernels/tile_product.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// The place of a unit.
struct TileUnit {
  size_t done, row;  // panels before it, its first row
};

// Gives the tiles their part of the work after each of `slots` parts of the other.
struct TilePace {
  TileWork& work;
  size_t parts, slots, owed = 0;
  QG_INLINE void slot() {
    for (owed += parts; owed >= slots; owed -= slots) next_tile(work);
  }
};

// Rows whose cells are computed together; columns from which on the tiles' work is cut into parts however many rows.
constexpr size_t kRowsAtOnce = 8, kManyK = 400;

[[maybe_unused]] void tile_step(const CompactStep& n) {
  constexpr size_t W = VF::kWidth, line = kTileVectors * W;
  const ForwardStep<float>& s = *n.step;
  const size_t n_blocks = s.block_end - s.block_begin, skipped = s.use_pre ? 1 : 0, n_products = 2 - skipped;
  auto* sums = reinterpret_cast<int32_t*>(n.work);
  TileFactors factors[2];
  TileWork work;
  auto panel_of = [&](const TileUnit& u) __attribute__((always_inline)) {
    return n.descending ? s.block_end - 1 - u.done : s.block_begin + u.done;
  };
  auto rows_of = [&](const TileUnit& u) __attribute__((always_inline)) {
    return s.n_rows - u.row < kUnitRows ? s.n_rows - u.row : kUnitRows;
  };
  auto begin = [&](const TileUnit& u, int32_t* to) __attribute__((always_inline)) {
    for (size_t i = skipped; i < 2; ++i) {
      const CompactMatrix& m = n.matrices[i];
      factors[i] = {n.rows[i].bytes, static_cast<const char*>(m.panels) + panel_of(u) * m.panel_bytes, m.n_k};
    }
    begin_unit(work, factors + skipped, n_products, u.row, rows_of(u), to);
  };
  // With many rows and few k parts of the tiles' work take longer among the cells than all of it before them.
  const bool in_turn = s.n_rows <= kUnitRows || n.matrices[1].n_k + (s.use_pre ? 0 : n.matrices[0].n_k) >= kManyK;
  constexpr size_t buffer = 2 * kUnitRows * kLineSums;
  bool any = false;  // unit is one; otherwise its first is the next
  size_t parity = 0;
  for (TileUnit unit = {0, 0}, next = {0, 0};; unit = next, parity ^= 1, any = true) {
    if (any) next.row += kUnitRows;
    if (next.row >= s.n_rows) next = {unit.done + 1, 0};
    const bool more = next.done < n_blocks;
    if (more) begin(next, sums + parity * buffer);
    if (!any) {
      for (size_t i = 0; i < work.parts; ++i) next_tile(work);
      continue;
    }
    const size_t panel = panel_of(unit), n_rows = rows_of(unit), slots = (n_rows + kRowsAtOnce - 1) / kRowsAtOnce;
    TilePace pace = {work, more && in_turn ? work.parts : 0, n_products + 2 * slots};
    const ForwardRow<float>* rows = s.rows + unit.row;
    int32_t* at = sums + (parity ^ 1) * buffer;
    auto* lines = reinterpret_cast<float*>(at);
    TileSums of = {};
    of.from = (s.use_pre ? rows[0].pre : s.bias) + panel * line;
    of.from_stride = s.use_pre ? n.pre_stride : 0;
    of.lines = lines;
    of.row_stride = kLineSums;
    for (size_t i = skipped; i < 2; ++i) {
      of.sums = at + (i - skipped) * kUnitRows * kLineSums;
      of.scales = n.matrices[i].scales + panel * line;
      of.weight_sums = n.matrices[i].sums + panel * line;
      of.row_scales = n.rows[i].scales + unit.row;
      of.row_zeros = n.rows[i].zeros + unit.row;
      finish_sums(of, n_rows);
      of.from = lines;
      of.from_stride = kLineSums;
      pace.slot();
    }
    for (size_t i = 0; more && !in_turn && i < work.parts; ++i) next_tile(work);
    for (size_t first = 0; first < n_rows; first += kRowsAtOnce, pace.slot()) {
      const size_t end = n_rows - first < kRowsAtOnce ? n_rows : first + kRowsAtOnce;
#pragma GCC unroll 1
      for (size_t r = first; r < end; ++r) {
        float* kept = lines + r * kLineSums;
        store(kept, CompactCell::state(s, rows[r], kept, panel));
      }
    }
    for (size_t first = 0; first < n_rows; first += kRowsAtOnce, pace.slot()) {
      const size_t end = n_rows - first < kRowsAtOnce ? n_rows : first + kRowsAtOnce;
#pragma GCC unroll 1
      for (size_t r = first; r < end; ++r) {
        const float* kept = lines + r * kLineSums;
        CompactCell::output(s, rows[r], load(kept + Lstm<float>::kOutputGate * W), load(kept), panel);
      }
    }
    if (!more) return;
  }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
