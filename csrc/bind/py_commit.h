// The commit of a training step.
#pragma once

#include <pybind11/pybind11.h>

namespace quadgate {

void register_commit(pybind11::module_& m);

}  // namespace quadgate
