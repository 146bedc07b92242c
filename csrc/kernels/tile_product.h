// The product with int8 weights in the tile registers of AMX: 16 rows of 64 bytes each, of which one instruction
// multiplies two into a third.
//
// The panels are those of the other int8 products: 16 groups of four k of one vector are a tile as they lie. Sums are
// exact, so bits are the same, too.
#pragma once

#include "kernels/compact_steps.h"
#include "kernels/vec/vec.h"
#include "kernels/weights/int8.h"

namespace quadgate {

namespace avx512_vnni {
extern const CompactFunctions int8;  // for products that are too small for tiles
}

namespace QG_ISA {
namespace {

constexpr size_t kTileSide = 16, kTileK = 64, kTileVectors = 4, kPanelLine = kTileVectors * 64;

struct TileConfig {
  unsigned char palette, start_row, zeros[14];
  uint16_t bytes_per_row[16];
  unsigned char rows[16];
};

// Tiles 0 to 3 hold sums, 4 and 5 rows of bytes, 5 to 7 weights. Tiles of fewer rows take less time, and read no
// others: up to a block of rows its tiles have as many as there are, up to two blocks those of the second one.
[[maybe_unused]] void begin_tiles(size_t n_rows) {
  alignas(64) TileConfig config = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
  if (n_rows <= kTileSide) {
    for (int tile = 0; tile < 5; ++tile) config.rows[tile] = static_cast<unsigned char>(n_rows);
  } else if (n_rows < 2 * kTileSide) {
    config.rows[2] = config.rows[3] = config.rows[5] = static_cast<unsigned char>(n_rows - kTileSide);
  }
  __asm__ volatile("" : : "r"(&config) : "memory");  // GCC 12 takes the instruction to read 8 bytes of it
  _tile_loadconfig(&config);
}
[[maybe_unused]] void end_tiles() { _tile_release(); }

// The k's behind the last whole tile, and zeros before them: this block stands behind the row, and is multiplied with
// the last tile's worth of weights. In a row of less than a tile zeros come behind them, since weights begin there.
[[maybe_unused]] void quantize_row_for_tiles(const float* from, size_t n, unsigned char* to, float* scale,
                                             int32_t* zero) {
  avx512_vnni::int8.quantize_row(from, n, to, scale, zero);
  const size_t whole = (n + kInt8Group - 1) / kInt8Group * kInt8Group, rest = whole % kTileK;
  if (rest == 0) return;
  const bool less = whole < kTileK;
  const __mmask64 used = less ? ~(~uint64_t(0) << rest) : ~uint64_t(0) << (kTileK - rest);
  _mm512_storeu_si512(to + compact_round_up(n), _mm512_maskz_loadu_epi8(used, less ? to : to + whole - kTileK));
}

// One operand pair of tile products: a block of rows or two, and a panel.
struct TileFactors {
  const char* rows;  // those of quantize_row_for_tiles
  size_t row_bytes;
  const char* panel;
  size_t groups;  // of four k
  TileFactors() = default;
  QG_INLINE TileFactors(const void* all_rows, const void* of_panel, size_t n_k)
      : rows(static_cast<const char*>(all_rows)),
        row_bytes(compact_row_bytes(n_k)),
        panel(static_cast<const char*>(of_panel)),
        groups((n_k + kInt8Group - 1) / kInt8Group) {}
};

// Sums of a unit: one panel and up to two blocks of rows, with one or two products that stay apart. They come tile of k
// by tile of k, so that the caller can do other work in between: tiles and vectors have units of their own.
struct TileWork {
  const TileFactors* factors;
  size_t first, left, turns;  // the first row; tiles of this turn and turns that are left
  size_t parts;               // calls of next_tile until all is done
  size_t next_left;           // of the next turn, while sums wait to be stored
  int32_t *sums, *next_sums;  // (products, rows, V, W) of the unit; products are kUnitRows apart
  const char *rows, *weights;
  bool pair;  // two blocks of rows with two vectors at a time, otherwise one block with four
  bool half;  // of the vectors of a product of a pair
};
constexpr size_t kUnitRows = 2 * kTileSide, kLineSums = kTileVectors * kTileSide;

QG_INLINE size_t tiles_of(const TileFactors& f) { return (f.groups + kTileSide - 1) / kTileSide; }

QG_INLINE void begin_turn(TileWork& w) {
  w.rows = w.factors->rows + w.first * w.factors->row_bytes;
  w.weights = w.factors->panel + w.half * 128;
  w.left = tiles_of(*w.factors);
}

// Tiles 0 to 3 hold sums, 4 rows, 5 the second block's rows or weights, 6 and 7 weights; 7 is loaded late. The last
// operands may be those of the rest.
QG_INLINE void load_tiles(TileWork& w) {
  const TileFactors& f = *w.factors;
  const size_t row_bytes = f.row_bytes;
  if (w.left == 1 && f.groups % kTileSide) {
    w.rows = f.rows + (w.first + 1) * row_bytes - kTileK;
    w.weights = f.panel + (f.groups < kTileSide ? 0 : f.groups - kTileSide) * kPanelLine + w.half * 128;
  }
  _tile_loadd(4, w.rows, row_bytes);
  _tile_loadd(6, w.weights, kPanelLine);
  if (w.pair)
    _tile_loadd(5, w.rows + kTileSide * row_bytes, row_bytes);
  else
    _tile_loadd(5, w.weights + 128, kPanelLine);
}

QG_INLINE void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// One part of the work: products of loaded tiles, then the load of the next ones, so that they have time to arrive; or
// the store of sums, which takes as long as the last products, apart from these. Tiles 0 and 1 are the sums of the
// first block, 2 and 3 of the second; or all of them of one block.
[[maybe_unused]] QG_OUTLINE void next_tile(TileWork& w) {
  if (w.left == 0) {
    const size_t other = w.pair ? kTileSide * kLineSums : 32;
    _tile_stored(0, w.sums, kPanelLine);
    _tile_stored(1, w.sums + 16, kPanelLine);
    _tile_stored(2, w.sums + other, kPanelLine);
    _tile_stored(3, w.sums + other + 16, kPanelLine);
    zero_sums();
    w.sums = w.next_sums;
    w.left = w.next_left;
    return;
  }
  _tile_loadd(7, w.weights + 64, kPanelLine);
  _tile_dpbusd(0, 4, 6);
  if (w.pair) {
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(3, 5, 7);
  } else {
    _tile_dpbusd(2, 4, 5);
    _tile_loadd(6, w.weights + 192, kPanelLine);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(3, 4, 6);
  }
  w.rows += kTileK;
  w.weights += kTileSide * kPanelLine;
  const bool last = --w.left == 0;
  if (last) {
    if (--w.turns == 0) return;
    w.half = w.pair && !w.half;
    w.next_sums = w.half ? w.sums + 32 : w.sums + kUnitRows * kLineSums - (w.pair ? 32 : 0);
    if (!w.half) ++w.factors;
    begin_turn(w);
  }
  load_tiles(w);
  if (!last) return;
  w.next_left = w.left;  // the sums come first
  w.left = 0;
}

// Begins the sums of n rows with n_products panels.
QG_INLINE void begin_unit(TileWork& w, const TileFactors* factors, size_t n_products, size_t first, size_t n,
                          int32_t* sums) {
  w.factors = factors;
  w.first = first;
  w.pair = n > kTileSide;
  w.half = false;
  w.turns = w.pair ? 2 * n_products : n_products;
  w.sums = sums;
  w.parts = 0;
  for (size_t i = 0; i < n_products; ++i) w.parts += (tiles_of(factors[i]) + 1) << w.pair;
  w.next_left = 0;
  zero_sums();
  begin_turn(w);
  load_tiles(w);
}

// A sum of weights is less than 2^22, so that two numbers of 16 bits make it up, low + 128 high, with which one
// instruction subtracts its product with a row's zero point.
QG_INLINE __m512i in_halves(const int32_t* sums) {
  const __m512i all = load_words(sums), low = _mm512_and_si512(all, _mm512_set1_epi32(127));
  return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_srai_epi32(all, 7), 16));
}

// The numbers that n rows of sums stand for, of one product with one panel, and where they go to.
struct TileSums {
  const int32_t* sums;  // (n, V, W)
  const float* scales;  // (V, W)
  const int32_t* weight_sums;
  const float* row_scales;  // (n)
  const int32_t* row_zeros;
  const float* from;  // as in CompactProduct
  float* lines;
  size_t from_stride, row_stride;
};

QG_INLINE void finish_sums(const TileSums& s, size_t n) {
  constexpr size_t W = VF::kWidth;
  VF scales[kTileVectors];
  __m512i halves[kTileVectors];
  for (size_t v = 0; v < kTileVectors; ++v) {
    scales[v] = load(s.scales + v * W);
    halves[v] = in_halves(s.weight_sums + v * W);
  }
  for (size_t r = 0; r < n; ++r) {
    const VF scale = set1(s.row_scales[r]);
    const __m512i minus_zero = set_words(-s.row_zeros[r] * 128 * 65536 | (-s.row_zeros[r] & 0xffff));
#pragma GCC unroll 4
    for (size_t v = 0; v < kTileVectors; ++v) {
      const Words sum = load_words(s.sums + r * kLineSums + v * W);
      const VF whole = number(_mm512_dpwssd_epi32(sum, minus_zero, halves[v]));
      store(s.lines + r * s.row_stride + v * W,
            fma(whole, scale * scales[v], load(s.from + r * s.from_stride + v * W)));
    }
  }
}

[[maybe_unused]] void tile_product(const CompactProduct& s) {
  if (s.n_rows < kFewestTileRows || s.n_k < kFewestTileK || s.n_k > kMostTileK || s.n_vectors != int(kTileVectors))
    return avx512_vnni::int8.product(s);
  auto* sums = reinterpret_cast<int32_t*>(s.wide);
  const TileFactors factors(s.rows[0], s.panels, s.n_k);
  TileWork work;
  for (size_t first = 0; first < s.n_rows; first += kUnitRows) {
    const size_t rest = s.n_rows - first, n = rest < kUnitRows ? rest : kUnitRows;
    begin_unit(work, &factors, 1, first, n, sums);
    for (size_t i = 0; i < work.parts; ++i) next_tile(work);
    const TileSums of = {sums,
                         s.scales,
                         s.sums,
                         s.row_scales + first,
                         s.row_zeros + first,
                         s.from + first * s.from_stride,
                         s.lines + first * s.row_stride,
                         s.from_stride,
                         s.row_stride};
    finish_sums(of, n);
  }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
