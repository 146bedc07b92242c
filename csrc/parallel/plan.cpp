#include "parallel/plan.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "kernels/layouts.h"
#include "parallel/cost.h"

namespace quadgate {
namespace {

constexpr double kWorthwhile = 0.95;  // another split must be faster by 5 %,
constexpr double kUnits = 0.88;       // one that meets at every step by 12 %: it runs at the pace of the slower core,
constexpr double kAwakeUnits = 0.94;  // by 6 % where threads are awake, so that they have cores;
constexpr double kReadUnits = 0.97;   // by 3 % where weights come from memory, of which each thread reads a part,
constexpr double kLongStep = 1e5;    // cycles of a step from which on 5 % will do for a grid of rows and units, for few
constexpr double kUneven = 1.05;     // rows, and where a part of the rows is larger by so much than their mean
constexpr double kHelpedRows = 0.8;  // helpers of a thread with several rows must be faster by 20 %, with their waking
constexpr double kBackwardPhases = 6;  // of a layer with one block of steps, beside those of its steps
constexpr double kMovedCycles = 0.4;   // for each byte that a thread reads from the cache of the one that wrote it
// The same where cores are far, the wait for a phase beside phase_cycles, and each byte of y, which the caller reads.
// Measured on Zen 4, in two threads against one: 1.8 to 2.2, 1.8 to 2.4 us a step of units, 0.8 to 1.8.
constexpr double kFarMovedCycles = 2.2, kFarPhaseCycles = 7000, kFarOutputCycles = 1;
constexpr double kWriteRate = 10;       // bytes of a weight's gradient that are written in a cycle
constexpr double kHelperCycles = 4000;  // each helper that is woken, as the passes before may have had fewer threads
constexpr double kSpinCycles = 1.5e6;   // so long threads that wait for a phase spin (Sharing, at 3 GHz),
constexpr double kSleepCycles = 30000;  // and then fall asleep, which costs this with waking;
constexpr double kLongLoop = 30000;     // helpers cost the same in longer time loops, by measurement, though they spin
constexpr size_t kBlockRows = 512;      // of a block of the backward pass, at least
constexpr size_t kFewTiles = 4;         // of rows: less data than the weights
constexpr size_t kLeastTileRows = 6;    // rows that an instruction set's kernels have in a tile, at least
constexpr double kTurns = 1.04;         // parts that threads take in turn may cost 4 %: cores are often less equal
constexpr size_t kFewColumns = 96;      // of x, so that its product takes no longer in steps than ahead
constexpr size_t kFewestLinks = 16, kLinks = 64;  // of a part of the rows that threads take in turn,
constexpr double kShortLinkFlops = 2e6;           // and their work, at least: some 15 us,
constexpr double kRowLinkFlops = 5e4;             // and that of a row: a link spends some 40 ns on each

auto fields(const Work& w) {
  return std::tie(w.steps, w.rows, w.input, w.hidden, w.layers, w.directions, w.recurrent, w.output, w.passes, w.width,
                  w.max_rows, w.element_size, w.weight_size, w.rate, w.widening, w.pass, w.chunks, w.narrow_last,
                  w.no_first_h, w.bare_step, w.awake, w.start, w.far, w.whole_loop);
}

bool backward(const Work& w) { return w.pass == Pass::backward; }

// The pieces that a split over units cuts: blocks, or backward groups of them.
size_t unit_pieces(const Work& w) {
  const size_t blocks = ceil_div(w.hidden, w.width);
  return backward(w) ? ceil_div(blocks, kGroupBlocks) : blocks;
}

// The first step of a forward pass may be one without a product with h.
bool without_h(const Work& w) { return w.no_first_h && !backward(w); }

double moved_cycles(const Work& w) { return w.far ? kFarMovedCycles : kMovedCycles; }
double phase_cycles(const Work& w, size_t threads) {
  return quadgate::phase_cycles(threads) + (w.far ? kFarPhaseCycles : 0);
}

// Threads that share backward's time loop take the tape from the caller's cache, which costs what they save where they
// are awake; helpers do not.
double start_cycles(const Work& w, bool helpers = false) {
  if (!w.awake) return w.start;
  if (backward(w)) return helpers ? kAwakeStartCycles : kStartCycles;
  return w.bare_step ? kAwakeStartCycles : kAwakeCallCycles;
}

// Columns of h that are multiplied: none in the backward pass of a single step from zeros.
size_t columns_of_h(const Work& w) { return backward(w) && w.no_first_h && w.steps == 1 ? 0 : w.recurrent; }

// Bytes of a row and step that backward's products read where one thread wrote them: x, h and the gates' gradients.
double moved_bytes(const Work& w, size_t input) {
  return double(input + columns_of_h(w) + kLineVectors * w.hidden) * double(w.element_size);
}

// Of a layer's weight_ih and weight_hh; the latter's gradient is written even if it is zero.
double gradient_bytes(const Work& w, size_t input) {
  return double(kLineVectors * w.hidden * (input + w.recurrent) * w.element_size);
}

// Of a block of a layer's panels.
double block_bytes(const Work& w, size_t input) {
  return double(input + columns_of_h(w)) * kLineVectors * double(w.width) * w.weight_size;
}

// Multiply-adds in the time of one of float, of a product of so many rows.
double rate(const Work& w, size_t rows) { return w.rate * double(rows) / (double(rows) + w.widening); }

// One step of `rows` rows and `blocks` blocks of units of one layer, while so many threads do such steps and read `all`
// bytes of weights together. In the first one of training's forward pass, other panels and gradients have been used
// since its weights were.
double step_cycles(const Work& w, size_t input, size_t rows, size_t blocks, size_t threads, bool first = false,
                   double all = 0) {
  const double k = double(input + (first && without_h(w) ? 0 : columns_of_h(w)));
  const double panel_bytes = k * kLineVectors * double(w.width) * w.weight_size;
  const double tiles = double(ceil_div(rows, w.max_rows));
  const bool narrow = w.narrow_last && blocks == ceil_div(w.hidden, w.width);  // of several shares one has whole blocks
  const double multiply = (double(blocks) - (narrow ? 0.5 : 0)) * double(rows) * k *
                          multiply_cycles({w.width, w.max_rows, w.element_size}) / rate(w, rows);
  const double panels = double(blocks) * panel_bytes;
  double read = read_cycles(panels, threads) + from_memory_cycles(panels, all, threads) +
                double(blocks) * (tiles - 1) * read_cycles(panel_bytes, 1);
  if (first && w.pass == Pass::training_forward) {  // backward's panels and the gradients are as large as whole ones
    const double whole = double(blocks) * block_bytes(w, input), states = double(w.layers * w.directions);
    read += first_read_cycles(panels, (states - 1) * panels + 2 * states * whole, threads);
  }
  const double cycles = overlapped(multiply, read) + double(blocks * rows) * kCellCycles + kStepCycles;
  // Backward: the same for dh, and the products for the weights and the input, which run at full speed.
  return backward(w) ? cycles + 2 * multiply : cycles;
}

// Predicts Weights::projects_ahead (rnn/weights.cpp), which decides whether a layer's input product is made ahead of
// the time loop: change both together. Layer normalisation, whose product always is, is left out.
bool ahead(const Work& w, size_t input, size_t rows) {
  if (backward(w) || w.steps == 1) return false;
  const KernelSizes kernels = {w.width, w.max_rows, w.element_size};
  return cheaper_ahead({input, w.recurrent, rows, w.steps, ceil_div(w.hidden, w.width), kernels,
                        w.widening > 0 ? double(w.element_size) : w.weight_size, w.rate, w.chunks ? w.layers : 1});
}

// A step's share of such a product. It leaves h's panels beyond L2 where not all of them fit.
double ahead_cycles(const Work& w, size_t input, size_t rows, size_t blocks, size_t threads) {
  const double multiply = double(blocks * rows * input) * multiply_cycles({w.width, w.max_rows, w.element_size});
  const double all = double(blocks) * block_bytes(w, input), of_x = double(input) / double(input + w.recurrent);
  const size_t steps = ahead_steps(rows, w.steps), tiles = ceil_div(rows * steps, w.max_rows);
  const double again = double(blocks) * double(tiles - 1) * read_cycles(of_x * block_bytes(w, input), 1);
  const double read = of_x * read_cycles(all, threads) + again;
  return overlapped(multiply / w.rate, read / double(steps)) +
         first_read_cycles((1 - of_x) * all, of_x * all, threads) / double(steps);
}

// A layer of `rows` rows whose time loop is one thread's at a time, while the rest of a team of `n` make the next
// steps' input products, of all `threads`. Each reads all of the weights. Meetings of the team are counted, but for the
// last.
double one_loop_cycles(const Work& w, size_t input, size_t rows, size_t n, size_t threads, double all) {
  const size_t blocks = ceil_div(w.hidden, w.width), steps = ahead_steps(rows, w.steps);
  const size_t part_rows = ceil_div(steps * rows, n), tiles = ceil_div(part_rows, w.max_rows);
  const double weights = double(input * blocks * kLineVectors * w.width) * w.weight_size;
  const double multiply =
      double(part_rows * blocks * input) * multiply_cycles({w.width, w.max_rows, w.element_size}) / w.rate;
  const double again = double(tiles - 1) * double(blocks) * read_cycles(weights / double(blocks), 1);
  const double part = overlapped(multiply, read_cycles(weights, threads) + again);
  const double moved = double(steps * rows * blocks * kLineVectors * w.width * w.element_size);
  const double loop = double(steps) * step_cycles(w, 0, rows, blocks, 1, false, all) +
                      moved_cycles(w) * moved * double(n - 1) / double(n);
  const double beside = std::max(loop, loop / double(n) + part), times = double(ceil_div(w.steps, steps));
  const double meeting = phase_cycles(w, n) + (times > 1 && loop > part + kSpinCycles ? kSleepCycles : 0);
  return part + (times - 1) * beside + loop + times * meeting;
}

// A backward pass in which each part of the rows has a thread in the time loops, and all threads share the products and
// their reads. For comparison of plans with and without helpers.
double cycles_with_helpers(const Work& w, const Plan& plan) {
  const size_t blocks = ceil_div(w.hidden, w.width), rows = ceil_div(w.rows, plan.rows);
  const double line = double(kLineVectors * w.width * w.element_size);
  Work forward = w;
  forward.pass = Pass::training_forward;
  const double loop = double(w.steps) * step_cycles(forward, 0, rows, blocks, plan.rows);
  const double times = double(ceil_div(w.steps * w.rows, kBlockRows)), threads = double(plan.threads());
  const double meeting = phase_cycles(w, plan.threads()) + (loop > kLongLoop * times ? kSleepCycles : 0);
  double cycles = 0;
  for (size_t l = 0; l < w.layers; ++l) {
    const double columns = double(2 * (l == 0 ? w.input : w.output) + columns_of_h(w));  // of dx and of both gradients
    const double multiply =
        double(w.steps * w.rows * blocks) * columns * multiply_cycles({w.width, w.max_rows, w.element_size});
    const double products = overlapped(multiply, read_cycles(columns * double(blocks) * line, plan.threads()));
    const double moved = moved_cycles(w) * double(w.steps * w.rows) * moved_bytes(w, l == 0 ? w.input : w.output);
    cycles += double(w.directions) * (loop + products / threads +
                                      (plan.helpers ? moved * double(plan.helpers) / threads + times * meeting : 0));
  }
  if (plan.helpers) cycles += kHelperCycles * double(plan.helpers) + (plan.rows == 1 ? start_cycles(w, true) : 0);
  return cycles;
}

// Helpers for a plan whose threads have one row each, or whose only thread has all of them.
Plan with_helpers(Work w, const Plan& plan, size_t max_threads) {
  Plan best = plan;
  const bool one_row = plan.rows == w.rows;
  if (w.awake && !one_row) {  // counted as a start, which they need not be
    w.awake = false;
    w.start = kStartCycles;
  }
  const double wanted = (one_row ? kUnits : kHelpedRows) * cycles_with_helpers(w, plan);
  double last = std::numeric_limits<double>::infinity();
  Plan more = plan;
  for (size_t n = plan.threads() + 1; n <= max_threads; ++n) {
    more.helpers = n - plan.threads();
    const double cycles = cycles_with_helpers(w, more);
    if (cycles >= last) break;  // as will be with any more
    last = cycles;
    if (cycles < wanted) best = more;
  }
  return best;
}

// Tiles of the rows, cut into equal parts.
size_t tiles_of(const Work& w, size_t parts) {
  const size_t tile = ceil_div(kLeastTileRows, w.max_rows) * w.max_rows, few = w.rows / parts, more = w.rows % parts;
  return (parts - more) * ceil_div(few, tile) + more * ceil_div(few + 1, tile);
}

// True if the largest of so many parts of the rows has a good deal more than its share.
bool uneven(const Work& w, size_t parts) { return double(parts * ceil_div(w.rows, parts)) >= kUneven * double(w.rows); }

// A step of all rows of the first layer, cut into equal parts, by one thread of so many.
double all_cycles(const Work& w, size_t parts, size_t threads) {
  const size_t few = w.rows / parts, more = w.rows % parts, blocks = ceil_div(w.hidden, w.width);
  auto cycles = [&](size_t rows) {
    if (!ahead(w, w.input, rows)) return step_cycles(w, w.input, rows, blocks, threads);
    return step_cycles(w, 0, rows, blocks, threads) + ahead_cycles(w, w.input, rows, blocks, threads);
  };
  return double(parts - more) * cycles(few) + (more ? double(more) * cycles(few + 1) : 0);
}

// Parts for a plan whose threads have rows and directions of their own: the fewest, beyond one a thread, that make no
// more tiles of all rows, if they take no longer by reading the weights more often, and there are steps enough to take
// turns.
size_t parts_in_turn(const Work& w, const Plan& plan) {
  const size_t threads = plan.threads(), most = std::min(w.rows, std::max<size_t>(2 * plan.rows, 3));
  if (threads == 1 || plan.units > 1 || plan.layers > 1 || plan.one_loop || plan.helpers) return 0;
  if (w.rate != 1 || w.widening > 0) return 0;  // tiles of other sizes
  Plan in_turn = plan;
  in_turn.parts = plan.rows + 1;
  while (in_turn.parts <= most && tiles_of(w, in_turn.parts) > tiles_of(w, plan.rows)) ++in_turn.parts;
  if (in_turn.parts > most) return 0;
  const size_t rows = ceil_div(w.rows, in_turn.parts), rows_before = ceil_div(w.rows, plan.rows);
  for (size_t columns : {w.input, w.layers > 1 ? w.output : w.input})
    if (columns > kFewColumns && ahead(w, columns, rows) != ahead(w, columns, rows_before)) return 0;
  if (all_cycles(w, in_turn.parts, threads) > kTurns * all_cycles(w, plan.rows, threads)) return 0;
  const size_t steps = backward(w) ? std::min(w.steps, ceil_div(kBlockRows, w.rows)) : w.steps;
  const double flops = product_flops(1, kLineVectors * w.hidden, w.recurrent + (backward(w) ? 0 : w.input));
  const size_t at_once = ahead(w, w.input, rows) ? ahead_steps(rows, steps) : 1;
  const size_t link = link_steps(in_turn, steps, rows, flops, at_once, 0);
  return steps >= kFewestLinks * link ? in_turn.parts : 0;
}

}  // namespace

bool operator==(const Work& a, const Work& b) { return fields(a) == fields(b); }

double estimate(const Work& w, const Plan& plan) {
  const size_t blocks = ceil_div(w.hidden, w.width) * ceil_div(unit_pieces(w), plan.units) / unit_pieces(w);
  const size_t rows = ceil_div(w.rows, plan.rows);
  double cycles = 0, sync = 0;
  for (size_t l = 0; l < w.layers; ++l) {
    const size_t input = l == 0 ? w.input : w.output;
    const bool is_ahead = ahead(w, input, rows), one_loop = plan.one_loop && is_ahead;
    const size_t in_step = is_ahead ? 0 : input, threads = plan.threads();
    // Directions and layers that go side by side share L3. A single step reads nothing again.
    const double side_by_side = double(plan.directions * plan.layers * ceil_div(w.hidden, w.width));
    const double all = backward(w) || w.steps == 1 ? 0 : side_by_side * block_bytes(w, in_step);
    double steps = double(w.steps) * step_cycles(w, in_step, rows, blocks, threads, false, all);
    if (is_ahead) steps += double(w.steps) * ahead_cycles(w, input, rows, blocks, threads);
    if (backward(w)) {  // its threads have a part each of the panels and the gradients; forward's are used in between
      if (plan.threads() > 1) sync += moved_cycles(w) * double(w.steps * w.rows) * moved_bytes(w, input);
      const double part = double(ceil_div(w.hidden, w.width)) * block_bytes(w, input) / double(plan.threads());
      const double states = double(w.layers * w.directions);
      steps += first_read_cycles(2 * part, (3 * states - 2) * part, plan.threads());
      if (w.steps == 1)  // which would not show behind the products of several
        steps += gradient_bytes(w, input) / (kWriteRate * double(plan.threads()));
    } else {
      const double cold =
          step_cycles(w, input, rows, blocks, threads, true) - step_cycles(w, input, rows, blocks, threads);
      steps = cold + (one_loop ? one_loop_cycles(w, input, rows, plan.units, threads, all) : steps);
    }
    if (plan.units > 1 && !one_loop)
      steps += phase_cycles(w, plan.units) * double(w.passes * w.steps - 1);  // the last is in `sync`
    cycles += steps * double(ceil_div(w.directions, plan.directions));
    if (plan.threads() > 1) sync += (backward(w) ? kBackwardPhases : 1) * phase_cycles(w, plan.threads());
  }
  if (plan.layers > 1) {  // the slowest thread's share of each chunk, and meetings, while the pipeline fills, too
    const double chunks = double(ceil_div(w.steps, std::max<size_t>(1, w.steps / kChunks)));
    const double phases = chunks + double(plan.layers - 1);
    cycles *= double(ceil_div(w.layers, plan.layers)) / double(w.layers) * phases / chunks;
    sync += phase_cycles(w, plan.threads()) * (phases - 1);
  }
  if (plan.threads() > 1) {
    if (w.far && !backward(w)) sync += kFarOutputCycles * double(w.steps * w.rows * w.output * w.element_size);
    cycles += sync + start_cycles(w) + kPerThreadCycles * double(plan.threads());
  }
  return cycles;
}

size_t link_steps(const Plan& plan, size_t steps, size_t rows, double row_flops, size_t at_once, double most_flops) {
  auto of = [=](double flops) { return size_t(std::min(flops / row_flops, 1e9)) + 1; };
  size_t link = of(most_flops / double(rows));
  if (plan.row_parts() > plan.rows)
    link =
        std::max(of(std::max(kRowLinkFlops, kShortLinkFlops / double(rows))), std::min(link, ceil_div(steps, kLinks)));
  return std::min(steps, ceil_div(link, at_once) * at_once);
}

namespace {

Plan fastest_plan(const Work& w, size_t max_threads) {
  Plan best;
  if (max_threads <= 1 || w.rows == 0 || w.steps == 0) return best;
  double best_cycles = estimate(w, best);
  if (best_cycles < 2 * start_cycles(w, true)) return best;
  // More threads than this cannot pay for their synchronisation, and each costs an estimate.
  max_threads = std::min(max_threads, size_t(std::min(best_cycles / (kStartCycles / 4), 1024.0)));
  const bool one_step = !backward(w) && w.steps * w.layers * w.passes == 1 && w.rows < kFewTiles * w.max_rows;
  const bool few_rows = w.rows <= w.max_rows;  // all weights are read for each part of a tile
  // Threads that share units read a part of the weights each, threads with rows of their own all of them, which takes
  // longer than estimated where L3 does not keep them.
  const double weights = double((w.chunks ? w.layers : 1) * ceil_div(w.hidden, w.width)) * block_bytes(w, w.input);
  const bool from_memory = !backward(w) && w.steps > 1 && from_memory_cycles(weights, weights, 1) > 0;
  auto consider = [&](const Plan& plan) {
    if (plan.threads() > max_threads || plan.rows > w.rows || (plan.units > unit_pieces(w) && !plan.one_loop) ||
        plan.layers > w.layers)
      return;
    const double cycles = estimate(w, plan);
    const bool certain = plan.rows > 1 || few_rows || uneven(w, best.rows);
    const bool long_step = certain && cycles > kLongStep * double(w.steps * w.layers);
    double wanted = kWorthwhile;
    if (plan.one_loop)
      wanted = best.one_loop ? kWorthwhile : kUnits;  // a neighbour on the core may take a half of the L2 that it reads
    else if (plan.units > best.units && from_memory)
      wanted = kReadUnits;
    else if (plan.units > (best.one_loop ? 1 : best.units) && !long_step && !one_step)
      wanted = w.awake ? kAwakeUnits : kUnits;
    if (cycles < wanted * best_cycles) {
      best_cycles = cycles;
      best = plan;
    }
  };
  const bool one_loop = w.whole_loop && ahead(w, w.input, w.rows);
  const size_t most_directions = backward(w) ? 1 : w.directions;
  auto consider_rows = [&] {
    for (size_t d = 1; d <= most_directions; ++d)
      for (size_t n = 1; n * d <= max_threads; ++n) consider({n, d, 1, 1});
  };
  auto consider_units = [&] {
    for (size_t d = 1; d <= most_directions; ++d)
      for (size_t n = 2; n * d <= max_threads; ++n) {
        consider({1, d, n, 1});
        if (one_loop) consider({1, d, n, 1, 0, true});
        // Of the grids only those of nearly all threads, since each costs an estimate.
        const size_t rows = std::min(w.rows, max_threads / (n * d));
        if (rows > 1) consider({rows, d, n, 1});
      }
  };
  // Splits that meet rarely come first: another must be better by far. Threads that share a single step's units meet no
  // more often than others; each reads a part of the weights, which is more than a few rows are.
  if (one_step) consider_units();
  consider_rows();
  if (!one_step) consider_units();
  if (backward(w)) {
    const bool helped = best.units == 1 && (best.rows == w.rows || best.rows == 1);
    return helped ? with_helpers(w, best, max_threads) : best;
  }
  if (w.chunks)
    for (size_t n = 2; n <= std::min(max_threads, w.layers); ++n)
      for (size_t r = 1; r * n <= max_threads; ++r) consider({r, 1, 1, n});
  return best;
}

}  // namespace

Plan choose_plan(const Work& w, size_t max_threads) {
  Plan best = fastest_plan(w, max_threads);
  best.parts = parts_in_turn(w, best);
  return best;
}

}  // namespace quadgate
