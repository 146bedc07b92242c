#include "bind/py_commit.h"

#include "bind/object.h"

namespace quadgate {
namespace {

// replace_all(swaps): sets attributes, given as (object, name, value) or (object, name, value, expected). False, and
// nothing is changed, where one is not the expected object. One call, in which no signal handler runs; with the GIL no
// other thread either. If an attribute cannot be set, those before it are set back.
py::object replace_all(py::handle swaps_) {
  struct Swap {
    py::object object, name, value, expected, before;
  };
  std::vector<Swap> swaps;  // freed last: destructors of the old values may run Python's code
  for (const py::object& item : items_of(swaps_, "swaps")) {
    const Py_ssize_t n = PyTuple_CheckExact(item.ptr()) ? PyTuple_GET_SIZE(item.ptr()) : 0;
    if (n != 3 && n != 4) throw py::type_error("swaps must be tuples (object, name, value) or (..., expected)");
    auto at = [&](Py_ssize_t i) { return borrowed(PyTuple_GET_ITEM(item.ptr(), i)); };
    if (!PyUnicode_CheckExact(at(1).ptr())) throw py::type_error("an attribute's name must be a str");
    swaps.push_back({at(0), at(1), at(2), n == 4 ? at(3) : py::object(), {}});
  }
  for (Swap& s : swaps) s.before = owned(PyObject_GetAttr(s.object.ptr(), s.name.ptr()));
  for (const Swap& s : swaps)
    if (s.expected && !s.before.is(s.expected)) return borrowed(Py_False);
  for (size_t i = 0; i < swaps.size(); ++i) {
    if (PyObject_SetAttr(swaps[i].object.ptr(), swaps[i].name.ptr(), swaps[i].value.ptr()) == 0) continue;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    while (i-- > 0)
      if (PyObject_SetAttr(swaps[i].object.ptr(), swaps[i].name.ptr(), swaps[i].before.ptr()) != 0) PyErr_Clear();
    PyErr_Restore(type, error, trace);
    throw PythonError();
  }
  return borrowed(Py_True);
}

}  // namespace

void register_commit(py::module_& m) {
  static PyMethodDef functions[] = {ModuleFunction<&replace_all>::entry("replace_all"), {}};
  add_functions(m, functions);
}

}  // namespace quadgate
