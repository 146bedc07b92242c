// The module: bindings only. Networks, tapes and streams are bound in bind/.
#include <climits>
#include <vector>

#include "bind/arrays.h"
#include "bind/gil.h"
#include "bind/py_network.h"
#include "bind/py_options.h"
#include "bind/py_stream.h"
#include "bind/py_tape.h"
#include "bind/py_train.h"
#include "cpu/available_cpus.h"
#include "cpu/caches.h"
#include "cpu/dispatch.h"
#include "cpu/float_env.h"
#include "parallel/fork.h"
#include "parallel/pool.h"

namespace quadgate {
namespace {

// The kernels' activations on their own. Denormals are kept: they are among the results that are asked for.
py::object activated(const char* name, double alpha, double beta, py::handle x) {
  const int function = function_named(name);
  auto apply = [&](auto zero, const auto& table) -> py::object {
    using Real = decltype(zero);
    const View<Real> v(x);
    if (!v || !v.contiguous()) return py::none();
    std::vector<Py_intptr_t> shape;
    for (int i = 0; i < v.ndim(); ++i) shape.push_back(Py_intptr_t(v.shape(i)));
    py::object y = new_array<Real>(v.ndim(), shape.data());
    const FloatEnvironment ours(FloatEnvironment::kept);
    table.activate({function, Real(alpha), Real(beta)}, v.data(), View<Real>(y).data(), v.size());
    return y;
  };
  py::object y = apply(float(), kernels().f32);
  if (y.is_none()) y = apply(double(), kernels().f64);
  if (y.is_none()) throw py::type_error("expected a C-contiguous float32 or float64 array");
  return y;
}

py::object activation(py::handle name, py::handle alpha, py::handle beta, py::handle x) {
  const char* text = PyUnicode_AsUTF8(name.ptr());
  const double a = text ? PyFloat_AsDouble(alpha.ptr()) : 0, b = text ? PyFloat_AsDouble(beta.ptr()) : 0;
  if (PyErr_Occurred()) throw PythonError();
  return activated(text, a, b, x);
}
py::object sigmoid(py::handle x) { return activated("sigmoid", 1, 0, x); }
py::object tanh_of(py::handle x) { return activated("tanh", 1, 0, x); }

py::object set_threads(py::handle given) {
  const long long n = PyLong_AsLongLong(given.ptr());
  if (PyErr_Occurred()) throw PythonError();
  if (n < 1 || n > INT_MAX)
    throw py::value_error("n must be from 1 to " + std::to_string(INT_MAX) + ", got " + std::to_string(n));
  set_num_threads(int(n));
  return none();
}

py::object threads() { return number(unsigned(get_num_threads())); }

py::object cpu_info() {
  py::list supported;
  for (const char* name : supported_isas()) supported.append(py::str(name));
  py::dict d;
  d["isa"] = py::str(kernels().name);
  d["supported"] = supported;
  d["cores"] = number(unsigned(available_cpus()));
  d["threads"] = threads();
  d["l1d"] = number(cache_sizes().l1d);
  d["l2"] = number(cache_sizes().l2);
  d["l3"] = number(cache_sizes().l3);
  return d;
}

void bind(py::module_& m) {
  // Everything that is made on first use is made here, where no other thread can fork in the middle of it.
  watch_forks();
  init_arrays();
  const py::object main_thread = py::module_::import("threading").attr("main_thread")();
  main_thread_at_import = PyLong_AsUnsignedLong(py::object(main_thread.attr("ident")).ptr());
  (void)kernels();  // a wrong QUADGATE_ISA is an error at import, not in the middle of work
  m.attr("__version__") = QG_VERSION;
  register_network(m);
  register_tape(m);
  register_stream(m);
  register_train(m);
  static PyMethodDef functions[] = {ModuleFunction<&set_threads>::entry("set_num_threads"),
                                    ModuleFunction<&threads>::entry("get_num_threads"),
                                    ModuleFunction<&cpu_info>::entry("cpu_info"),
                                    ModuleFunction<&activation>::entry("activation"),
                                    ModuleFunction<&sigmoid>::entry("sigmoid"),
                                    ModuleFunction<&tanh_of>::entry("tanh"),
                                    {}};
  add_functions(m, functions);
}

PyObject* finished = nullptr;  // the module once it is whole; kept for ever, as its types are

// Whoever imports again, with the module gone from sys.modules, gets the same one: its types exist once. This runs in
// the interpreter that imports; PyInit__core, since Python 3.13, in the main one.
PyObject* create_module(PyObject* spec, PyModuleDef*) {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError, "quadgate works in the main interpreter only, not in a subinterpreter");
    return nullptr;
  }
  Py_XINCREF(finished);
  if (finished) return finished;
  return guarded([&] {
    const py::object name = owned(PyObject_GetAttrString(spec, "name"));
    return owned(PyModule_NewObject(name.ptr()));
  });
}

int fill_module(PyObject* m) {
  if (finished) return 0;
  try {
    auto module = py::reinterpret_borrow<py::module_>(m);
    bind(module);
  } catch (const PythonError&) {
    return -1;
  } catch (py::error_already_set& e) {
    e.restore();
    return -1;
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
    return -1;
  } catch (const std::exception& e) {  // a wrong QUADGATE_ISA
    PyErr_SetString(PyExc_ImportError, e.what());
    return -1;
  }
  Py_INCREF(m);
  finished = m;
  return 0;
}

}  // namespace
}  // namespace quadgate

// The pool's limit for threadpoolctl, which finds it by these names: see python/quadgate/_threadpools.py.
extern "C" PYBIND11_EXPORT int quadgate_get_num_threads() { return quadgate::get_num_threads(); }
extern "C" PYBIND11_EXPORT void quadgate_set_num_threads(int n) { quadgate::set_num_threads(n > 1 ? n : 1); }

// Not by PYBIND11_MODULE, which brings pybind11's classes and dispatcher with it, 28 kB of the wheel that nothing here
// uses, and in a subinterpreter of Python 3.11 waits for its state for ever.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  static PyModuleDef_Slot slots[] = {{Py_mod_create, reinterpret_cast<void*>(&quadgate::create_module)},
                                     {Py_mod_exec, reinterpret_cast<void*>(&quadgate::fill_module)},
#ifdef Py_mod_multiple_interpreters
                                     {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
                                     {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
                                     {0, nullptr}};
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_core", nullptr, 0, nullptr, slots, nullptr, nullptr, nullptr};
  return PyModuleDef_Init(&definition);
}
