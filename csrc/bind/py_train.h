// Training's flat work for Python: dense layers, embeddings, a loss, optimizers, and the commit of a step.
#pragma once

#include <pybind11/pybind11.h>

namespace quadgate {

void register_train(pybind11::module_& m);

}  // namespace quadgate
