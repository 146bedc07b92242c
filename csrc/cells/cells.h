// The cells that a layer can be made of, and the sizes that packing, tape and time loop take from each.
//
// Independent of the instruction set, and without the standard library: kernels include it too. A cell's arithmetic
// stands in a file of its own beside this one. A new cell is an entry in CellType and one in kCellSizes, that file, and
// a case in cells/dispatch.h.
#pragma once

#include <stddef.h>

namespace quadgate {

enum class CellType : int { lstm, elman };

struct CellSizes {
  size_t n_gates;   // G: rows of weight_ih, weight_hh and bias for each hidden unit
  size_t n_states;  // vectors of (H or R) that a step passes to the next; h is the first
  int apart;        // the gate that takes R h by itself, not W x + R h in one sum (GRU's candidate); -1 for none
  size_t n_taped;   // vectors of (H) that the tape keeps of each row and step, beside the states themselves
};

// Indexed by CellType.
constexpr CellSizes kCellSizes[] = {
    {4, 2, -1, 4},  // lstm: i, f, g, o; h and c
    {1, 1, -1, 0},  // elman: its derivative needs only h
};
constexpr int kCellTypes = int(sizeof kCellSizes / sizeof kCellSizes[0]);

// Internal linkage: an instruction set's copy must never serve the others.
static constexpr CellSizes cell_sizes(CellType type) { return kCellSizes[int(type)]; }

}  // namespace quadgate
