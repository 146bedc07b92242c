// The tile of a forward step of several rows: which memory its sums come from and go to, panel by panel.
#pragma once

#include "kernels/steps.h"
#include "kernels/tile_sums.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// The tile of a step: sums of x and h, or of h alone, with a panel.
template <int NV, class Real, class Storage>
class StepTile {
 public:
  // Rows that take two panels at a time, at most: tiles of so few rows have few chains, and a tile of two panels loads
  // and stores its sums half as often. Where the registers hold them, and not of doubles, which few use.
  static constexpr size_t kPairRows = 3;
  static constexpr bool kPairs = kParts<Real, Storage, NV> == 1 && NV == kLineVectors &&
                                 sizeof(Real) == sizeof(float) && sizeof(Storage) == sizeof(float) &&
                                 kRegisters > int(2 * kPairRows * NV + kPairRows);

  // For n_tiles of all rows, of up to kMaxRows rows, or more if `large`.
  QG_INLINE StepTile(const ForwardStep<Real, Storage>& s, size_t n_tiles, bool large, size_t of_bytes)
      : s_(s), turns_(large ? P : 1) {
    const size_t bytes_ahead = ahead_bytes<Real, Storage>(NV, turns_ * n_tiles, of_bytes);
    tile_.n_products = 2 - s.use_pre;
    tile_.to_panel = N * W;
    tile_.to_stride = NV * W;
    if (!s.use_pre) of_x().set_sizes(s.input_size, s.input_size * N * W, bytes_ahead, of_bytes);
    of_h().set_sizes(s.recurrent_size, s.recurrent_size * N * W, bytes_ahead, of_bytes);
  }

  // Prefetches the first two lines of the next tile's rows, from which on hardware follows. Of floats: few use doubles.
  QG_INLINE void set_rows(size_t first, int n_rows) {
    const ForwardRow<Real>* rows = s_.rows + first;
    const size_t left = sizeof(Real) == sizeof(float) && s_.far_x ? s_.n_rows - first : 0;
    n_rows_ = n_rows;
#pragma GCC unroll 1
    for (int r = 0; r < n_rows; ++r) {
      tile_.from[r] = s_.use_pre ? rows[r].pre : s_.bias;
      of_x().rows[r] = rows[r].x;
      of_h().rows[r] = rows[r].h;
      if (size_t(n_rows + r) < left) {
        __builtin_prefetch(rows[n_rows + r].x, 0, 3);
        __builtin_prefetch(rows[n_rows + r].x + 64 / sizeof(Real), 0, 3);
      }
    }
  }

  // The sums of tile t: the panel's parts side by side or, where these have too many sums for the registers, one after
  // the other. Prefetches a share of the panel `next`.
  template <int Most>
  QG_INLINE void sum(size_t t, size_t panel, size_t next, Real (*sums)[NV][Vec<Real>::kWidth]) {
    for (size_t turn = 0; turn < turns_; ++turn) {
      tile_.from_at = (P * panel + turn) * N * W;
      tile_.to = sums[0][turn * N];
      auto set_panel = [&](TileProduct<Real, Storage> & product, const Storage* w) __attribute__((always_inline)) {
        product.set_panel(w + tile_.from_at * product.n_k, w + P * next * N * W * product.n_k, turns_ * t + turn);
      };
      if (!s_.use_pre) set_panel(of_x(), s_.w_ih);
      set_panel(of_h(), s_.w_hh);
      sum_products_of<Most, P, N>(tile_, n_rows_);
    }
  }

  // The sums with this panel and the next one, one behind the other, of up to kPairRows rows.
  QG_INLINE void sum_pair(size_t panel, Real (*sums)[NV][Vec<Real>::kWidth]) {
    tile_.from_at = panel * NV * W;
    tile_.to = sums[0][0];
    tile_.to_panel = n_rows_ * NV * W;
    if (!s_.use_pre) of_x().set_panel(s_.w_ih + tile_.from_at * s_.input_size, s_.w_ih, 0);
    of_h().set_panel(s_.w_hh + tile_.from_at * s_.recurrent_size, s_.w_hh, 0);
    if (n_rows_ == 2)
      sum_products<2, 2, NV>(tile_);
    else
      sum_products<2, 3, NV>(tile_);
    tile_.to_panel = N * W;
  }

  // The sums with a narrow panel, which has half as many vectors in a line. No other sums may follow.
  QG_INLINE void sum_narrow(size_t panel, Real (*sums)[NV / 2][Vec<Real>::kWidth]) {
    tile_.from_at = panel * NV * W;
    tile_.to = sums[0][0];
    tile_.to_stride = NV / 2 * W;
    auto set_panel = [&](TileProduct<Real, Storage> & product, const Storage* w) __attribute__((always_inline)) {
      product.ahead.bytes_per_k = 0;
      product.set_panel(w + tile_.from_at * product.n_k, w + tile_.from_at * product.n_k, 0);
    };
    if (!s_.use_pre) set_panel(of_x(), s_.w_ih);
    set_panel(of_h(), s_.w_hh);
    sum_products_of<kMostSumRows, 1, NV / 2>(tile_, n_rows_);
  }

 private:
  static constexpr size_t W = Vec<Real>::kWidth;
  static constexpr int P = kParts<Real, Storage, NV>, N = NV / P;

  QG_INLINE TileProduct<Real, Storage>& of_x() { return tile_.products[0]; }
  QG_INLINE TileProduct<Real, Storage>& of_h() { return tile_.products[!s_.use_pre]; }

  const ForwardStep<Real, Storage>& s_;
  const size_t turns_;
  int n_rows_ = 0;
  TileSums<Real, Storage> tile_;
};

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
