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
// the last tile's worth of weights.
[[maybe_unused]] void quantize_row_for_tiles(const float* from, size_t n, unsigned char* to, float* scale,
                                             int32_t* zero) {
  avx512_vnni::int8.quantize_row(from, n, to, scale, zero);
  const size_t whole = (n + kInt8Group - 1) / kInt8Group * kInt8Group, rest = whole % kTileK;
  if (rest == 0 || whole < kTileK) return;
  const __mmask64 last = ~uint64_t(0) << (kTileK - rest);
  _mm512_storeu_si512(to + compact_round_up(n), _mm512_maskz_loadu_epi8(last, to + whole - kTileK));
}

// The operands of a run over k for one or two blocks of 16 rows.
struct TileRun {
  const char *rows, *rest;  // the first row, and what quantize_row_for_tiles left behind it
  size_t row_bytes;
  const char* weights;
  size_t groups;  // of four k
};

// f(rows, weights) for each tile of k.
template <class F>
QG_INLINE void each_tile(const TileRun& s, F&& f) {
  const size_t n = s.groups / kTileSide;
  for (size_t i = 0; i < n; ++i) f(s.rows + i * kTileK, s.weights + i * kTileSide * kPanelLine);
  if (s.groups % kTileSide) f(s.rest, s.weights + (s.groups - kTileSide) * kPanelLine);
}

QG_INLINE void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// Tiles 0 to 3, one behind the other.
QG_INLINE void store_sums(int32_t* sums) {
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + 256, 64);
  _tile_stored(2, sums + 512, 64);
  _tile_stored(3, sums + 768, 64);
}

// Two blocks of rows with two vectors: 0 and 1 are the sums of the first block, 2 and 3 of the second.
QG_INLINE void two_by_two(const TileRun& s, int32_t* sums) {
  zero_sums();
  each_tile(
      s, [&](const char* rows, const char* weights) __attribute__((always_inline)) {
        _tile_loadd(4, rows, s.row_bytes);
        _tile_loadd(6, weights, kPanelLine);
        _tile_dpbusd(0, 4, 6);
        _tile_loadd(7, weights + 64, kPanelLine);
        _tile_dpbusd(1, 4, 7);
        _tile_loadd(5, rows + kTileSide * s.row_bytes, s.row_bytes);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
      });
  store_sums(sums);
}

// One block of rows with four vectors.
QG_INLINE void one_by_four(const TileRun& s, int32_t* sums) {
  zero_sums();
  each_tile(
      s, [&](const char* rows, const char* weights) __attribute__((always_inline)) {
        _tile_loadd(4, rows, s.row_bytes);
        _tile_loadd(5, weights, kPanelLine);
        _tile_dpbusd(0, 4, 5);
        _tile_loadd(6, weights + 64, kPanelLine);
        _tile_dpbusd(1, 4, 6);
        _tile_loadd(7, weights + 128, kPanelLine);
        _tile_dpbusd(2, 4, 7);
        _tile_loadd(5, weights + 192, kPanelLine);
        _tile_dpbusd(3, 4, 5);
      });
  store_sums(sums);
}

// lines = from + the sums of NV vectors from v on, for the rows from `row` on that there are.
template <int NV>
QG_INLINE void add_sums(const CompactProduct& s, const int32_t* sums, size_t row, size_t v) {
  constexpr size_t most = kTileSide * kTileVectors / NV;
  const size_t n = s.n_rows - row < most ? s.n_rows - row : most;
  VF scales[NV];
  Words weight_sums[NV];
  for (int i = 0; i < NV; ++i) {
    scales[i] = load(s.scales + (v + i) * VF::kWidth);
    weight_sums[i] = load_words(s.sums + (v + i) * VF::kWidth);
  }
  for (size_t r = 0; r < n; ++r) {
    const int32_t* sum = sums + r / kTileSide * 256 * NV + r % kTileSide * kTileSide;
    const VF row_scale = set1(s.row_scales[row + r]);
    const Words row_zero = set_words(s.row_zeros[row + r]);
    const float* from = s.from + (row + r) * s.from_stride + v * VF::kWidth;
    float* line = s.lines + (row + r) * s.row_stride + v * VF::kWidth;
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i) {
      const Words whole = _mm512_sub_epi32(load_words(sum + i * 256), times(weight_sums[i], row_zero));
      store(line + i * VF::kWidth, fma(number(whole), row_scale * scales[i], load(from + i * VF::kWidth)));
    }
  }
}

[[maybe_unused]] void tile_product(const CompactProduct& s) {
  const size_t groups = (s.n_k + kInt8Group - 1) / kInt8Group;
  if (s.n_rows < kFewestTileRows || s.n_k < kFewestTileK || s.n_vectors != int(kTileVectors))
    return avx512_vnni::int8.product(s);
  const size_t row_bytes = compact_row_bytes(s.n_k);
  const size_t in_pairs = (s.n_rows + kTileSide - 1) / (2 * kTileSide) * 2 * kTileSide;  // rows, or more
  auto* sums = reinterpret_cast<int32_t*>(s.wide);
  const char* bytes = static_cast<const char*>(s.rows[0]);
  TileRun run;
  run.row_bytes = row_bytes;
  run.groups = groups;
  auto at = [&](size_t row, size_t v) __attribute__((always_inline)) {
    run.rows = bytes + row * row_bytes;
    run.rest = run.rows + compact_round_up(s.n_k);
    run.weights = static_cast<const char*>(s.panels) + v * 64;
  };
  for (size_t v = 0; v < kTileVectors; v += 2)
    for (size_t row = 0; row < in_pairs; row += 2 * kTileSide) {
      at(row, v);
      two_by_two(run, sums);
      add_sums<2>(s, sums, row, v);
    }
  if (in_pairs >= s.n_rows) return;
  at(in_pairs, 0);
  one_by_four(run, sums);
  add_sums<4>(s, sums, in_pairs, 0);
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
