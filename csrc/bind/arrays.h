// NumPy arrays in the bindings: plain ones are read in place, others are refused unread, so that the Python side can
// convert them or raise.
//
// Plain: exactly numpy.ndarray, the wanted element type in native byte order, aligned, and with the expected strides.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

#include "bind/object.h"
#include "memory/buffer.h"
#include "rnn/rows.h"

namespace quadgate {
namespace py = pybind11;

inline const py::detail::npy_api& numpy() { return py::detail::npy_api::get(); }

// The element type's descriptor; set at import, so that no call waits for a guard, and never released.
template <class Element>
inline PyObject* descriptor = nullptr;

// Looks up NumPy's functions and the descriptors. A first use in the middle of a call could be interrupted by a fork.
inline void init_arrays() {
  numpy();
  descriptor<float> = py::dtype::of<float>().release().ptr();
  descriptor<double> = py::dtype::of<double>().release().ptr();
  descriptor<int64_t> = py::dtype::of<int64_t>().release().ptr();
  descriptor<bool> = py::dtype::of<bool>().release().ptr();
  descriptor<uint16_t> = py::dtype::of<uint16_t>().release().ptr();
  descriptor<int8_t> = py::dtype::of<int8_t>().release().ptr();
}

// An uninitialised C-contiguous array. Throws std::bad_alloc (MemoryError) also for a size that no memory could hold.
template <class Element>
py::object new_array(int ndim, const Py_intptr_t* shape) {
  size_t n = sizeof(Element);
  for (int i = 0; i < ndim; ++i) n = shape[i] ? checked_mul(n, size_t(shape[i])) : n;
  if (n > size_t(PTRDIFF_MAX)) throw std::bad_alloc();
  const auto& api = numpy();
  PyObject* type = descriptor<Element>;
  Py_INCREF(type);  // which NumPy takes
  return owned(api.PyArray_NewFromDescr_(api.PyArray_Type_, type, ndim, shape, nullptr, nullptr, 0, nullptr));
}

// A writable C-contiguous view of the elements of `whole`, an array of this header's, from `offset` on.
template <class Element>
py::object new_view(const py::object& whole, size_t offset, int ndim, const Py_intptr_t* shape) {
  using Api = py::detail::npy_api;
  const auto& api = numpy();
  PyObject* type = descriptor<Element>;
  Py_INCREF(type);  // which NumPy takes
  char* data = py::detail::array_proxy(whole.ptr())->data + offset * sizeof(Element);
  const int flags = Api::NPY_ARRAY_C_CONTIGUOUS_ | Api::NPY_ARRAY_ALIGNED_ | Api::NPY_ARRAY_WRITEABLE_;
  py::object view =
      owned(api.PyArray_NewFromDescr_(api.PyArray_Type_, type, ndim, shape, nullptr, data, flags, nullptr));
  Py_INCREF(whole.ptr());  // which NumPy takes
  if (api.PyArray_SetBaseObject_(view.ptr(), whole.ptr()) != 0) throw PythonError();
  return view;
}

// An uninitialised array of one axis that begins at a cache line. NumPy's own begin at any multiple of 16 bytes, so
// that stores of whole vectors cross lines: a weight gradient from beyond L2 takes up to 1.4 times as long then.
template <class Element>
py::object new_vector(size_t n) {
  constexpr size_t kLine = 64;
  const Py_intptr_t room[1] = {Py_intptr_t(checked_add(n, kLine / sizeof(Element) - 1))}, shape[1] = {Py_intptr_t(n)};
  const py::object whole = new_array<Element>(1, room);
  const size_t past = reinterpret_cast<uintptr_t>(py::detail::array_proxy(whole.ptr())->data) % kLine;
  return new_view<Element>(whole, (kLine - past) % kLine / sizeof(Element), 1, shape);
}

// The elements of an array of this header's.
template <class Element>
Element* data_of(const py::object& array) {
  return reinterpret_cast<Element*>(py::detail::array_proxy(array.ptr())->data);
}

// A borrowed view of an object that may be a plain array of Element.
template <class Element>
class View {
 public:
  explicit View(py::handle h) {
    const auto& api = numpy();
    if (Py_TYPE(h.ptr()) != reinterpret_cast<PyTypeObject*>(api.PyArray_Type_)) return;
    auto* a = py::detail::array_proxy(h.ptr());
    if (a->descr != descriptor<Element> && !api.PyArray_EquivTypes_(a->descr, descriptor<Element>)) return;
    if (!(a->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return;
    proxy_ = a;
  }
  explicit operator bool() const { return proxy_ != nullptr; }
  Element* data() const { return reinterpret_cast<Element*>(proxy_->data); }
  int ndim() const { return proxy_->nd; }
  size_t shape(int i) const { return size_t(proxy_->dimensions[i]); }
  bool writable() const { return proxy_->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_; }
  bool contiguous() const { return proxy_->flags & py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_; }
  size_t size() const {
    size_t n = 1;
    for (int i = 0; i < ndim(); ++i) n *= shape(i);
    return n;
  }
  template <class... N>
  bool has_shape(N... n) const {
    if (ndim() != int(sizeof...(n))) return false;
    int i = 0;
    return ((size_t(n) == shape(i++)) && ...);
  }
  // True if rows of the last axis are adjacent elements, at steps of whole elements and not backwards.
  bool has_rows() const {
    const int last = ndim() - 1;
    if (last < 0 || size() == 0) return true;
    if (shape(last) > 1 && proxy_->strides[last] != Py_intptr_t(sizeof(Element))) return false;
    for (int i = 0; i < last; ++i)
      if (shape(i) > 1 && (proxy_->strides[i] < 0 || proxy_->strides[i] % Py_intptr_t(sizeof(Element)))) return false;
    return true;
  }
  size_t stride(int i) const { return shape(i) > 1 ? size_t(proxy_->strides[i]) / sizeof(Element) : 0; }
  // Bytes [first, last) that the elements lie within; for arrays with rows.
  const char* first() const { return proxy_->data; }
  const char* last() const {
    size_t at = 0;
    for (int i = 0; i < ndim(); ++i) at += (shape(i) - (shape(i) > 0)) * (i == ndim() - 1 ? 1 : stride(i));
    return proxy_->data + (size() ? (at + 1) * sizeof(Element) : 0);
  }
  // True if two elements may lie in the same place; for arrays with rows and at most three axes. True also for strides
  // that interleave axes in a way that no slicing makes.
  bool overlaps_itself() const {
    if (size() == 0 || ndim() == 0) return false;
    std::pair<size_t, size_t> axes[2];  // stride, length
    int n = 0;
    for (int i = 0; i < ndim() - 1 && n < 2; ++i)
      if (shape(i) > 1) axes[n++] = {stride(i), shape(i)};
    if (n == 2 && axes[1] < axes[0]) std::swap(axes[0], axes[1]);
    size_t extent = shape(ndim() - 1);
    for (int i = 0; i < n; ++i) {
      if (axes[i].first < extent) return true;
      extent += axes[i].first * (axes[i].second - 1);
    }
    return false;
  }
  template <class U>
  bool overlaps(const View<U>& other) const {
    return other && first() < other.last() && other.first() < last();
  }
  // (T,B,N), or (T,N) as one row; batch_first: (B,T,N).
  template <class U>
  Plane<U> plane(bool batch_first) const {
    if (ndim() == 2) return {data(), stride(0), 0, 0};
    return {data(), stride(batch_first ? 1 : 0), stride(batch_first ? 0 : 1), 0};
  }

 private:
  decltype(py::detail::array_proxy(static_cast<void*>(nullptr))) proxy_ = nullptr;
};

}  // namespace quadgate
