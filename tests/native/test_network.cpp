// Whole passes of networks that together have every option, split over threads in every way that there is: results
// have the same bits for any number of threads. Mostly for ThreadSanitizer, which sees here what one thread reads while
// another writes it. Tapes and scratch memory hold NaN before they are written, and
// around all results there are guards.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "cpu/caches.h"
#include "cpu/dispatch.h"
#include "kernel_test.h"
#include "network_cases.h"
#include "parallel/pool.h"
#include "rnn/backward/backward.h"
#include "rnn/forward/forward.h"
#include "rnn/one_step.h"
#include "rnn/scratch.h"
#include "rnn/stream.h"

using namespace quadgate;
using namespace kernel_test;
using namespace network_cases;

namespace {

enum class Split { rows, units, directions, layers, grid, helpers, helpers_of_one, one_loop };
constexpr const char* kSplitNames[] = {"rows",           "units",   "directions",     "layers",
                                       "rows and units", "helpers", "helpers of one", "one loop"};
constexpr int kThreads = 4;  // enough for two of the splits at a time
constexpr int kGridThreads = 8;

// Counts of each way to split.
struct Seen {
  int rows, units, directions, layers, rows_of_directions, units_of_directions, rows_of_layers;
  int units_of_rows, backward_rows, backward_units, backward_units_of_rows, helpers, helpers_of_rows, helpers_of_one,
      one_loop, one_loop_of_directions, one_step_rows, one_step_units;
} seen = {};

template <class Real>
struct Results {
  std::vector<std::pair<const char*, std::vector<Real>>> all;
  void keep(const char* name, std::vector<Real> v) {
    bool finite = true;
    for (Real u : v) finite = finite && std::isfinite(u);
    if (!CHECK(finite)) std::fprintf(stderr, "  in %s\n", name);
    all.emplace_back(name, std::move(v));
  }
};

template <class Real>
void fill_nan(Real* at, size_t n) {
  if (n) std::memset(static_cast<void*>(at), 0xff, n * sizeof(Real));
}

// Leaves NaN where the next call finds its scratch memory.
void poison_scratch() {
  constexpr size_t kBytes = size_t(1) << 20;
  ScratchLease memory;
  fill_nan(memory.bytes(kBytes), kBytes);
}

bool not_interrupted() { return false; }

template <class Real>
ForwardCall<Real> forward_call(const Weights<Real>& w, const Inputs<Real>& in) {
  ForwardCall<Real> call = {};
  call.weights = &w;
  call.steps = in.steps;
  call.batch = in.batch;
  call.x = in.x.input();
  call.lengths = in.lengths.empty() ? nullptr : in.lengths.data();
  call.resets = in.resets.empty() ? nullptr : in.resets.data();
  call.resets_step = in.batch;
  call.resets_row = 1;
  call.h0 = in.states ? in.h0.data() : nullptr;
  call.c0 = in.states ? in.c0.data() : nullptr;
  call.interrupted = not_interrupted;
  return call;
}

template <class Real>
void run_forward(const Weights<Real>& w, const Inputs<Real>& in, Tape<Real>* tape, Results<Real>& results) {
  const Sizes& s = w.sizes;
  Sequence<Real> y(in.steps, in.batch, s.output(), in.batch_first);
  Sequence<Real> cells(in.steps, in.batch, s.directions * s.cell(), in.batch_first);
  const Guarded<Real> h(in.h0.size()), c(in.c0.size());
  ForwardCall<Real> call = forward_call(w, in);
  call.y = y.plane();
  if (s.cell()) call.cells = cells.plane();
  call.h = h.data();
  call.c = c.data();
  call.tape = tape;
  poison_scratch();
  CHECK(forward(call));
  results.keep("y", y.copy());
  results.keep("h", h.copy());
  if (!s.cell()) return;
  results.keep("cells", cells.copy());
  results.keep("c", c.copy());
  if (tape) return;
  // With the last cells alone, and with the half of a state.
  const auto whole = y.copy();
  call.cells = {};
  for (int left_out = 0; left_out < (in.states ? 3 : 1); ++left_out) {
    call.h0 = left_out == 1 ? nullptr : in.states ? in.h0.data() : nullptr;
    call.c0 = left_out == 2 ? nullptr : in.states ? in.c0.data() : nullptr;
    poison_scratch();
    CHECK(forward(call));
    const auto now = y.copy();
    CHECK(left_out || same_bits(now.data(), whole.data(), whole.size()));
    results.keep("y without cells", now);
    results.keep("h without cells", h.copy());
    results.keep("c without cells", c.copy());
  }
}

// Twice, the second time adding to the gradients, with less to do beside them.
template <class Real>
void run_backward(const Tape<Real>& tape, const Inputs<Real>& in, Results<Real>& results) {
  const Sizes& s = tape.weights->sizes;
  std::vector<LayerParameters<Real*>> layers(s.states(), LayerParameters<Real*>());
  std::vector<HighwayParameters<Real*>> highways(s.layers);
  Rows<Real> gradients;
  each_parameter<Real*>(s, layers.data(), highways.data(), [&](Real*& slot, size_t rows, size_t cols, int) {
    gradients.emplace_back(rows * cols);
    slot = gradients.back().data();
  });
  for (bool add : {false, true}) {
    Sequence<Real> dx(in.steps, in.batch, s.input, in.batch_first);
    const size_t norms = s.states() * in.steps * in.batch;
    const Guarded<Real> dh0(in.h0.size()), dc0(in.c0.size()), dh_norm(norms), dc_norm(norms);
    BackwardCall<Real> call = {};
    call.tape = &tape;
    call.dy = in.dy.input();
    call.dh0 = dh0.data();
    call.dc0 = dc0.data();
    call.gradients = layers.data();
    call.d_highways = highways.data();
    call.add = add;
    call.interrupted = not_interrupted;
    if (!add) {
      if (s.cell()) call.dcells = in.dcells.input();
      call.dh = in.dh.data();
      call.dc = in.dc.data();
      call.dx = dx.plane();
      call.dh_norm = dh_norm.data();
      call.dc_norm = dc_norm.data();
    }
    poison_scratch();
    CHECK(backward(call));
    for (const Guarded<Real>& one : gradients) results.keep(add ? "gradients twice" : "gradients", one.copy());
    results.keep("dh0", dh0.copy());
    if (s.cell()) results.keep("dc0", dc0.copy());
    if (add) continue;
    results.keep("dx", dx.copy());
    results.keep("dh_norm", dh_norm.copy());
    if (s.cell()) results.keep("dc_norm", dc_norm.copy());
  }
}

// Half of the steps at once and the others one by one; all rows as long as the longest.
template <class Real>
void run_stream(const Weights<Real>& w, const Inputs<Real>& in, Results<Real>& results) {
  const Sizes& s = w.sizes;
  Sequence<Real> y(in.steps, in.batch, s.output(), in.batch_first);
  Stream<Real> stream(s, in.batch);
  if (in.states) stream.set(in.h0.data(), in.c0.data());
  const size_t half = in.steps / 2;
  const unsigned char* resets = in.resets.empty() ? nullptr : in.resets.data();
  CHECK(stream.run(w, half, in.x.input(), resets, y.plane(), {}, not_interrupted));
  const Plane<const Real> x = in.x.input();
  for (size_t t = half; t < in.steps; ++t) {
    if (resets) {
      const std::unique_ptr<bool[]> mask(new bool[in.batch]);
      std::copy_n(resets + t * in.batch, in.batch, mask.get());
      stream.reset(mask.get());
    }
    poison_scratch();
    CHECK(stream.step(w, x.at(t, 0), x.row, y.plane().at(t, 0), y.plane().row, not_interrupted));
  }
  results.keep("stream's y", y.copy());
  results.keep("stream's h", {stream.h(), stream.h() + stream.h_size()});
  if (s.cell()) results.keep("stream's c", {stream.c(), stream.c() + stream.c_size()});
  if (!in.lengths.empty()) return;
  const auto& whole = results.all.front().second;  // y of an inference
  CHECK(same_bits(results.all[results.all.size() - (s.cell() ? 3 : 2)].second.data(), whole.data(), whole.size()));
}

// Inference, stream and training of a network.
template <class Real>
Results<Real> run(const Network<Real>& net, const Inputs<Real>& in, const std::shared_ptr<SpareTape<Real>>& spare) {
  Results<Real> results;
  const Sizes& s = net.sizes;
  run_forward<Real>(*net.weights, in, nullptr, results);
  if (s.directions == 1 && !s.options.reverse) run_stream(*net.weights, in, results);
  auto weights = net.weights;
  if (!in.masks.weight.empty())
    weights = std::make_shared<const Weights<Real>>(weights, in.masks.weight, s.options.weight_drop);
  auto make = [&] {
    return std::make_unique<Tape<Real>>(weights, spare, in.steps, in.batch,
                                        in.lengths.empty() ? nullptr : in.lengths.data(),
                                        in.resets.empty() ? nullptr : in.resets.data(), in.masks);
  };
  const auto tape = make();
  tape->each([](Buffer<Real>& b) { fill_nan(b.data(), b.size()); });
  run_forward<Real>(*weights, in, tape.get(), results);
  run_backward<Real>(*tape, in, results);
  return results;
}

// Comparing zeros would say nothing.
template <class Real>
bool any_nonzero(const Results<Real>& results, const char* name) {
  for (const auto& one : results.all)
    if (one.first == std::string(name))
      for (Real u : one.second)
        if (u != 0) return true;
  return false;
}

template <class Real>
void compare(const Results<Real>& got, const Results<Real>& want) {
  CHECK(got.all.size() == want.all.size());
  for (size_t i = 0; i < want.all.size(); ++i) {
    const auto &a = got.all[i].second, &b = want.all[i].second;
    if (!CHECK(a.size() == b.size() && same_bits(a.data(), b.data(), a.size())))
      std::fprintf(stderr, "  in %s, result %zu\n", want.all[i].first, i);
  }
}

// True if steps are no more than their cells, which is what one loop is for.
bool is_plain(const Case& what) {
  const Options& o = what.options;
  return !o.projection && o.layer_norm == LayerNorm::none && !what.resets && !(o.recurrent_dropout > 0) &&
         !(o.cell.zoneout_h > 0) && !(o.cell.zoneout_c > 0);
}

template <class Real>
Plan forward_plan(const Case& what, const Weights<Real>& w, size_t steps, size_t batch, size_t threads) {
  Work work = work_of(w, steps, batch, Pass::training_forward);
  work.whole_loop = is_plain(what);
  return choose_plan(work, threads);
}

// True if a network of this shape is split in the wanted way.
template <class Real>
bool splits(const Case& what, const Weights<Real>& w, Split split, size_t steps, size_t batch) {
  bool forward = false, backward = false;
  for (size_t threads = 2; threads <= size_t(split == Split::grid ? kGridThreads : kThreads); ++threads) {
    const Plan f = forward_plan(what, w, steps, batch, threads);
    const Plan b = choose_plan(work_of(w, steps, batch, Pass::backward), threads);
    forward = forward || (split == Split::rows         ? f.rows > 1 && f.directions * f.layers == 1
                          : split == Split::units      ? f.units > 1 && !f.one_loop
                          : split == Split::one_loop   ? f.one_loop
                          : split == Split::directions ? f.directions > 1
                          : split == Split::layers     ? f.layers > 1
                                                       : f.rows > 1 && f.units > 1);
    forward = forward || split == Split::helpers || split == Split::helpers_of_one;  // which backward passes alone have
    backward = backward || (split == Split::helpers          ? b.helpers > 0 && b.rows == batch
                            : split == Split::helpers_of_one ? b.helpers > 0 && b.rows == 1
                            : split == Split::units          ? b.units > 1
                            : split == Split::rows           ? b.rows > 1
                                                             : split != Split::grid || (b.rows > 1 && b.units > 1));
  }
  return forward && backward;
}

void count(const Plan& f, const Plan& b, size_t batch) {
  seen.rows += f.rows > 1, seen.units += f.units > 1;
  seen.directions += f.directions > 1, seen.layers += f.layers > 1;
  seen.rows_of_directions += f.rows > 1 && f.directions > 1;
  seen.units_of_directions += f.units > 1 && f.directions > 1;
  seen.rows_of_layers += f.rows > 1 && f.layers > 1;
  seen.backward_rows += b.rows > 1, seen.backward_units += b.units > 1;
  seen.units_of_rows += f.units > 1 && f.rows > 1, seen.backward_units_of_rows += b.units > 1 && b.rows > 1;
  seen.one_loop += f.one_loop, seen.one_loop_of_directions += f.one_loop && f.directions > 1;
  seen.helpers += b.helpers > 0, seen.helpers_of_rows += b.helpers > 0 && b.rows > 1;
  seen.helpers_of_one += b.helpers > 0 && b.rows == 1 && batch > 1;
}

// Runs a network of this shape with every number of threads from `fewest` on.
template <class Real>
void test_threads(const Case& what, const Network<Real>& net, size_t steps, size_t batch, size_t number, int fewest,
                  int most) {
  const Inputs<Real> in(what, net.sizes, steps, batch, number);
  const auto spare = std::make_shared<SpareTape<Real>>();
  set_num_threads(1);
  const Results<Real> want = run(net, in, spare);
  CHECK(any_nonzero(want, "y") && any_nonzero(want, "dx"));
  for (int threads = fewest; threads <= most; ++threads) {
    set_num_threads(threads);
    count(forward_plan(what, *net.weights, steps, batch, size_t(threads)),
          choose_plan(work_of(*net.weights, steps, batch, Pass::backward), size_t(threads)), batch);
    const int before = check::failed;
    compare(run(net, in, spare), want);
    if (check::failed != before)
      std::fprintf(stderr, "  %s, %d threads, H = %zu, B = %zu, T = %zu\n", what.name, threads, net.sizes.hidden, batch,
                   steps);
  }
}

struct Shapes {
  std::vector<size_t> blocks, batches, steps;
};

// The plan depends on the machine, so the smallest of some shapes that is split as wanted. A long one has more rows
// than the backward pass takes at a time, and gives more to the next layer than the forward pass keeps in L2.
template <class Real>
void test(const Case& what, Split split, size_t number, bool long_one) {
  const Shapes shapes = split == Split::rows             ? Shapes{{2, 4, 8, 16}, {26}, {5, 9, 17, 40, 100}}
                        : split == Split::units          ? Shapes{{12, 20, 40, 64, 128, 256}, {3, 1}, {4, 8, 16}}
                        : split == Split::directions     ? Shapes{{1, 3}, {2}, {6, 12, 24, 48, 100}}
                        : split == Split::grid           ? Shapes{{24, 40, 64, 100}, {13, 30, 60}, {4, 8}}
                        : split == Split::helpers        ? Shapes{{1, 3, 9}, {1 + number / 3 % 2}, {1, 3, 8}}
                        : split == Split::helpers_of_one ? Shapes{{1, 3, 9}, {3, 2, 4}, {1, 2, 8, 25}}
                        : split == Split::one_loop
                            ? Shapes{{1, 2, 3, 9, 20, 40, 80}, {1 + number / 2 % 2, 1}, {150, 400}}
                            : Shapes{{1, 3, 8}, {2, 1}, {33, 66, 132, 264}};
  for (size_t blocks : shapes.blocks) {
    Options o = what.options;
    const size_t H = blocks * (sizeof(Real) == 4 ? kernels().f32.width : kernels().f64.width) + 3;
    if (o.projection) o.projection = H - H / 4;
    const size_t input = split == Split::helpers || split == Split::helpers_of_one ? 3000
                         : split == Split::one_loop                                ? 900
                                                                                   : 5 + number % 4;
    const Network<Real> net({input, H, what.layers, what.directions, what.bias, o});
    for (size_t batch : shapes.batches)
      for (size_t steps : shapes.steps) {
        if (long_one && split == Split::rows) steps = 1200 / batch;
        if (long_one && split == Split::units)
          steps = std::max(600 / batch, cache_sizes().l2 / 3 / (batch * net.sizes.output() * sizeof(Real)));
        if (!splits(what, *net.weights, split, steps, batch)) continue;
        if (long_one)
          test_threads(what, net, steps, batch, number, 3, 3);
        else
          test_threads(what, net, steps, batch, number, split == Split::grid ? 4 : 2,
                       split == Split::grid    ? kGridThreads
                       : split == Split::units ? kThreads + int(what.directions) - 2
                                               : kThreads);
        return;
      }
  }
  if (split == Split::helpers_of_one) return;  // others share the rows wherever that is as good, but not in all cases
  std::fprintf(stderr, "%s is never split over %s\n", what.name, kSplitNames[int(split)]);
  CHECK(false);
}

// Steps of layers that are no more than their cells: without a pass, threads share the units of a few rows, or have
// parts of many.
template <class Real>
void test_one_step(const Case& what, size_t number, size_t batch) {
  constexpr size_t kMost = 3;
  for (size_t blocks : {2, 4, 8, 16, 32, 64, 128}) {
    const size_t H = blocks * kernels().f32.width - 3;
    const Network<Real> net({40, H, what.layers, what.directions, what.bias, what.options});
    if (!only_cells(net.sizes, batch)) return;
    const Plan plan = choose_plan(work_of_one_step(*net.weights, batch), kMost);
    if (plan.threads() == 1 || !rows_or_units(plan)) continue;
    for (size_t steps : {1, 3}) test_threads(what, net, steps, batch, number, 2, kMost);
    ++(plan.rows > 1 ? seen.one_step_rows : seen.one_step_units);
    return;
  }
  CHECK(false);
}

// Calls at the same time that share weights, whose back panels the first to need them makes, and a spare tape.
template <class Real>
void test_concurrent(const Case& what) {
  const size_t H = 2 * kernels().f32.width + 3;
  Options o = what.options;
  if (o.projection) o.projection = H - 4;
  const Network<Real> net({6, H, what.layers, what.directions, what.bias, o});
  const Inputs<Real> in(what, net.sizes, 9, 26, 1);
  const auto spare = std::make_shared<SpareTape<Real>>();
  set_num_threads(3);
  Results<Real> results[3];
  std::vector<std::thread> callers;
  for (Results<Real>& one : results) callers.emplace_back([&] { one = run(net, in, spare); });
  for (std::thread& one : callers) one.join();
  set_num_threads(1);
  const Results<Real> want = run(net, in, spare);
  for (const Results<Real>& one : results) compare(one, want);
}

}  // namespace

// QUADGATE_TEST_NETWORKS=N: one network of N, where each takes long. All of them have every kind of split.
int main() {
  const char* given = std::getenv("QUADGATE_TEST_NETWORKS");
  const size_t one_of = given ? std::max(1, std::atoi(given)) : 1;
  size_t number = 0;
  for (const Case& what : cases()) {
    ++number;
    if (number / 2 % one_of != 0) continue;
    auto either = [&](Split split, bool long_one) {
      number % 2 ? test<float>(what, split, number, long_one) : test<double>(what, split, number, long_one);
    };
    either(Split::rows, false);
    either(Split::units, false);
    if (what.directions == 2) either(Split::directions, false);
    if (what.directions == 1 && what.layers > 1 && !what.options.reverse) either(Split::layers, false);
    if (number % 6 == 1) either(Split::grid, false);
    if (number % 3 == 2) either(Split::helpers, false);
    if (number % 6 == 3) either(Split::helpers_of_one, false);
    if (is_plain(what) && (number == 1 || number % 10 == 2)) either(Split::one_loop, false);
    if (number % 4 == 0) test_concurrent<float>(what);
    for (size_t batch : {5, 40})
      number % 2 ? test_one_step<float>(what, number, batch) : test_one_step<double>(what, number, batch);
    if (what.long_one) either(what.directions == 2 ? Split::rows : Split::units, true);
  }
  std::printf("rows %d, units %d, directions %d, layers %d, rows of directions %d, units of directions %d, ", seen.rows,
              seen.units, seen.directions, seen.layers, seen.rows_of_directions, seen.units_of_directions);
  std::printf("one loop %d, of directions %d, ", seen.one_loop, seen.one_loop_of_directions);
  std::printf(
      "rows of layers %d, units of rows %d; backward: rows %d, units %d, units of rows %d, helpers %d, %d, %d\n",
      seen.rows_of_layers, seen.units_of_rows, seen.backward_rows, seen.backward_units, seen.backward_units_of_rows,
      seen.helpers, seen.helpers_of_rows, seen.helpers_of_one);
  if (one_of == 1) {
    CHECK(seen.rows && seen.units && seen.directions && seen.layers && seen.backward_rows && seen.backward_units);
    CHECK(seen.one_step_rows && seen.one_step_units);
    CHECK(seen.rows_of_directions && seen.units_of_directions && seen.rows_of_layers);
    CHECK(seen.one_loop && seen.one_loop_of_directions);
    CHECK(seen.units_of_rows && seen.backward_units_of_rows && seen.helpers && seen.helpers_of_rows);
    CHECK(seen.helpers_of_one);
  }
  return check::result();
}
