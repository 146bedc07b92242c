// The module: bindings only. Networks and streams are bound in bind/.
#include <vector>

#include "bind/py_network.h"
#include "cpu/available_cpus.h"
#include "cpu/caches.h"
#include "cpu/dispatch.h"
#include "parallel/pool.h"

namespace quadgate {
namespace {

// The kernels' activations on their own.
py::object activation(const std::string& name, double alpha, double beta, py::handle x) {
  const int function = function_named(name);
  auto apply = [&](auto zero, const auto& table) -> py::object {
    using Real = decltype(zero);
    const View<Real> v(x);
    if (!v || !v.contiguous()) return py::none();
    std::vector<Py_intptr_t> shape;
    for (int i = 0; i < v.ndim(); ++i) shape.push_back(Py_intptr_t(v.shape(i)));
    py::object y = new_array<Real>(v.ndim(), shape.data());
    table.activate({function, Real(alpha), Real(beta)}, v.data(), View<Real>(y).data(), v.size());
    return y;
  };
  py::object y = apply(float(), kernels().f32);
  if (y.is_none()) y = apply(double(), kernels().f64);
  if (y.is_none()) throw py::type_error("expected a C-contiguous float32 or float64 array");
  return y;
}

py::dict cpu_info() {
  py::list supported;
  for (const char* name : supported_isas()) supported.append(name);
  py::dict d;
  d["isa"] = kernels().name;
  d["supported"] = supported;
  d["cores"] = available_cpus();
  d["threads"] = get_num_threads();
  d["l1d"] = cache_sizes().l1d;
  d["l2"] = cache_sizes().l2;
  d["l3"] = cache_sizes().l3;
  return d;
}

}  // namespace
}  // namespace quadgate

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  using namespace quadgate;
  (void)kernels();  // a wrong QUADGATE_ISA is an error at import, not in the middle of work
  m.attr("__version__") = QG_VERSION;
  register_network(m);
  register_tape(m);
  register_stream(m);
  m.def("set_num_threads", &set_num_threads);
  m.def("get_num_threads", &get_num_threads);
  m.def("cpu_info", &cpu_info);
  m.def("activation", &activation);
  m.def("sigmoid", [](py::handle x) { return activation("sigmoid", 1, 0, x); });
  m.def("tanh", [](py::handle x) { return activation("tanh", 1, 0, x); });
}
