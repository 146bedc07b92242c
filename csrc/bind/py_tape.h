// A tape for Python.
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "bind/py_network.h"

namespace quadgate {

struct PyTape {
  std::variant<std::unique_ptr<Tape<float>>, std::unique_ptr<Tape<double>>> tape;
  uint64_t network;  // the id of its family
  bool batched;      // true if x had a batch axis
  bool batch_first;
  std::vector<size_t> x_shape;
  std::vector<py::object> dropped;  // the arrays that the tape points to
};

// The rest of Network's methods.
py::object backward(Network& net, py::handle tape, py::handle dy, py::handle dstate, py::handle input_grad,
                    py::handle state_grad, py::handle into, py::handle names, py::handle accumulate, py::handle dcells,
                    py::handle norms);
py::object make_tape(Network& net, py::handle x, py::handle state, py::handle y, py::handle gates, py::handle c);

void register_tape(py::module_& m);

}  // namespace quadgate
