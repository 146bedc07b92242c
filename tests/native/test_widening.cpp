// Networks with weights of 16 bits whose products read floats, both matrices, one of them, or none: the bits of a
// float32 network with the same weights.
#include <cstring>
#include <set>
#include <utility>

#include "cpu/caches.h"
#include "cpu/dispatch.h"
#include "cpu/throughput.h"
#include "network_cases.h"
#include "parallel/this_thread.h"
#include "rnn/forward/forward.h"

using namespace network_cases;

namespace {

constexpr WeightType kTypes[] = {WeightType::float16, WeightType::bfloat16};

// A random number that both types hold: seven bits behind the point, exponents of -8 to -3.
float number() {
  const uint32_t r = uint32_t(engine()()), bits = (r & 1) << 31 | (119 + r / 2 % 6) << 23 | (r >> 8 & 127) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

uint16_t stored(float f, WeightType type) {
  uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  if (type == WeightType::bfloat16) return uint16_t(bits >> 16);
  return uint16_t((bits >> 16 & 0x8000) | ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 1023));
}

// The same network twice.
struct Pair {
  Sizes sizes;
  std::vector<std::vector<float>> values;
  std::vector<std::vector<uint16_t>> bits;
  std::unique_ptr<const Weights<float>> plain, compact;

  Pair(size_t layers, size_t directions, size_t input, size_t hidden, WeightType type)
      : sizes{input, hidden, layers, directions, true, Options()} {
    std::vector<LayerParameters<const float*>> floats(sizes.states(), LayerParameters<const float*>());
    std::vector<LayerParameters<const void*>> small(sizes.states(), LayerParameters<const void*>()), scales = small;
    std::vector<HighwayParameters<const float*>> no_floats(layers);
    std::vector<HighwayParameters<const void*>> none(layers);
    auto matrix = [&](size_t n, const float*& slot, const void*& small_slot) {
      values.emplace_back(n);
      bits.emplace_back(n);
      for (size_t i = 0; i < n; ++i) bits.back()[i] = stored(values.back()[i] = number(), type);
      slot = values.back().data();
      small_slot = bits.back().data();
    };
    for (size_t i = 0; i < floats.size(); ++i) {
      matrix(4 * hidden * sizes.input_of(i / directions), floats[i].weight_ih, small[i].weight_ih);
      matrix(4 * hidden * hidden, floats[i].weight_hh, small[i].weight_hh);
      values.push_back(uniform<float>(4 * hidden));
      small[i].bias = floats[i].bias = values.back().data();
    }
    plain = std::make_unique<const Weights<float>>(sizes, floats.data(), no_floats.data());
    Sizes s = sizes;
    s.options.weights = type;
    compact = std::make_unique<const Weights<float>>(s, small.data(), scales.data(), none.data(), none.data());
  }
};

std::vector<float> run(const Weights<float>& w, size_t steps, size_t batch, const Sequence<float>& x, bool state) {
  const Sizes& s = w.sizes;
  Sequence<float> y(steps, batch, s.output(), false);
  const std::vector<float> start(s.states() * batch * s.hidden, 0.25f);
  std::vector<float> h(start.size()), c(start.size());
  ForwardCall<float> call = {};
  call.weights = &w;
  call.steps = steps;
  call.batch = batch;
  call.x = x.input();
  if (state) call.h0 = call.c0 = start.data();
  call.y = y.plane();
  call.h = h.data();
  call.c = c.data();
  CHECK(forward(call));
  std::vector<float> all = y.copy();
  all.insert(all.end(), h.begin(), h.end());
  all.insert(all.end(), c.begin(), c.end());
  return all;
}

// The kinds that calls of one thread had floats of: kept by the thread, or made for the call.
using Kinds = std::set<std::pair<bool, bool>>;
Kinds kept_kinds, widened_kinds;

// After several calls like this one, and no others, since the thread kept nothing.
void note(const Weights<float>& w, const Reads& call) {
  const FloatMatrices kept = w.float_matrices(call), widened = w.widened(0, call);
  kept_kinds.insert({kept.ih, kept.hh});
  widened_kinds.insert({widened.ih, widened.hh});
  size_t wanted = 0, found = 0;
  for (size_t l = 0; l < w.sizes.layers; ++l) wanted += w.sizes.directions * w.float_elements(l, kept);
  for (const KeptFloats::Slot& slot : this_thread()->kept.slots) found += slot.floats.size();
  CHECK(found == wanted);
}

// In first calls floats are made for the call, if at all; the second of two calls makes those that later ones find.
void test_call(const Pair& p, size_t steps, size_t batch) {
  Sequence<float> x(steps, batch, p.sizes.input, false);
  x.randomise();
  for (bool state : {true, false}) {
    this_thread()->kept = KeptFloats();
    const std::vector<float> want = run(*p.plain, steps, batch, x, state);
    for (int call = 0; call < 3; ++call) CHECK(run(*p.compact, steps, batch, x, state) == want);
    note(*p.compact, {batch, steps, 1, !state && steps == 1});
    if (state) continue;
    set_num_threads(3);
    for (int call = 0; call < 2; ++call) CHECK(run(*p.compact, steps, batch, x, state) == want);
    set_num_threads(1);
  }
}

}  // namespace

int main() {
  set_num_threads(1);
  const size_t width = kernels().f32.width, l2 = l2_bytes();
  // Several rows read floats from a fast L3, too, but for those of large networks.
  const bool fast_beyond = core_throughput().beyond > 16 && core_throughput().multiply_adds <= 64 && width == 16;
  const double beyond = fast_beyond ? std::max(4.0 * double(l2), 0.375 * double(cache_sizes().l3)) : 4.0 * double(l2);
  auto columns = [&](double bytes, size_t hidden) {  // whose floats take so many bytes
    return size_t(bytes / double(sizeof(float) * PanelShape{4, hidden, width}.blocks() * 4 * width)) + 1;
  };
  for (WeightType type : kTypes) {
    const size_t wide = 6 * width + 3;                                                   // with a narrow last panel
    const size_t large = size_t(std::sqrt(double(l2) / 4 / sizeof(float))) + width / 4;  // weight_hh is all of L2
    test_call(Pair(1, 1, columns(double(l2) / 4, wide), wide, type), 9, 5);
    const Pair of_large_input(1, 1, columns(1.1 * beyond, wide), wide, type);
    test_call(of_large_input, 2, 3);  // weight_hh alone; of two rows none where these are widened as fast
    test_call(of_large_input, 2, 2);
    // Three threads have three times the L2, but one L3.
    CHECK(!of_large_input.compact->float_matrices({1, 2, 3, false}).ih);
    test_call(of_large_input, 4, 1);
    test_call(Pair(1, 1, columns(double(l2) / 8, wide), wide, type), 300, 1);
    for (size_t batch : {1, 3, 13}) {
      test_call(Pair(1, 1, 100, large, type), 12, batch);  // weight_ih alone, ahead of the time loop, or both
      test_call(Pair(1, 1, 40, large, type), 1, batch);    // or of a step without a state
    }
    test_call(Pair(2, 2, 60, large / 2, type), 12, 1);
    test_call(Pair(3, 1, 60, wide, type), 90, 3);
    const Pair deep(5, 1, large / 2, large / 2, type);  // the layers take turns in L2 in few steps, not in many
    // Two rows widen float16 as fast as they read floats where vectors of 64 bytes are split, and both types beside a
    // fast L3 where they are not; three do not.
    const bool split = fast_beyond && type == WeightType::float16;
    const bool cheap = split || (core_throughput().beyond > 16 && !fast_beyond && width == 16);
    const double deep_bytes = 5.0 * double(deep.compact->float_elements(0, {true, true})) * sizeof(float);
    CHECK(!deep.compact->float_matrices({2, 2, 1, false}).hh);
    CHECK(deep.compact->float_matrices({2, 12, 1, false}).hh == !cheap);
    CHECK(deep.compact->float_matrices({3, 12, 1, false}).hh);
    if (split)
      CHECK(deep.compact->float_matrices({3, 2, 1, false}).hh == (deep_bytes <= 0.375 * double(cache_sizes().l3)));
    test_call(deep, 2, 2);
  }
  const Kinds all = {{false, false}, {false, true}, {true, false}, {true, true}};
  CHECK(kept_kinds == all);
  for (auto kind : {std::pair(false, false), std::pair(true, false), std::pair(true, true)})
    CHECK(widened_kinds.count(kind));
  return check::result();
}
