// Steps and products of networks with compact weights: as in forward.h and project.h, but sums go through memory
// between the product, which knows the weights' type, and the cell, which is compiled once for all types.
#pragma once

#include "kernels/compact_cell.h"
#include "kernels/compact_product.h"
#include "kernels/forward.h"
#include "kernels/int8_product.h"

namespace quadgate {
namespace QG_ISA {
namespace {

// Pieces of the memory of a call; compact_work_bytes is their sum.
struct CompactPieces {
  char* at;
  template <class Element>
  QG_INLINE Element* take(size_t n) {
    Element* piece = reinterpret_cast<Element*>(at);
    at += compact_round_up(n * sizeof(Element));
    return piece;
  }
};

// The rows of a product as it takes them: floats until `quantize`.
struct CompactRows {
  const void** rows;
  float* scales;
  int32_t* zeros;
  unsigned char* bytes;
  QG_INLINE CompactRows(CompactPieces& pieces, const CompactFunctions& f, size_t n_rows, size_t n_k)
      : rows(pieces.take<const void*>(n_rows)),
        scales(pieces.take<float>(n_rows)),
        zeros(pieces.take<int32_t>(n_rows)),
        bytes(nullptr) {
    const size_t readable = (n_rows + kTileRows - 1) / kTileRows * kTileRows;
    if (f.quantize_rows) bytes = pieces.take<unsigned char>(readable * compact_row_bytes(n_k));
  }
  QG_INLINE QuantizedRows all() const { return {bytes, scales, zeros}; }
  QG_INLINE void quantize(const CompactFunctions& f, size_t n_rows, size_t n_k) {
    if (f.quantize_rows) f.quantize_rows(rows, n_rows, n_k, bytes, scales, zeros);
  }
};

// lines = from + rows [first, first + n_rows) @ n_panels panels from `panel` on.
QG_INLINE void add_product(const CompactFunctions& f, const CompactMatrix& m, const CompactRows& rows, size_t first,
                           size_t n_rows, size_t panel, size_t n_panels, size_t next, int n_vectors, const float* from,
                           size_t from_stride, float* lines, size_t row_stride, size_t of_bytes, float* wide) {
  const char* panels = static_cast<const char*>(m.panels);
  const size_t line = n_vectors * size_t(VF::kWidth);
  CompactProduct s;
  s.panels = panels + panel * m.panel_bytes;
  s.next = panels + next * m.panel_bytes;
  s.panel_bytes = m.panel_bytes;
  s.scales = m.scales ? m.scales + panel * line : nullptr;
  s.sums = m.sums ? m.sums + panel * line : nullptr;
  s.n_k = m.n_k;
  s.rows = rows.rows + first;
  s.row_scales = rows.scales + first;
  s.row_zeros = rows.zeros + first;
  s.from = from;
  s.from_stride = from_stride;
  s.lines = lines;
  s.row_stride = row_stride;
  s.n_rows = n_rows;
  s.n_panels = n_panels;
  s.n_vectors = n_vectors;
  s.of_bytes = of_bytes;
  s.far = of_bytes >= f.far_bytes;
  s.wide = wide;
  f.product(s);
}

// Holds the state that products of so many rows and columns need.
class ProductState {
 public:
  QG_INLINE ProductState(const CompactFunctions& f, size_t n_rows, size_t n_k)
      : end_(f.begin && tiles_pay(n_rows, n_k) ? f.end : nullptr) {
    if (end_) f.begin(n_rows);
  }
  QG_INLINE ~ProductState() {
    if (end_) end_();
  }
  ProductState(const ProductState&) = delete;
  ProductState& operator=(const ProductState&) = delete;

 private:
  void (*end_)();
};

// The plain cells of n_rows rows, or of one row of n_panels panels.
template <class Cell>
QG_INLINE void finish_plain(const ForwardStep<float>& s, float (*sums)[Lstm<float>::kVectors][VF::kWidth], size_t first,
                            size_t n_rows, size_t panel, size_t n_panels) {
  const ForwardRow<float>* rows = s.rows + first;
  const size_t n = n_rows * n_panels, next_row = n_panels == 1, next_panel = n_panels - 1;
#pragma GCC unroll 1
  for (size_t i = 0; i < n; ++i)
    store(sums[i][0], Cell::state(s, rows[i * next_row], sums[i][0], panel + i * next_panel));
#pragma GCC unroll 1
  for (size_t i = 0; i < n; ++i)
    Cell::output(s, rows[i * next_row], load(sums[i][Lstm<float>::kOutputGate]), load(sums[i][0]),
                 panel + i * next_panel);
}

// All cells of n_rows rows of one panel, or of two panels, a row at a time then.
template <class Cell>
QG_INLINE void finish_panels(const ForwardStep<float>& s, bool int8, float* lines, size_t first, size_t n_rows,
                             size_t panel, size_t n_panels) {
  auto* sums = reinterpret_cast<float(*)[Cell::kVectors][VF::kWidth]>(lines);
  const size_t at_once = n_panels == 1 ? n_rows : 1;
  if constexpr (Cell::kPlain) {
    if (!s.options && !s.extra) {
#pragma GCC unroll 1
      for (const size_t end = first + n_rows; first < end; first += at_once, sums += n_panels) {
        if (int8)
          finish_plain<Int8Cell>(s, sums, first, at_once, panel, n_panels);
        else
          finish_plain<CompactCell>(s, sums, first, at_once, panel, n_panels);
      }
      return;
    }
  }
  for (size_t i = 0; i < n_rows * n_panels; i += at_once) {
    const size_t row = first + i / n_panels;
    finish_other_rows<Cell>(s, s.rows + row, sums + i, at_once, panel + i % n_panels,
                            s.extra ? s.extra + row : nullptr);
  }
}

// One step of all rows, for panels [block_begin, block_end).
template <class Cell>
QG_INLINE void compact_step(const CompactForward& n, bool descending) {
  constexpr int NV = Cell::kVectors;
  constexpr size_t line = NV * size_t(VF::kWidth);
  const ForwardStep<float>& s = *n.step;
  CompactPieces pieces = {n.work};
  CompactRows x(pieces, n.functions, s.n_rows, n.ih.n_k), h(pieces, n.functions, s.n_rows, n.hh.n_k);
  for (size_t r = 0; r < s.n_rows; ++r) {
    x.rows[r] = s.rows[r].x;
    h.rows[r] = s.rows[r].h;
  }
  if (!s.use_pre) x.quantize(n.functions, s.n_rows, n.ih.n_k);
  if (s.recurrent_size) h.quantize(n.functions, s.n_rows, n.hh.n_k);
  const size_t most = s.n_rows < kGroupRows ? s.n_rows : kGroupRows;
  float* lines = pieces.take<float>((most + kMostPairRows) * line);
  float* wide = pieces.take<float>(s.n_rows > 1 ? sum_lines(s.n_rows) * line : 0);
  const size_t pre_stride = s.use_pre && s.n_rows > 1 ? size_t(s.rows[1].pre - s.rows[0].pre) : 0;
  if constexpr (Cell::kPlain) {
    if (n.functions.step && s.recurrent_size && !s.options && !s.extra && tiles_pay(s.n_rows, n.hh.n_k) &&
        n.hh.n_k <= kMostTileK && n.ih.n_k <= kMostTileK) {
      const CompactMatrix matrices[2] = {n.ih, n.hh};
      const QuantizedRows rows[2] = {x.all(), h.all()};
      return n.functions.step({&s, matrices, rows, pre_stride, wide, descending});
    }
  }
  const size_t n_blocks = s.block_end - s.block_begin, at_once = s.n_rows <= n.functions.pair_rows ? 2 : 1;
  const size_t panels = (s.hidden_size + Cell::kRowBlocks * VF::kWidth - 1) / (Cell::kRowBlocks * VF::kWidth);
  const size_t of_bytes = panels * ((s.recurrent_size ? n.hh.panel_bytes : 0) + (s.use_pre ? 0 : n.ih.panel_bytes));
  for (size_t first = 0; first < s.n_rows; first += kGroupRows) {
    const size_t n_rows = s.n_rows - first < kGroupRows ? s.n_rows - first : kGroupRows;
    for (size_t done = 0; done < n_blocks;) {
      const size_t n_panels = n_blocks - done < at_once ? 1 : at_once;
      const size_t panel = descending ? s.block_end - done - n_panels : s.block_begin + done;
      done += n_panels;
      const size_t next = done == n_blocks ? panel : descending ? panel - 1 : panel + n_panels;
      const size_t row = n_panels * line;
      const float* from = lines;
      size_t from_stride = row;
      if (s.use_pre) {
        from = s.rows[first].pre + panel * line;
        from_stride = pre_stride;
      } else {
        add_product(n.functions, n.ih, x, first, n_rows, panel, n_panels, next, NV, s.bias + panel * line, 0, lines,
                    row, of_bytes, wide);
      }
      if (s.recurrent_size) {
        add_product(n.functions, n.hh, h, first, n_rows, panel, n_panels, next, NV, from, from_stride, lines, row,
                    of_bytes, wide);
      } else if (from != lines) {
        for (size_t r = 0; r < n_rows; ++r)
          for (size_t i = 0; i < row; i += VF::kWidth) store(lines + r * row + i, load(from + r * from_stride + i));
      }
      finish_panels<Cell>(s, n.functions.quantize_rows != nullptr, lines, first, n_rows, panel, n_panels);
    }
  }
}

void compact_forward(const CompactForward& n) {
  const ForwardStep<float>& s = *n.step;
  const ProductState state(n.functions, s.n_rows, n.ih.n_k > n.hh.n_k ? n.ih.n_k : n.hh.n_k);
  with_cell<float>(
      s.options, [&](auto cell) __attribute__((always_inline)) {
        bool descending = s.descending;
        for (size_t left = s.n_more;; --left, descending = !descending) {
          compact_step<decltype(cell)>(n, descending);
          if (left == 0) break;
          advance(s.rows, s.n_rows, s.next);
        }
      });
}

void compact_project(const CompactProject& n) {
  const Project<float>& s = *n.step;
  const size_t line = s.n_vectors * size_t(VF::kWidth), row = s.n_blocks * line;
  CompactPieces pieces = {n.work};
  CompactRows x(pieces, n.functions, s.n_rows, n.matrix.n_k);
  for (size_t r = 0; r < s.n_rows; ++r) x.rows[r] = s.x[r];
  x.quantize(n.functions, s.n_rows, n.matrix.n_k);
  float* wide = pieces.take<float>(kWideK * line);
  const size_t at_once = s.n_rows <= n.functions.pair_rows ? 2 : 1,
               of_bytes = (s.block_end - s.block_begin) * n.matrix.panel_bytes;
  const ProductState state(n.functions, s.n_rows, n.matrix.n_k);
  for (size_t first = 0; first < s.n_rows; first += kGroupRows) {
    const size_t n_rows = s.n_rows - first < kGroupRows ? s.n_rows - first : kGroupRows;
    for (size_t panel = s.block_begin; panel < s.block_end;) {
      const size_t n_panels = s.block_end - panel < at_once ? 1 : at_once;
      const size_t next = panel + n_panels < s.block_end ? panel + n_panels : panel;
      float* lines = s.pre + first * row + panel * line;
      for (size_t r = 0; r < n_rows && !s.bias; ++r)
        for (size_t i = 0; i < n_panels * line; i += VF::kWidth) store(lines + r * row + i, zero<float>());
      add_product(n.functions, n.matrix, x, first, n_rows, panel, n_panels, next, s.n_vectors,
                  s.bias ? s.bias + panel * line : lines, s.bias ? 0 : row, lines, row, of_bytes, wide);
      panel += n_panels;
    }
  }
}

}  // namespace
}  // namespace QG_ISA
}  // namespace quadgate
