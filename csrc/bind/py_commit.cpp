#include "bind/py_commit.h"

#include "bind/object.h"

namespace quadgate {
namespace {

struct Swap {
  py::object object, name, value, expected, before;
};

// 1: all attributes are set. 0: one is not the expected object, and nothing is changed. -1: a Python error; attributes
// that were set before it are set back.
int swap(std::vector<Swap>& swaps) {
  for (Swap& s : swaps) {
    s.before = py::reinterpret_steal<py::object>(PyObject_GetAttr(s.object.ptr(), s.name.ptr()));
    if (!s.before) return -1;
  }
  for (const Swap& s : swaps)
    if (s.expected && !s.before.is(s.expected)) return 0;
  for (size_t i = 0; i < swaps.size(); ++i) {
    if (PyObject_SetAttr(swaps[i].object.ptr(), swaps[i].name.ptr(), swaps[i].value.ptr()) == 0) continue;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    while (i-- > 0)
      if (PyObject_SetAttr(swaps[i].object.ptr(), swaps[i].name.ptr(), swaps[i].before.ptr()) != 0) PyErr_Clear();
    PyErr_Restore(type, error, trace);
    return -1;
  }
  return 1;
}

// replace_all(swaps): sets attributes, given as (object, name, value) or (object, name, value, expected). False, and
// nothing is changed, where one is not the expected object. One call, in which no signal handler runs; with the GIL no
// other thread either, and without it none that has the same first object. An interrupt could leave a lock of Python's
// taken.
py::object replace_all(py::handle swaps_) {
  std::vector<Swap> swaps;  // freed last: destructors of the old values may run Python's code
  for (const py::object& item : items_of(swaps_, "swaps")) {
    const Py_ssize_t n = PyTuple_CheckExact(item.ptr()) ? PyTuple_GET_SIZE(item.ptr()) : 0;
    if (n != 3 && n != 4) throw py::type_error("swaps must be tuples (object, name, value) or (..., expected)");
    auto at = [&](Py_ssize_t i) { return borrowed(PyTuple_GET_ITEM(item.ptr(), i)); };
    if (!PyUnicode_CheckExact(at(1).ptr())) throw py::type_error("an attribute's name must be a str");
    swaps.push_back({at(0), at(1), at(2), n == 4 ? at(3) : py::object(), {}});
  }
  if (swaps.empty()) return borrowed(Py_True);
  int done = 0;
#ifdef Py_GIL_DISABLED
  Py_BEGIN_CRITICAL_SECTION(swaps[0].object.ptr());
#endif
  done = swap(swaps);
#ifdef Py_GIL_DISABLED
  Py_END_CRITICAL_SECTION();
#endif
  if (done < 0) throw PythonError();
  return borrowed(done ? Py_True : Py_False);
}

}  // namespace

void register_commit(py::module_& m) {
  static PyMethodDef functions[] = {ModuleFunction<&replace_all>::entry("replace_all"), {}};
  add_functions(m, functions);
}

}  // namespace quadgate
