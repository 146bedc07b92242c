// The product with int8 weights in the tile registers of AMX: 16 rows of 64 bytes each, of which one instruction
// multiplies two into a third.
//
// The panels are those of the other int8 products: 16 groups of four k of one vector are a tile as they lie. Sums are
// exact, so bits are the same, too.
#pragma once

#include "kernels/int8_sums.h"

namespace quadgate {

namespace avx512_vnni {
extern const CompactFunctions int8;  // for products that are too small for tiles
}

namespace QG_ISA {
namespace {

constexpr size_t kTileSide = 16, kTileK = 64, kTileBytes = kTileSide * kTileK, kTileVectors = 4;
static_assert(kTileSide == size_t(kInt8Tile), "tiles of weights lie in one piece");
static_assert(kMostTileK <= ZeroInHalves::kMostK, "zero points of tiles are taken in halves");

struct TileConfig {
  unsigned char palette, start_row, zeros[14];
  uint16_t bytes_per_row[16];
  unsigned char rows[16];
};

// Tiles 0 to 2 hold sums, 4 and 5 rows of bytes, 6 weights. Tiles of fewer rows take less time, and read no
// others: up to a block of rows its tiles have as many as there are, up to two blocks those of the second one.
//
// A register is zeroed as soon as it has been read for the last time. While another thread runs on the same core, both
// share the few registers that stand behind the names of eight, and zeroing frees one: with all eight in use a load and
// a product took 70 cycles instead of 16, one after the other.
[[maybe_unused]] void begin_tiles(size_t n_rows) {
  alignas(64) TileConfig config = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
  if (n_rows <= kTileSide) {
    for (int tile = 0; tile < 5; ++tile) config.rows[tile] = static_cast<unsigned char>(n_rows);
  } else if (n_rows < 2 * kTileSide) {
    config.rows[2] = config.rows[5] = static_cast<unsigned char>(n_rows - kTileSide);
  }
  __asm__ volatile("" : : "r"(&config) : "memory");  // GCC 12 takes the instruction to read 8 bytes of it
  _tile_loadconfig(&config);
}
[[maybe_unused]] void end_tiles() { _tile_release(); }

// The k's behind the last whole tile, and zeros before them: this block stands behind the row, and is multiplied with
// the last tile's worth of weights. In a row of less than a tile zeros come behind them, since weights begin there.
[[maybe_unused]] void quantize_rows_for_tiles(const void** rows, size_t n_rows, size_t n, unsigned char* bytes,
                                              float* scales, int32_t* zeros) {
  avx512_vnni::int8.quantize_rows(rows, n_rows, n, bytes, scales, zeros);
  const size_t whole = (n + kInt8Group - 1) / kInt8Group * kInt8Group, rest = whole % kTileK;
  if (rest == 0) return;
  const bool less = whole < kTileK;
  const __mmask64 used = less ? ~(~uint64_t(0) << rest) : ~uint64_t(0) << (kTileK - rest);
  for (size_t r = 0; r < n_rows; ++r, bytes += compact_row_bytes(n))
    _mm512_storeu_si512(bytes + compact_row_bytes(n) - kTileK,
                        _mm512_maskz_loadu_epi8(used, less ? bytes : bytes + whole - kTileK));
}

// The operands of tile products: rows from `first` on, and a panel.
struct TileFactors {
  const char* rows;  // those of quantize_rows_for_tiles
  size_t row_bytes;
  const char* panel;
  size_t groups;  // of four k
  QG_INLINE TileFactors(const void* all_rows, size_t first, const void* of_panel, size_t n_k)
      : rows(static_cast<const char*>(all_rows) + first * compact_row_bytes(n_k)),
        row_bytes(compact_row_bytes(n_k)),
        panel(static_cast<const char*>(of_panel)),
        groups((n_k + kInt8Group - 1) / kInt8Group) {}
};

// Rows whose sums are made together; numbers and bytes of a row's sums with one panel.
constexpr size_t kUnitRows = 2 * kTileSide, kLineSums = kTileVectors * kTileSide, kLineBytes = 4 * kLineSums;

// The operands of one tile of k, for vector v and those behind it.
struct TilePlace {
  const char *rows, *weights;
  size_t group, vector;  // bytes from a group's weights to the next, and from a vector's
};

// Those of the groups behind `whole` tiles. They are read with weights before them, by which the row has zeros. A panel
// of less than a tile is read past, where the row has zeros, too.
QG_INLINE TilePlace rest_place(const TileFactors& f, size_t whole, size_t v) {
  const size_t before = whole ? kTileSide - f.groups % kTileSide : 0;
  return {f.rows + f.row_bytes - kTileK,
          f.panel + whole * kTileVectors * kTileBytes + v * kTileK - before * kTileVectors * kTileK,
          kTileVectors * kTileK, kTileK};
}

// Adds the products of one tile of k: of two vectors with one block of rows, to tiles 0 and 1; with kPair of one vector
// with two blocks of rows, to tiles 0 and 2.
template <bool kPair>
QG_INLINE void add_two_products(const TilePlace& p, size_t row_bytes) {
  _tile_loadd(6, p.weights, p.group);
  _tile_loadd(4, p.rows, row_bytes);
  _tile_dpbusd(0, 4, 6);
  if (kPair) {
    _tile_zero(4);
    _tile_loadd(5, p.rows + kTileSide * row_bytes, row_bytes);
    _tile_dpbusd(2, 5, 6);
    _tile_zero(5);
  } else {
    _tile_zero(6);
    _tile_loadd(6, p.weights + p.vector, p.group);
    _tile_dpbusd(1, 4, 6);
    _tile_zero(4);
  }
  _tile_zero(6);
}

template <bool kPair>
QG_INLINE void sum_of_unit(const TileFactors& f, int32_t* sums) {
  constexpr size_t step = kPair ? 1 : 2;
  const size_t whole = f.groups / kTileSide;
#pragma GCC unroll 1
  for (size_t v = 0; v < kTileVectors; v += step, sums += step * kTileSide) {
    TilePlace p = {f.rows, f.panel + v * kTileBytes, kTileK, kTileBytes};
#pragma GCC unroll 1
    for (size_t tile = 0; tile < whole; ++tile, p.rows += kTileK, p.weights += kTileVectors * kTileBytes)
      add_two_products<kPair>(p, f.row_bytes);
    if (f.groups % kTileSide) add_two_products<kPair>(rest_place(f, whole, v), f.row_bytes);
    _tile_stored(0, sums, kLineBytes);
    _tile_zero(0);
    if (kPair) {
      _tile_stored(2, sums + kTileSide * kLineSums, kLineBytes);
      _tile_zero(2);
    } else {
      _tile_stored(1, sums + kTileSide, kLineBytes);
      _tile_zero(1);
    }
  }
}

// sums (n, V, W) of up to two blocks of rows with a panel.
[[maybe_unused]] QG_OUTLINE void sum_rows(const TileFactors& f, size_t n, int32_t* sums) {
  if (n > kTileSide)
    sum_of_unit<true>(f, sums);
  else
    sum_of_unit<false>(f, sums);
}

[[maybe_unused]] void tile_product(const CompactProduct& s) {
  if (!tiles_pay(s.n_rows, s.n_k) || s.n_k > kMostTileK || s.n_vectors != int(kTileVectors))
    return avx512_vnni::int8.product(s);
  auto* sums = reinterpret_cast<int32_t*>(s.wide);
  for (size_t first = 0; first < s.n_rows; first += kUnitRows) {
    const size_t rest = s.n_rows - first, n = rest < kUnitRows ? rest : kUnitRows;
    sum_rows({s.rows[0], first, s.panels, s.n_k}, n, sums);
    const Int8Sums of = {sums,
                         s.scales,
                         s.sums,
                         s.n_k,
                         s.row_scales + first,
                         s.row_zeros + first,
                         s.from + first * s.from_stride,
                         s.lines + first * s.row_stride,
                         s.from_stride,
                         s.row_stride};
    to_numbers_with<int(kTileVectors)>(of, n, ZeroInHalves{});
  }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
