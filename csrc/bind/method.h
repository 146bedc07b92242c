// Methods without pybind11's dispatcher, which resolves overloads and converts arguments: that takes 80 ns with two
// arguments and 190 with seven, where a step of a small network takes 200.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <string>
#include <utility>

namespace quadgate {
namespace py = pybind11;

template <auto function>
struct Method;

// Any number of positional arguments, as they came. The class must be py::is_final, so that its objects hold a Class
// and nothing else.
template <class Class, class... Args, py::object (*function)(Class&, Args...)>
struct Method<function> {
  // `name` must be a literal.
  static void define(py::handle type, const char* name) {
    static PyMethodDef method = {};
    method = {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call)), METH_FASTCALL, nullptr};
    PyObject* descriptor = PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &method);
    if (!descriptor) throw py::error_already_set();
    type.attr(name) = py::reinterpret_steal<py::object>(descriptor);
  }

 private:
  // The descriptor has checked that self is of the type. What is thrown becomes what pybind11 would make of it.
  static PyObject* call(PyObject* self, PyObject* const* args, Py_ssize_t n) {
    try {
      void* object = reinterpret_cast<py::detail::instance*>(self)->get_value_and_holder().value_ptr();
      if (!object) throw py::type_error("__init__ was not called");
      if (n != Py_ssize_t(sizeof...(Args)))
        throw py::type_error("expected " + std::to_string(sizeof...(Args)) + " arguments, got " + std::to_string(n));
      return apply(*static_cast<Class*>(object), args, std::index_sequence_for<Args...>()).release().ptr();
    } catch (py::error_already_set& e) {
      e.restore();
#ifdef __GLIBCXX__
    } catch (abi::__forced_unwind&) {
      throw;
#endif
    } catch (...) {
      py::detail::try_translate_exceptions();
    }
    return nullptr;
  }

  template <size_t... I>
  static py::object apply(Class& object, PyObject* const* args, std::index_sequence<I...>) {
    return function(object, Args(args[I])...);
  }
};

}  // namespace quadgate
