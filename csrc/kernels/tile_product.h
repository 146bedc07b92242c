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

constexpr size_t kTileSide = 16, kTileK = 64, kTileBytes = kTileSide * kTileK, kTileVectors = 4;
static_assert(kTileSide == size_t(kInt8Tile), "tiles of weights lie in one piece");

struct TileConfig {
  unsigned char palette, start_row, zeros[14];
  uint16_t bytes_per_row[16];
  unsigned char rows[16];
};

// Tiles 0 and 1 hold sums, 2 and 3 rows of bytes, 4 weights. Tiles of fewer rows take less time, and read no others: up
// to a block of rows its tiles have as many as there are, up to two blocks those of the second one.
//
// A tile register is worth more the fewer are in use. While another thread runs on the same core, both share the few that
// there are behind the names of eight: with all eight in use a load and a product took 70 cycles instead of 16, one after
// the other. So each is zeroed, which frees it, as soon as it has been read for the last time.
[[maybe_unused]] void begin_tiles(size_t n_rows) {
  alignas(64) TileConfig config = {1, 0, {}, {64, 64, 64, 64, 64}, {16, 16, 16, 16, 16}};
  if (n_rows <= kTileSide) {
    for (int tile = 0; tile < 4; ++tile) config.rows[tile] = static_cast<unsigned char>(n_rows);
  } else if (n_rows < 2 * kTileSide) {
    config.rows[1] = config.rows[3] = static_cast<unsigned char>(n_rows - kTileSide);
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

// The operands of tile products: rows from `first` on, and a panel.
struct TileFactors {
  const char* rows;  // those of quantize_row_for_tiles
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

// One tile of k: two vectors of a block of rows, which lie `vector` bytes apart, or one vector of two blocks.
template <bool kPair>
QG_INLINE void two_products(const char* rows, size_t row_bytes, const char* weights, size_t vector) {
  _tile_loadd(4, weights, kTileK);
  _tile_loadd(2, rows, row_bytes);
  _tile_dpbusd(0, 2, 4);
  if (kPair) {
    _tile_zero(2);
    _tile_loadd(3, rows + kTileSide * row_bytes, row_bytes);
    _tile_dpbusd(1, 3, 4);
    _tile_zero(3);
  } else {
    _tile_zero(4);
    _tile_loadd(4, weights + vector, kTileK);
    _tile_dpbusd(1, 2, 4);
    _tile_zero(2);
  }
  _tile_zero(4);
}

template <bool kPair>
QG_INLINE void sum_blocks(const TileFactors& f, int32_t* sums) {
  const size_t whole = f.groups / kTileSide, rest = f.groups % kTileSide;
  constexpr size_t second = kPair ? kTileSide * kLineSums : kTileSide;
#pragma GCC unroll 1
  for (size_t v = 0; v < kTileVectors; v += kPair ? 1 : 2, sums += kPair ? kTileSide : 2 * kTileSide) {
    const char *rows = f.rows, *weights = f.panel + v * kTileBytes;
#pragma GCC unroll 1
    for (size_t t = 0; t < whole; ++t, rows += kTileK, weights += kTileVectors * kTileBytes)
      two_products<kPair>(rows, f.row_bytes, weights, kTileBytes);
    if (rest) {
      // The last tile has fewer groups. It is read from the groups before them on, by which the row has zeros; a row of
      // less than a tile is read past.
      const size_t vector = rest * kTileK, before = whole ? kTileBytes - vector : 0;
      two_products<kPair>(f.rows + f.row_bytes - kTileK, f.row_bytes,
                          f.panel + whole * kTileVectors * kTileBytes + v * vector - before, vector);
    }
    _tile_stored(0, sums, kLineBytes);
    _tile_zero(0);
    _tile_stored(1, sums + second, kLineBytes);
    _tile_zero(1);
  }
}

// sums (n, V, W): n rows, up to kUnitRows, times a panel.
[[maybe_unused]] QG_OUTLINE void sum_rows(const TileFactors& f, size_t n, int32_t* sums) {
  if (n > kTileSide)
    sum_blocks<true>(f, sums);
  else
    sum_blocks<false>(f, sums);
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
  for (size_t first = 0; first < s.n_rows; first += kUnitRows) {
    const size_t rest = s.n_rows - first, n = rest < kUnitRows ? rest : kUnitRows;
    sum_rows({s.rows[0], first, s.panels, s.n_k}, n, sums);
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
