// A stream for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace quadgate {

void register_stream(pybind11::module_& m);

}  // namespace quadgate
