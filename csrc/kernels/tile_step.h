// A step of the plain LSTM cell with int8 weights in AMX's tiles.
//
// Tiles and cells alternate. Side by side they are slower: for some 200 cycles after an instruction for tiles the core
// has one unit for multiply-adds of 64 bytes instead of two.
#pragma once

#include "kernels/compact_cell.h"
#include "kernels/tile_product.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// Panels, or blocks of rows of a panel, whose sums are made before their cells. One is best while its sums and weights
// stay in L1 and its cells take few cycles; AMX's unit sleeps after some 700 without tiles, and takes hundreds to wake.
constexpr size_t kMostUnits = 4, kOneUnitRows = 8;
static_assert(2 * kMostUnits * kUnitRows <= kSumLines, "the memory of a call");

struct TileUnit {
  size_t panel, row, n_rows;
  int32_t* sums;  // (products, stored, V, W)
  size_t stored;  // rows
};

QG_INLINE void finish_unit(const CompactStep& n, const TileUnit& u) {
  constexpr size_t W = VF::kWidth, line = kTileVectors * W;
  const ForwardStep<float>& s = *n.step;
  const ForwardRow<float>* rows = s.rows + u.row;
  auto* lines = reinterpret_cast<float*>(u.sums);
  TileSums of = {};
  of.sums = u.sums;
  of.from = (s.use_pre ? rows[0].pre : s.bias) + u.panel * line;
  of.from_stride = s.use_pre ? n.pre_stride : 0;
  of.lines = lines;
  of.row_stride = kLineSums;
  for (size_t i = s.use_pre; i < 2; ++i, of.sums += u.stored * kLineSums) {
    of.scales = n.matrices[i].scales + u.panel * line;
    of.weight_sums = n.matrices[i].sums + u.panel * line;
    of.row_scales = n.rows[i].scales + u.row;
    of.row_zeros = n.rows[i].zeros + u.row;
    finish_sums(of, u.n_rows);
    of.from = lines;
    of.from_stride = kLineSums;
  }
#pragma GCC unroll 1
  for (size_t r = 0; r < u.n_rows; ++r) {
    float* kept = lines + r * kLineSums;
    store(kept, CompactCell::state(s, rows[r], kept, u.panel));
  }
#pragma GCC unroll 1
  for (size_t r = 0; r < u.n_rows; ++r) {
    const float* kept = lines + r * kLineSums;
    CompactCell::output(s, rows[r], load(kept + Lstm<float>::kOutputGate * W), load(kept), u.panel);
  }
}

[[maybe_unused]] void tile_step(const CompactStep& n) {
  const ForwardStep<float>& s = *n.step;
  const size_t n_blocks = s.block_end - s.block_begin, most = s.n_rows <= kOneUnitRows ? 1 : kMostUnits;
  TileUnit units[kMostUnits];
  for (size_t done = 0, row = 0; done < n_blocks;) {
    auto* sums = reinterpret_cast<int32_t*>(n.work);
    size_t n_units = 0;
    while (n_units < most && done < n_blocks) {
      TileUnit& u = units[n_units++];
      const size_t rest = s.n_rows - row;
      u.panel = n.descending ? s.block_end - 1 - done : s.block_begin + done;
      u.row = row;
      u.n_rows = rest < kUnitRows ? rest : kUnitRows;
      u.sums = sums;
      u.stored = s.n_rows <= kUnitRows ? u.n_rows : rest <= kTileSide ? kTileSide : kUnitRows;
      for (size_t i = s.use_pre; i < 2; ++i, sums += u.stored * kLineSums) {
        const CompactMatrix& m = n.matrices[i];
        sum_rows({n.rows[i].bytes, row, static_cast<const char*>(m.panels) + u.panel * m.panel_bytes, m.n_k}, u.n_rows,
                 sums);
      }
      row += kUnitRows;
      if (row >= s.n_rows) {
        row = 0;
        ++done;
      }
    }
    for (size_t i = 0; i < n_units; ++i) finish_unit(n, units[i]);
  }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
