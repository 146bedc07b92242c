// Python types of our own, without pybind11's objects and dispatcher.
//
// Two reasons. A failed allocation inside pybind11, where it creates an object, ends the process or frees twice. And
// its dispatcher, which resolves overloads and converts arguments, takes 80 ns with two arguments and 190 with seven,
// where a step of a small network takes 200.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include "parallel/fork.h"

namespace quadgate {
namespace py = pybind11;

// Thrown while Python's error indicator is set.
struct PythonError {};

// A new reference, or a PythonError for null.
inline py::object owned(PyObject* p) {
  if (!p) throw PythonError();
  return py::reinterpret_steal<py::object>(p);
}

inline py::object borrowed(py::handle h) { return py::reinterpret_borrow<py::object>(h); }

// The result of f(), an object, for Python; null with Python's error set where f throws.
template <class F>
PyObject* guarded(F&& f) {
  try {
    return f().release().ptr();
  } catch (const PythonError&) {
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::length_error&) {  // of a std::vector
    PyErr_NoMemory();
  } catch (const ForkedInCall& e) {  // by a signal handler, which may have raised
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, e.what());
  } catch (py::error_already_set& e) {
    e.restore();
  } catch (const py::builtin_exception& e) {
    e.set_error();
  } catch (const std::invalid_argument& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
#ifdef __GLIBCXX__
  } catch (abi::__forced_unwind&) {
    throw;
#endif
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "unknown C++ exception");
  }
  return nullptr;
}

// A Python object that holds a T and nothing else. Its type is final, so `self` needs no check.
template <class T>
struct Object {
  PyObject head;
  bool made;  // zero while T is not there
  alignas(T) unsigned char memory[sizeof(T)];

  static_assert(alignof(T) <= alignof(std::max_align_t), "Python aligns objects to 16 bytes");
  static inline PyTypeObject* type = nullptr;  // set once, at import

  static Object* of(PyObject* self) { return reinterpret_cast<Object*>(self); }
  static T& value(PyObject* self) { return *std::launder(reinterpret_cast<T*>(of(self)->memory)); }
  static bool is(py::handle h) { return Py_TYPE(h.ptr()) == type; }

  template <class... Args>
  static py::object make(Args&&... args) {
    py::object self = owned(type->tp_alloc(type, 0));
    new (of(self.ptr())->memory) T(std::forward<Args>(args)...);
    of(self.ptr())->made = true;
    return self;
  }

  static void dealloc(PyObject* self) {
    PyTypeObject* type_of_self = Py_TYPE(self);
    if (of(self)->made) value(self).~T();
    type_of_self->tp_free(self);
    Py_DECREF(type_of_self);
  }

  // Adds the type to the module. `create` makes an object from positional arguments; null: Python cannot. The arrays
  // end with an empty entry and are never freed. `name` is the full name, a literal.
  static void define(py::module_& m, const char* name, newfunc create, PyMethodDef* methods, PyGetSetDef* properties) {
    PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(&dealloc)},
                           {Py_tp_methods, methods},
                           {Py_tp_getset, properties},
                           {create ? Py_tp_new : 0, reinterpret_cast<void*>(create)},
                           {0, nullptr}};
    const unsigned flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | (create ? 0 : Py_TPFLAGS_DISALLOW_INSTANTIATION);
    PyType_Spec spec = {name, int(sizeof(Object)), 0, flags, slots};
    py::object made_type = owned(PyType_FromSpec(&spec));
    type = reinterpret_cast<PyTypeObject*>(made_type.ptr());
    m.attr(std::strrchr(name, '.') + 1) = made_type;
    made_type.release();  // never freed
  }
};

template <auto function>
struct Method;

// A method with any number of positional arguments, passed on unchanged.
template <class T, class... Args, py::object (*function)(T&, Args...)>
struct Method<function> {
  static PyMethodDef entry(const char* name) {
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call)), METH_FASTCALL, nullptr};
  }

 private:
  static PyObject* call(PyObject* self, PyObject* const* args, Py_ssize_t n) {
    return guarded([&] {
      if (n != Py_ssize_t(sizeof...(Args)))
        throw py::type_error("expected " + std::to_string(sizeof...(Args)) + " arguments, got " + std::to_string(n));
      return apply(Object<T>::value(self), args, std::index_sequence_for<Args...>());
    });
  }
  template <size_t... I>
  static py::object apply(T& object, [[maybe_unused]] PyObject* const* args, std::index_sequence<I...>) {
    return function(object, Args(args[I])...);
  }
};

// A function of the module with any number of positional arguments.
template <auto function>
struct ModuleFunction;
template <class... Args, py::object (*function)(Args...)>
struct ModuleFunction<function> {
  static PyMethodDef entry(const char* name) {
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call)), METH_FASTCALL, nullptr};
  }

 private:
  static PyObject* call(PyObject*, PyObject* const* args, Py_ssize_t n) {
    return guarded([&] {
      if (n != Py_ssize_t(sizeof...(Args)))
        throw py::type_error("expected " + std::to_string(sizeof...(Args)) + " arguments, got " + std::to_string(n));
      return apply(args, std::index_sequence_for<Args...>());
    });
  }
  template <size_t... I>
  static py::object apply(PyObject* const* args, std::index_sequence<I...>) {
    return function(Args(args[I])...);
  }
};

// Adds functions to the module; the array ends with an empty entry and is never freed.
inline void add_functions(py::module_& m, PyMethodDef* functions) {
  if (PyModule_AddFunctions(m.ptr(), functions) != 0) throw py::error_already_set();
}

// A property that can be read.
template <class T, py::object (*function)(const T&)>
PyGetSetDef property(const char* name) {
  return {name, [](PyObject* self, void*) { return guarded([&] { return function(Object<T>::value(self)); }); },
          nullptr, nullptr, nullptr};
}

inline py::object none() { return py::none(); }
inline bool is_true(py::handle h) { return h.ptr() == Py_True; }

inline py::object number(unsigned long long n) { return owned(PyLong_FromUnsignedLongLong(n)); }

// An integer argument that counts something.
inline size_t to_size(py::handle h) {
  const size_t n = PyLong_AsSize_t(h.ptr());
  if (n == size_t(-1) && PyErr_Occurred()) throw PythonError();
  return n;
}

// The tuple of some objects.
template <class... Items>
py::object tuple_of(Items... items) {
  py::object t = owned(PyTuple_New(sizeof...(Items)));
  Py_ssize_t i = 0;
  (PyTuple_SET_ITEM(t.ptr(), i++, items.release().ptr()), ...);
  return t;
}

// The items of a list or tuple.
inline std::vector<py::object> items_of(py::handle list, const char* what) {
  if (!PyList_CheckExact(list.ptr()) && !PyTuple_CheckExact(list.ptr()))
    throw py::type_error(std::string(what) + " must be a list");
  const Py_ssize_t n = PySequence_Fast_GET_SIZE(list.ptr());
  std::vector<py::object> items;
  items.reserve(size_t(n));
  for (Py_ssize_t i = 0; i < n; ++i) items.push_back(borrowed(PySequence_Fast_GET_ITEM(list.ptr(), i)));
  return items;
}

}  // namespace quadgate
