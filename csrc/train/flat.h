// Shared by the flat work of training: the way to stop, and what elements cost.
#pragma once

#include "cpu/dispatch.h"
#include "parallel/pieces.h"

namespace quadgate {

// The check for signals that a long call makes now and then; null for none.
using Interrupted = bool (*)();

// Work of elements that are read and written once, in flops of a product that takes as long.
constexpr double kElementFlops = 16;

}  // namespace quadgate
