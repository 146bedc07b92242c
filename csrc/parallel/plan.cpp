#include "parallel/plan.h"

#include <algorithm>

#include "cpu/machine.h"

namespace quadgate {
namespace {

// Cycles of a core near 3.5 GHz. Measured figures and how they were taken: bench/NOTES.md.
constexpr double kCell = 60;          // pointwise part of one row and block
constexpr double kStep = 150;         // latency that nothing hides at the end of a step
constexpr double kBarrier = 1500;     // all threads of a team meet
constexpr double kStart = 15000;      // waking a worker and waiting for its end
constexpr double kWorthwhile = 0.95;  // another split must be faster by 5 %,
constexpr double kUnits = 0.88;       // one that meets at every step by 12 %: it runs at the pace of the slower core

size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

// What a split over units cuts: blocks, or backward groups of up to four.
size_t unit_pieces(const Work& w) {
  const size_t blocks = ceil_div(w.hidden, w.width);
  return w.backward ? ceil_div(blocks, 4) : blocks;
}

// Cycles in which one core reads `bytes` that it sweeps again and again, in alternating order: of what does not fit
// into L2, only the rest comes from beyond.
double read_cycles(double bytes) {
  const CacheSizes& cache = cache_sizes();
  const double l1 = double(cache.l1d ? cache.l1d : 32 << 10), l2 = double(cache.l2 ? cache.l2 : 1 << 20);
  if (bytes <= 0.8 * l1) return bytes / 100;
  const double beyond = bytes <= 0.9 * l2 ? 0 : bytes - 0.8 * l2;
  return (bytes - beyond) / pace().l2 + beyond / pace().beyond;
}

// One step of `rows` rows and `blocks` blocks of units of one layer.
double step_cycles(const Work& w, size_t input, size_t rows, size_t blocks) {
  const double k = double(input + w.recurrent);
  const double panel_bytes = k * 4 * double(w.width * w.element_size);
  const double tiles = double(ceil_div(rows, w.max_rows));
  const double multiply = double(blocks * rows) * k * 4 / pace().vectors(w.width * w.element_size);
  const double read =  // beside the multiply-adds, but never quite
      read_cycles(double(blocks) * panel_bytes) + double(blocks) * (tiles - 1) * read_cycles(panel_bytes);
  const double cycles =
      std::max(multiply, read) + 0.35 * std::min(multiply, read) + double(blocks * rows) * kCell + kStep;
  // Backward: the same for dh, and the products for the weights and the input, which run at full speed.
  return w.backward ? cycles + 2 * multiply : cycles;
}

}  // namespace

double estimate(const Work& w, const Plan& plan) {
  const size_t blocks = ceil_div(w.hidden, w.width) * ceil_div(unit_pieces(w), plan.units) / unit_pieces(w);
  const size_t rows = ceil_div(w.rows, plan.rows);
  double cycles = 0, sync = 0;
  for (size_t l = 0; l < w.layers; ++l) {
    const size_t input = l == 0 ? w.input : w.output;
    double step = step_cycles(w, input, rows, blocks);
    if (plan.units > 1) step += kBarrier * double(w.passes);
    cycles += double(w.steps) * step * double(ceil_div(w.directions, plan.directions));
    if (plan.threads() > 1) sync += kBarrier;
  }
  if (plan.layers > 1)  // the slowest thread's share, and filling the pipe of about 16 chunks
    cycles *= double(ceil_div(w.layers, plan.layers)) / double(w.layers) * (1 + double(plan.layers - 1) / 16);
  if (plan.threads() > 1) cycles += sync + kStart + 1000 * double(plan.threads());
  return cycles;
}

Plan choose_plan(const Work& w, size_t max_threads) {
  Plan best;
  if (max_threads <= 1 || w.rows == 0 || w.steps == 0) return best;
  double best_cycles = estimate(w, best);
  if (best_cycles < 2 * kStart) return best;
  // More threads than this cannot pay for their synchronisation, and each costs an estimate.
  max_threads = std::min(max_threads, size_t(std::min(best_cycles / (kStart / 4), 1024.0)));
  auto consider = [&](const Plan& plan) {
    if (plan.threads() > max_threads || plan.rows > w.rows || plan.units > unit_pieces(w) || plan.layers > w.layers)
      return;
    const double cycles = estimate(w, plan);
    if (cycles < (plan.units > best.units ? kUnits : kWorthwhile) * best_cycles) {
      best_cycles = cycles;
      best = plan;
    }
  };
  const size_t most_directions = w.backward ? 1 : w.directions;
  for (size_t d = 1; d <= most_directions; ++d)
    for (size_t n = 1; n * d <= max_threads; ++n) {
      consider({n, d, 1, 1});
      consider({1, d, n, 1});
    }
  if (!w.backward && w.chunks)
    for (size_t n = 2; n <= std::min(max_threads, w.layers); ++n)
      for (size_t r = 1; r * n <= max_threads; ++r) consider({r, 1, 1, n});
  return best;
}

}  // namespace quadgate
