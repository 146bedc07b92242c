// A step of the plain LSTM cell with int8 weights in AMX's tiles: the sums of some units, each a panel and up to two
// blocks of rows, and then their cells.
//
// For some 200 cycles after an instruction for tiles the core has one unit for multiply-adds of 64 bytes instead of
// two. So tiles do not run among cells. AMX's unit sleeps after some 700 cycles without tiles, and takes hundreds to
// wake, so several units have theirs one after the other; but not of few rows, whose cells of a panel take less than
// 700.
#pragma once

#include "kernels/compact_cell.h"
#include "kernels/tile_product.h"

namespace quadgate {
namespace QG_ISA {
namespace {

struct TileUnit {
  size_t panel, row, n_rows;
  int32_t* sums;  // (products, n_rows, V, W)
};

// Units whose sums are made before their cells, by measurement (bench/notes/quantized.md): one of few rows; of up to a
// block of rows fewer where many columns make tiles take long; else as many as there is memory for.
QG_INLINE size_t units_at_once(size_t n_rows, size_t n_columns) {
  constexpr size_t kFewRows = 8, kManyColumns = 400;
  return n_rows <= kFewRows ? 1 : n_rows <= kTileSide && n_columns >= kManyColumns ? kMostUnits / 2 : kMostUnits;
}

QG_INLINE void sum_unit(const CompactStep& n, const TileUnit& u) {
  int32_t* sums = u.sums;
  for (size_t i = n.step->use_pre; i < 2; ++i, sums += u.n_rows * kLineSums) {
    const CompactMatrix& m = n.matrices[i];
    sum_rows({n.rows[i].bytes, u.row, static_cast<const char*>(m.panels) + u.panel * m.panel_bytes, m.n_k}, u.n_rows,
             sums);
  }
}

// From sums to h.
[[maybe_unused]] QG_OUTLINE void finish_unit(const CompactStep& n, const TileUnit& u) {
  constexpr size_t W = VF::kWidth, line = kTileVectors * W;
  const ForwardStep<float>& s = *n.step;
  const ForwardRow<float>* rows = s.rows + u.row;
  auto* lines = reinterpret_cast<float*>(u.sums);
  Int8Sums of = {};
  of.sums = u.sums;
  of.from = (s.use_pre ? rows[0].pre : s.bias) + u.panel * line;
  of.from_stride = s.use_pre ? n.pre_stride : 0;
  of.lines = lines;
  of.row_stride = kLineSums;
  for (size_t i = s.use_pre; i < 2; ++i, of.sums += u.n_rows * kLineSums) {
    of.scales = n.matrices[i].scales + u.panel * line;
    of.weight_sums = n.matrices[i].sums + u.panel * line;
    of.row_scales = n.rows[i].scales + u.row;
    of.row_zeros = n.rows[i].zeros + u.row;
    to_numbers_with<int(kTileVectors)>(of, u.n_rows, ZeroInHalves{});
    of.from = lines;
    of.from_stride = kLineSums;
  }
#pragma GCC unroll 1
  for (size_t r = 0; r < u.n_rows; ++r) {
    float* kept = lines + r * kLineSums;
    __builtin_prefetch(rows[r].y + u.panel * W, 1, 3);  // new memory at each step
    store(kept, Int8Cell::state(s, rows[r], kept, u.panel));
  }
#pragma GCC unroll 1
  for (size_t r = 0; r < u.n_rows; ++r) {
    const float* kept = lines + r * kLineSums;
    Int8Cell::output(s, rows[r], load(kept + Lstm<float>::kOutputGate * W), load(kept), u.panel);
  }
}

[[maybe_unused]] void tile_step(const CompactStep& n) {
  const ForwardStep<float>& s = *n.step;
  const size_t n_columns = n.matrices[1].n_k + (s.use_pre ? 0 : n.matrices[0].n_k);
  const size_t n_blocks = s.block_end - s.block_begin, most = units_at_once(s.n_rows, n_columns);
  TileUnit units[kMostUnits];
  size_t n_units = 0;
  auto* const memory = reinterpret_cast<int32_t*>(n.work);
  auto* sums = memory;
  for (size_t done = 0; done < n_blocks; ++done)
    for (size_t row = 0; row < s.n_rows; row += kUnitRows) {
      const size_t rest = s.n_rows - row, n_rows = rest < kUnitRows ? rest : kUnitRows;
      units[n_units] = {n.descending ? s.block_end - 1 - done : s.block_begin + done, row, n_rows, sums};
      sum_unit(n, units[n_units++]);
      sums += 2 * n_rows * kLineSums;
      const bool last = done + 1 == n_blocks && row + n_rows == s.n_rows;
      if (n_units < most && !last) continue;
#pragma GCC unroll 1
      for (size_t i = 0; i < n_units; ++i) finish_unit(n, units[i]);
      n_units = 0;
      sums = memory;
    }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
