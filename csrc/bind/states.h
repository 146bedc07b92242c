// States as arguments and as results.
#pragma once

#include <optional>

#include "bind/arrays.h"
#include "rnn/model.h"

namespace quadgate {

// An uninitialised (L*D,B,columns), or (L*D,columns) where there is no batch axis.
template <class Real>
py::object new_state(const Sizes& s, size_t columns, bool batched, size_t batch) {
  const Py_intptr_t shape[3] = {Py_intptr_t(s.states()), Py_intptr_t(batch), Py_intptr_t(columns)};
  const Py_intptr_t flat[2] = {shape[0], shape[2]};
  return batched ? new_array<Real>(3, shape) : new_array<Real>(2, flat);
}

// The (h, c) pair of an argument, plain or absent.
template <class Real>
struct StatePair {
  std::optional<View<Real>> h, c;
  bool ok = true;

  // (L*D,B,R) and (L*D,B,H), or without B where x has no batch axis; with `optional_parts`, either may be None.
  StatePair(py::handle state, const Sizes& s, bool batched, size_t batch, bool optional_parts) {
    if (state.is_none()) return;
    if (!PyTuple_CheckExact(state.ptr()) || PyTuple_GET_SIZE(state.ptr()) != 2) {
      ok = false;
      return;
    }
    std::optional<View<Real>>* parts[2] = {&h, &c};
    const size_t columns[2] = {s.recurrent(), s.cell()};
    for (int i = 0; i < 2; ++i) {
      py::handle part = PyTuple_GET_ITEM(state.ptr(), i);
      if (optional_parts && part.is_none()) continue;
      View<Real> v(part);
      ok = ok && v && v.contiguous() &&
           (batched ? v.has_shape(s.states(), batch, columns[i]) : v.has_shape(s.states(), columns[i]));
      *parts[i] = v;
    }
  }
  const Real* h_data() const { return h ? h->data() : nullptr; }
  const Real* c_data() const { return c ? c->data() : nullptr; }
};

}  // namespace quadgate
