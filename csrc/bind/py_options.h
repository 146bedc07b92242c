// From the dictionary that the Python side makes of a network's options to the core's.
#pragma once

#include <pybind11/pybind11.h>

#include "rnn/model.h"

namespace quadgate {

// ONNX's functions by their names in lower snake case. Throws ValueError for another.
int function_named(const std::string& name);

// options: a dict, of which every entry may be missing, or None. Throws ValueError, TypeError.
Options read_options(pybind11::handle options);

// Throws ValueError for a network that the core cannot compute, even if Python has not checked it.
void check_options(const Sizes& sizes);

}  // namespace quadgate
