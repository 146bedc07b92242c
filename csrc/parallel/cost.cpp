#include "parallel/cost.h"

#include <cmath>

#include "cpu/caches.h"
#include "cpu/throughput.h"
#include "kernels/layouts.h"

namespace quadgate {
namespace {

// Int8 in AMX's tiles: from so many rows on, at so high a rate, input products join each step's.
constexpr size_t kTiledRows = 12;
constexpr double kTiledRate = 5;
// For input products ahead or within the step: cycles of a byte of a row's product on its way through memory, where all
// that is made at a time takes up to kDetourRoom of L2, and where it takes more.
constexpr double kDetourCycles = 0.07, kFarDetourCycles = 0.4, kDetourRoom = 0.2;
// The share of that which int8 has on top of the steps' own: there, too, sums of x and sums of h go through memory. Not
// in AMX's tiles, with which it was not measured.
constexpr double kInt8Detour = 0.1;
constexpr double kTileRows = 0.5;  // a tile takes as long as so many more rows
constexpr double kStepRoom = 0.6;  // of L2, what holds weights that every step reads beside its rows and results

// Of `bytes` that are read again and again in alternating order, L2 still holds 0.8 of its size; the rest comes from
// beyond it.
double share_beyond_l2(double bytes) {
  const double l2 = double(l2_bytes());
  return bytes <= 0.9 * l2 ? 0 : 1 - 0.8 * l2 / bytes;
}

// The share of L3 that weights have, beside what other processes keep there, and a core's bytes a cycle from memory.
// Measured on Zen 4, in a virtual machine: side by side, two directions with 16 MB of weights each took 1.6 to 2.8
// times as long as one after the other; with 7 MB each they took as long.
constexpr double kL3Room = 0.5, kMemoryRate = 6;

double crowd(size_t cores) { return std::max(1.0, double(cores) / kSharedReads); }

// Cycles that a byte from beyond L2, at a rate of `beyond`, takes longer where `all` bytes are read again and again:
// some come from memory.
double memory_cycles(double all, double beyond) {
  const double room = kL3Room * double(cache_sizes().l3);
  if (room == 0 || all <= room || beyond <= kMemoryRate) return 0;
  return (1 - room / all) * (1 / kMemoryRate - 1 / beyond);
}

}  // namespace

double multiply_cycles(const KernelSizes& k) {
  return kLineVectors / core_throughput().vectors(k.width * k.element_size);
}

double read_cycles(double bytes, size_t cores) {
  if (bytes <= 0.8 * double(l1_bytes())) return bytes / 100;
  const double beyond = bytes * share_beyond_l2(bytes);
  return (bytes - beyond) / core_throughput().l2 + beyond * crowd(cores) / core_throughput().beyond;
}

double first_read_cycles(double bytes, double others, size_t cores) {
  if (bytes + others <= 0.9 * double(l2_bytes())) return 0;
  const double near = bytes * (1 - share_beyond_l2(bytes));
  return near * (crowd(cores) / core_throughput().beyond - 1 / core_throughput().l2);
}

double from_memory_cycles(double bytes, double all, size_t cores) {
  return bytes * share_beyond_l2(bytes) * memory_cycles(all, core_throughput().beyond / crowd(cores));
}

// Ahead saves reading weight_ih at every step and costs a detour through memory; within the step a narrow input's
// products run while the cell of the step before is waited for.
bool cheaper_ahead(const InputProduct& p) {
  // A product in AMX's tiles takes less time than the detour of its sums through memory.
  if (p.weight_size == 1 && p.rows >= kTiledRows && p.rate >= kTiledRate) return false;
  const CoreThroughput& speed = core_throughput();
  const double l1 = double(l1_bytes()), l2 = double(l2_bytes());
  const double line = double(kLineVectors * p.kernels.width) * p.weight_size, blocks = double(p.n_blocks);
  const double l2_in_tiles = kL2InTiles * speed.l2;
  const double I = double(p.input), n_rows = double(p.rows), R = double(p.recurrent);
  const double each = multiply_cycles(p.kernels) / p.rate, max_rows = double(p.kernels.max_rows);
  // One k of one block within the steps, where `width` k's take part: multiply-adds or reading from L1 or L2, and what
  // must come from beyond L2.
  auto within = [&](double width) {
    const double bytes = width * line * blocks, tiles = std::ceil(n_rows / max_rows);
    const double multiply = each * (n_rows + kTileRows * tiles);
    const double near = std::max(multiply, tiles * (bytes < 0.9 * l1 ? 1.25 * each : line / l2_in_tiles));
    const double beyond = 1 / speed.beyond + memory_cycles(double(p.layers) * bytes, speed.beyond);
    return overlapped(near, line * beyond * std::max(0.0, 1 - kStepRoom * l2 / bytes));
  };
  const double in_step = (I + R) * within(I + R);
  // weight_ih is read once for the steps of a chunk, whose rows fill their tiles.
  const double steps = double(ahead_steps(p.rows, p.steps));
  const double multiply = speed.ahead * each * n_rows * (1 + kTileRows / max_rows);
  const double all = double(p.layers) * (I + R) * line * blocks,
               beyond = 1 / speed.beyond + memory_cycles(all, speed.beyond);
  const double once = I * line * blocks > l2 ? line * beyond / steps : 0;
  const double sums = double(kLineVectors * p.kernels.width * p.kernels.element_size) * n_rows;
  const double share = p.weight_size == 1 && p.rate < kTiledRate ? kInt8Detour : 1;
  const double detour = share * (sums * steps * blocks <= kDetourRoom * l2 ? kDetourCycles : kFarDetourCycles) * sums;
  return I * overlapped(multiply, once) + detour + R * within(R) < in_step;
}

}  // namespace quadgate
