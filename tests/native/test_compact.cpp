// Products with weights of 16 and 8 bits, of every instruction set and every better one that this machine has, against
// plain loops: the same bits, since the terms are the same numbers in the same order, and sums of integers are exact.
#include <cmath>
#include <vector>

#include "check.h"
#include "cpu/dispatch.h"
#include "judge.h"
#include "kernel_test.h"
#include "memory/packing.h"

using namespace quadgate;
using kernel_test::engine;
using kernel_test::Guarded;
using kernel_test::uniform;

namespace {

// The value of a finite float16 or bfloat16, from its definition.
float value_of(uint16_t bits, WeightType type) {
  if (type == WeightType::bfloat16) {
    const uint32_t whole = uint32_t(bits) << 16;
    float f;
    std::memcpy(&f, &whole, 4);
    return f;
  }
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
  return float(bits & 0x8000 ? -size : size);
}

std::vector<uint16_t> random_bits(size_t n, WeightType type) {
  std::vector<uint16_t> all(n);
  for (uint16_t& bits : all) {
    bits = uint16_t(engine()());
    // Finite, and not so large that sums overflow; for float16 all exponents down to the denormals.
    bits = type == WeightType::float16 ? bits & 0xbfff : (bits & 0x80ff) | 0x3f00;
  }
  return all;
}

struct Sizes {
  size_t rows, n_k, units;
};

// lines = start + rows @ panels, by tiles of any size, near and far, for all panels, two at a time of few rows.
template <class Pack>
std::vector<float> run(const CompactFunctions& f, const KernelTable& table, const Sizes& n, WeightType type,
                       const std::vector<const void*>& rows, const std::vector<float>& row_scales,
                       const std::vector<int32_t>& row_zeros, const std::vector<float>& scales,
                       const std::vector<float>& start, Pack&& pack) {
  const PanelShape shape = {4, n.units, table.f32.width};
  const size_t line = shape.line(), bytes = compact_panel_bytes(type, shape, n.n_k);
  Guarded<char> panels(bytes * shape.blocks());
  std::vector<int32_t> sums(shape.blocks() * line);
  std::vector<float> packed_scales(shape.blocks() * line);
  pack(shape, panels.data(), sums.data());
  if (!scales.empty()) pack_bias(scales.data(), shape, packed_scales.data());
  std::vector<float> lines(start.size());
  Guarded<float> wide(kWideK * line);
  for (size_t p = 0; p < shape.blocks();) {
    CompactProduct s = {};
    s.n_panels = n.rows <= f.pair_rows && p + 1 < shape.blocks() ? 2 : 1;
    s.panels = s.next = panels.data() + p * bytes;
    s.panel_bytes = bytes;
    s.scales = packed_scales.data() + p * line;
    s.sums = sums.data() + p * line;
    s.n_k = n.n_k;
    s.rows = const_cast<const void* const*>(rows.data());
    s.row_scales = row_scales.data();
    s.row_zeros = row_zeros.data();
    s.from = start.data() + p * line;
    s.from_stride = shape.blocks() * line;
    s.lines = lines.data() + p * line;
    s.row_stride = shape.blocks() * line;
    s.n_rows = n.rows;
    s.n_vectors = int(shape.vectors());
    s.wide = wide.data();
    if (f.begin && n.rows >= kFewestTileRows) f.begin(n.rows);
    f.product(s);
    // Weights from memory are read by other code, with the same sums.
    const std::vector<float> near = lines;
    s.of_bytes = ~size_t(0);
    s.far = true;
    f.product(s);
    CHECK(std::memcmp(near.data(), lines.data(), lines.size() * sizeof(float)) == 0);
    if (f.end && n.rows >= kFewestTileRows) f.end();
    p += s.n_panels;
  }
  return lines;
}

// The packed line's element of unit u of gate g.
size_t place(const PanelShape& shape, size_t row, size_t g, size_t u) {
  const size_t W = shape.width;
  return row * shape.blocks() * shape.line() + (u / W * shape.vectors() + g) * W + u % W;
}

float multiply_add(float a, float b, float c, bool fused) { return fused ? std::fma(a, b, c) : a * b + c; }

void test_16_bits(const KernelTable& table, WeightType type, const Sizes& n) {
  const bool fused = std::strcmp(table.name, "baseline") != 0;
  const PanelShape shape = {4, n.units, table.f32.width};
  const auto weights = random_bits(4 * n.units * n.n_k, type);
  const auto start = uniform<float>(n.rows * shape.blocks() * shape.line());
  const kernel_test::Rows<float> x = kernel_test::random_rows<float>(n.rows, n.n_k);
  std::vector<const void*> rows;
  for (const auto& row : x) rows.push_back(row.data());
  auto want = start;
  for (size_t r = 0; r < n.rows; ++r)
    for (size_t g = 0; g < 4; ++g)
      for (size_t u = 0; u < n.units; ++u) {
        float& sum = want[place(shape, r, g, u)];
        for (size_t k = 0; k < n.n_k; ++k)
          sum = multiply_add(x[r][k], value_of(weights[(g * n.units + u) * n.n_k + k], type), sum, fused);
      }
  for (const CompactFunctions& f : compact_functions(table, type, true)) {
    CHECK(f.few_rows == table.compact.of_type[int(type)].few_rows);
    const auto got = run(f, table, n, type, rows, {}, {}, {}, start, [&](auto& s, void* panels, int32_t* sums) {
      pack_compact(weights.data(), type, s, n.n_k, panels, sums);
    });
    for (size_t r = 0; r < n.rows; ++r)
      for (size_t g = 0; g < 4; ++g)
        for (size_t u = 0; u < n.units; ++u) CHECK(got[place(shape, r, g, u)] == want[place(shape, r, g, u)]);
  }
}

void test_int8(const KernelTable& table, const Sizes& n) {
  const bool fused = std::strcmp(table.name, "baseline") != 0;
  const PanelShape shape = {4, n.units, table.f32.width};
  std::vector<int8_t> weights(4 * n.units * n.n_k);
  // The extremes among them: products of all signs, of which sums in 16 bits would saturate.
  for (int8_t& q : weights) q = engine()() % 3 ? int8_t(int(engine()() % 255) - 127) : engine()() % 2 ? 127 : -127;
  const auto scales = uniform<float>(4 * n.units);
  const auto start = uniform<float>(n.rows * shape.blocks() * shape.line());
  kernel_test::Rows<float> x = kernel_test::random_rows<float>(n.rows, n.n_k);
  std::fill_n(weights.begin(), n.n_k, int8_t(127));
  for (size_t k = 0; k < n.n_k; ++k) {  // the largest sum that there is, and rows of one sign and of none
    x[0][k] = 0.5f;
    if (n.rows > 3) x[1][k] = std::fabs(x[1][k]), x[2][k] = -std::fabs(x[2][k]), x[3][k] = 0;
  }
  for (const CompactFunctions& f : compact_functions(table, WeightType::int8, true)) {
    const size_t row_bytes = compact_row_bytes(n.n_k);
    Guarded<unsigned char> bytes((n.rows + kTileRows - 1) / kTileRows * kTileRows * row_bytes);
    std::vector<const void*> rows;
    std::vector<float> row_scales(n.rows);
    std::vector<int32_t> row_zeros(n.rows);
    auto want = start;
    for (const auto& row : x) rows.push_back(row.data());
    f.quantize_rows(rows.data(), n.rows, n.n_k, bytes.data(), row_scales.data(), row_zeros.data());
    for (size_t r = 0; r < n.rows; ++r) {
      CHECK(rows[r] == bytes.data() + r * row_bytes);
      float most = 1e-30f, least = 0, half = 127.5f;
      for (size_t k = 0; k < n.n_k; ++k) most = std::max(most, x[r][k]), least = std::min(least, x[r][k]);
      if (n.n_k > kFullRangeK) most = std::max(most, -least), least = -most, half = 127;
      const float range = most / 2 - least / 2, inverse = half / range;
      CHECK(row_scales[r] == range / half);
      const int zero = int(-least * inverse + 0.5f);
      CHECK(row_zeros[r] == zero || row_zeros[r] == zero - 128);
      for (size_t g = 0; g < 4; ++g)
        for (size_t u = 0; u < n.units; ++u) {
          const size_t row = g * n.units + u;
          int64_t sum = 0;
          for (size_t k = 0; k < n.n_k; ++k)
            sum += std::min(int64_t(std::nearbyint(x[r][k] * inverse)), int64_t(255 - zero)) * weights[row * n.n_k + k];
          CHECK(sum == int32_t(sum));
          float& line = want[place(shape, r, g, u)];
          line = multiply_add(float(sum), row_scales[r] * scales[row], line, fused);
        }
    }
    const auto got = run(f, table, n, WeightType::int8, rows, row_scales, row_zeros, scales, start,
                         [&](auto& s, void* panels, int32_t* sums) {
                           pack_compact(weights.data(), WeightType::int8, s, n.n_k, panels, sums);
                         });
    for (size_t r = 0; r < n.rows; ++r)
      for (size_t g = 0; g < 4; ++g)
        for (size_t u = 0; u < n.units; ++u) CHECK(got[place(shape, r, g, u)] == want[place(shape, r, g, u)]);
  }
}

// Every float16 and its widened value, through a product with 1.
void test_every_float16(const KernelTable& table) {
  const PanelShape shape = {4, 16, table.f32.width};
  const float one = 1;
  for (const CompactFunctions& f : compact_functions(table, WeightType::float16, true))
    for (uint32_t first = 0; first < 0x10000; first += 64) {
      if ((first & 0x7fff) >= 0x7c00) continue;  // infinity and NaN
      std::vector<uint16_t> weights(64);
      for (uint32_t i = 0; i < 64; ++i) weights[i] = uint16_t(first + i);
      const std::vector<float> start(shape.blocks() * shape.line());
      const auto got = run(f, table, {1, 1, 16}, WeightType::float16, {&one}, {}, {}, {}, start,
                           [&](auto& s, void* panels, int32_t* sums) {
                             pack_compact(weights.data(), WeightType::float16, s, 1, panels, sums);
                           });
      for (size_t i = 0; i < 64; ++i)
        CHECK(got[place(shape, 0, i / 16, i % 16)] == value_of(weights[i], WeightType::float16));
    }
}

// AMX's tiles are costly to save on a switch of threads: a product leaves none of them in use.
void test_tiles_are_released(const KernelTable& table) {
#if defined(__x86_64__)
  const size_t n_k = 128, rows = 20;
  const PanelShape shape = {4, 16, table.f32.width};
  const std::vector<int8_t> weights(shape.total() * n_k, 1);
  const std::vector<float> ones(shape.blocks() * shape.line(), 1);
  std::vector<char> panels(shape.blocks() * compact_panel_bytes(WeightType::int8, shape, n_k));
  std::vector<int32_t> sums(ones.size());
  pack_compact(weights.data(), WeightType::int8, shape, n_k, panels.data(), sums.data());
  const kernel_test::Rows<float> x = kernel_test::random_rows<float>(rows, n_k);
  std::vector<const float*> x_rows;
  for (const auto& row : x) x_rows.push_back(row.data());
  Guarded<float> pre(rows * ones.size());
  Guarded<char> work(compact_work_bytes(rows, n_k, table.f32.width));
  Project<float> step = {};
  step.input_size = n_k;
  step.x = x_rows.data();
  step.pre = pre.data();
  step.n_rows = rows;
  step.n_blocks = step.block_end = shape.blocks();
  for (const CompactFunctions& f : compact_functions(table, WeightType::int8, true)) {
    const CompactMatrix matrix = {panels.data(), panels.size() / shape.blocks(), ones.data(), sums.data(), n_k};
    table.compact.project({&step, matrix, f, work.data()});
    if (!f.begin) continue;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));  // the state that is in use
    CHECK((low & (3u << 17)) == 0);
  }
#else
  (void)table;
#endif
}

// A matrix of int8 in panels, which lie at `panels`.
struct Int8 {
  std::vector<int32_t> sums;
  std::vector<float> scales;
  CompactMatrix matrix;
  Int8(const PanelShape& shape, size_t n_k, char* panels)
      : sums(shape.blocks() * shape.line()), scales(uniform<float>(sums.size())) {
    std::vector<int8_t> weights(shape.total() * n_k);
    for (int8_t& q : weights) q = int8_t(int(engine()() % 255) - 127);
    for (float& s : scales) s *= 0.002f;
    pack_compact(weights.data(), WeightType::int8, shape, n_k, panels, sums.data());
    matrix = {panels, compact_panel_bytes(WeightType::int8, shape, n_k), scales.data(), sums.data(), n_k};
  }
};

// The product of many rows by all functions of int8: the same bits as by the instruction set's own.
void test_projects(const KernelTable& table, size_t n_rows, size_t n_k, size_t units, bool with_bias) {
  const PanelShape shape = {4, units, table.f32.width};
  const size_t row = shape.blocks() * shape.line();
  Guarded<char> panels(shape.blocks() * compact_panel_bytes(WeightType::int8, shape, n_k));
  const Int8 matrix(shape, n_k, panels.data());
  const auto bias = uniform<float>(row);
  const kernel_test::Rows<float> x = kernel_test::random_rows<float>(n_rows, n_k);
  std::vector<const float*> x_rows;
  for (const auto& values : x) x_rows.push_back(values.data());
  std::vector<float> first;
  auto all = compact_functions(table, WeightType::int8, true);
  for (size_t f = all.size(); f-- > 0;) {
    Guarded<float> pre(n_rows * row);
    Guarded<char> work(compact_work_bytes(n_rows, n_k, table.f32.width));
    Project<float> step = {};
    step.bias = with_bias ? bias.data() : nullptr;
    step.input_size = n_k;
    step.x = x_rows.data();
    step.pre = pre.data();
    step.n_rows = n_rows;
    step.n_blocks = step.block_end = shape.blocks();
    step.n_vectors = int(shape.vectors());
    table.compact.project({&step, matrix.matrix, all[f], work.data()});
    const std::vector<float> got(pre.data(), pre.data() + n_rows * row);
    if (first.empty()) first = got;
    CHECK(std::memcmp(first.data(), got.data(), got.size() * sizeof(float)) == 0);
  }
}

// A step's input product: in it, ahead of it, and ahead without the product with h; and in it, of a cell with peepholes
// and clips.
enum class Way { within, ahead, without_h, options };

// Two steps by all functions of int8: the same bits as by the instruction set's own product, one panel after the other,
// and the cell.
void test_steps(const KernelTable& table, size_t n_rows, size_t n_x, size_t n_h, size_t units, Way way) {
  const bool ahead = way == Way::ahead || way == Way::without_h;
  CellOptions<float> options = judge::plain_options<float>();
  options.gate_clip = options.cell_clip = 0.75f;
  const auto peephole = uniform<float>(3 * units);
  const PanelShape shape = {4, units, table.f32.width};
  const size_t row = shape.blocks() * shape.line();
  Guarded<char> panels(shape.blocks() * (compact_panel_bytes(WeightType::int8, shape, n_x) +
                                         compact_panel_bytes(WeightType::int8, shape, n_h)));
  const Int8 ih(shape, n_x, panels.data());
  const Int8 hh(shape, n_h, panels.data() + shape.blocks() * ih.matrix.panel_bytes);
  const auto bias = uniform<float>(row), pre = uniform<float>(2 * n_rows * row), c0 = uniform<float>(n_rows * units);
  const auto x = uniform<float>(2 * n_rows * n_x);
  const auto h = uniform<float>(n_rows * n_h);
  std::vector<float> first;
  for (size_t f = 0; f <= compact_functions(table, WeightType::int8, true).size(); ++f) {
    // First as the table has it, which knows no better way.
    const auto all = compact_functions(table, WeightType::int8, true);
    const CompactFunctions& functions = f ? all[f - 1] : all.back();
    std::vector<float> c = c0, y(2 * n_rows * n_h);
    std::vector<ForwardRow<float>> rows(n_rows);
    for (size_t r = 0; r < n_rows; ++r) {
      rows[r] = {};
      rows[r].x = x.data() + r * n_x;
      rows[r].h = h.data() + r * n_h;
      rows[r].pre = ahead ? pre.data() + r * row : nullptr;
      rows[r].c_prev = rows[r].c = c.data() + r * units;
      rows[r].y = y.data() + r * n_h;
    }
    Guarded<char> work(compact_work_bytes(n_rows, std::max(n_x, n_h), table.f32.width));
    ForwardStep<float> step = {};
    step.hidden_size = units;
    step.bias = bias.data();
    step.input_size = n_x;
    step.recurrent_size = way == Way::without_h ? 0 : n_h;
    if (way == Way::options) step.options = &options, step.peephole = peephole.data();
    step.rows = rows.data();
    step.n_rows = n_rows;
    step.block_end = shape.blocks();
    step.use_pre = ahead;
    step.n_more = 1;
    step.next.x = ptrdiff_t(n_rows * n_x);
    step.next.pre = ahead ? ptrdiff_t(n_rows * row) : 0;
    step.next.y = ptrdiff_t(n_rows * n_h);
    table.compact.forward({&step, ih.matrix, hh.matrix, functions, work.data()});
    y.insert(y.end(), c.begin(), c.end());
    if (f == 0) first = y;
    CHECK(std::memcmp(first.data(), y.data(), y.size() * sizeof(float)) == 0);
  }
}

}  // namespace

int main() {
  for (const char* name : supported_isas()) {
    const KernelTable& table = *kernel_table(name);
    test_every_float16(table);
    test_tiles_are_released(table);
    for (size_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 31, 32, 33, 41, 50, 70})
      for (size_t n_x : {1, 6, 60, 64, 70, 130})
        for (size_t units : {61, 64, 100})
          test_steps(table, rows, n_x, units, units, (rows + n_x) % 3 == 0 ? Way::ahead : Way::within);
    for (size_t rows : {15, 16, 29, 32, 64})  // all of the work memory
      test_steps(table, rows, 128, 128, 128, Way::within);
    test_steps(table, 50, 300, 130, 130, Way::within);
    test_steps(table, 70, 300, 130, 130, Way::within);
    test_steps(table, 70, 3, 420, 420, Way::ahead);
    for (size_t rows : {1, 2, 3, 4, 7})
      for (size_t units : {5, 16, 33, 100}) {  // one panel, pairs of panels, and one that is left over
        for (Way way : {Way::ahead, Way::without_h, Way::options}) test_steps(table, rows, 130, units, units, way);
        for (bool with_bias : {false, true}) test_projects(table, rows, 130, units, with_bias);
      }
    for (size_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 16, 19, 32, 33, 49})
      for (size_t n_k : {1, 2, 3, 4, 5, 7, 16, 60, 61, 63, 64, 65, 125, 130, 192})
        for (size_t units : {1, 5, 16, 33}) {
          const Sizes n = {rows, n_k, units};
          test_16_bits(table, WeightType::float16, n);
          test_16_bits(table, WeightType::bfloat16, n);
          test_int8(table, n);
        }
    for (size_t rows : {1, 4, 5})
      for (size_t n_k : {kMostTileK, kMostTileK + 1, kFullRangeK, kFullRangeK + 3}) test_int8(table, {rows, n_k, 1});
  }
  return check::result();
}
