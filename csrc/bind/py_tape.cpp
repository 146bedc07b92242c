#include "bind/py_tape.h"

#include <cmath>

#include "bind/gil.h"
#include "bind/states.h"
#include "rnn/backward/backward.h"

namespace quadgate {
namespace {

// The arrays that a backward call writes to and reads from, of which no two may share memory.
template <class Real>
class Apart {
 public:
  Apart() {  // room for those of a small network at once
    read_.reserve(4);
    written_.reserve(8);
  }
  void reads(const View<Real>& v) { read_.push_back(v); }
  // False where v shares memory with any array so far.
  bool writes(const View<Real>& v) {
    for (const auto* list : {&read_, &written_})
      for (const View<Real>& other : *list)
        if (v.overlaps(other)) return false;
    written_.push_back(v);
    return true;
  }

 private:
  std::vector<View<Real>> read_, written_;
};

// The value of a key in a dict, which other threads may change; empty if there is none.
py::object item_of(py::handle dict, PyObject* key) {
  PyObject* item = nullptr;
#if PY_VERSION_HEX >= 0x030D0000
  if (PyDict_GetItemRef(dict.ptr(), key, &item) < 0) throw PythonError();
#else
  item = PyDict_GetItemWithError(dict.ptr(), key);
  if (!item && PyErr_Occurred()) throw PythonError();
  Py_XINCREF(item);
#endif
  return py::reinterpret_steal<py::object>(item);
}

// Destinations of the parameters' gradients: the arrays of `into`, a dict with the keys of `names`, or views of one new
// vector; false where one does not fit. Sets `arrays` to a list of them in the order of `names`, which keeps them alive
// whatever becomes of the dict; without `into`, the vector stands at its end.
template <class Real>
bool gradient_targets(const Sizes& s, py::handle into, py::handle names, Apart<Real>& apart, py::object& arrays,
                      std::vector<LayerParameters<Real*>>& layers, std::vector<HighwayParameters<Real*>>& highways) {
  const bool given = !into.is_none();
  if (given && (!PyDict_Check(into.ptr()) || PyDict_GET_SIZE(into.ptr()) != PyDict_GET_SIZE(names.ptr()))) return false;
  layers.resize(s.states());
  highways.resize(s.layers);
  py::object flat;
  size_t offset = 0;
  if (!given) {
    size_t total = 0;
    each_parameter<Real*>(s, layers.data(), highways.data(),
                          [&](Real*&, size_t rows, size_t cols, int) { total += rows * cols; });
    flat = new_vector<Real>(total);
  }
  arrays = owned(PyList_New(0));
  Py_ssize_t at = 0;
  PyObject* name = nullptr;
  bool ok = true;
  each_parameter<Real*>(s, layers.data(), highways.data(), [&](Real*& slot, size_t rows, size_t cols, int axes) {
    if (!ok) return;
    const Py_intptr_t shape[2] = {Py_intptr_t(rows), Py_intptr_t(cols)};
    py::object g;
    if (!given)
      g = new_view<Real>(flat, offset, axes, shape);
    else if (PyDict_Next(names.ptr(), &at, &name, nullptr))
      g = item_of(into, name);
    ok = bool(g);
    if (!ok) return;
    offset += rows * cols;
    const View<Real> v(g);
    ok = v && v.contiguous() && v.writable() && (axes == 1 ? v.has_shape(rows) : v.has_shape(rows, cols)) &&
         (!given || apart.writes(v));
    if (!ok) return;
    slot = v.data();
    if (PyList_Append(arrays.ptr(), g.ptr()) != 0) throw PythonError();
  });
  if (!given && PyList_Append(arrays.ptr(), flat.ptr()) != 0) throw PythonError();
  return ok && (!given || !PyDict_Next(names.ptr(), &at, &name, nullptr));
}

struct BackwardArguments {
  py::handle dy, dstate, into, names, dcells, norms;
  bool input_grad, state_grad, accumulate;
};

template <class Real>
py::object backward_as(const Network& net, const PyTape& kept, const BackwardArguments& a) {
  const Sizes& s = net.sizes();
  const Tape<Real>& tape = *std::get<std::unique_ptr<Tape<Real>>>(kept.tape);
  const int ndim = int(kept.x_shape.size());
  Apart<Real> apart;
  auto sequence = [&](py::handle given, size_t columns, Plane<const Real>& plane) {
    if (given.is_none()) return true;
    const View<Real> v(given);
    if (!v || v.ndim() != ndim || v.shape(ndim - 1) != columns || !v.has_rows()) return false;
    for (int i = 0; i < ndim - 1; ++i)
      if (v.shape(i) != kept.x_shape[size_t(i)]) return false;
    plane = v.template plane<const Real>(kept.batch_first);
    apart.reads(v);
    return true;
  };
  BackwardCall<Real> call = {};
  call.tape = &tape;
  if (!sequence(a.dy, s.output(), call.dy) || !sequence(a.dcells, s.directions * s.cell(), call.dcells)) return none();
  const StatePair<Real> dstate(a.dstate, s, kept.batched, tape.batch, true);
  if (!dstate.ok) return none();
  for (const auto& part : {dstate.h, dstate.c})
    if (part) apart.reads(*part);
  call.dh = dstate.h_data();
  call.dc = dstate.c_data();
  if (!a.norms.is_none()) {
    if (!PyTuple_CheckExact(a.norms.ptr()) || PyTuple_GET_SIZE(a.norms.ptr()) != 2) return none();
    Real** const to[2] = {&call.dh_norm, &call.dc_norm};
    for (int i = 0; i < 2; ++i) {
      const View<Real> v(PyTuple_GET_ITEM(a.norms.ptr(), i));
      if (!v || !v.contiguous() || !v.writable() || !v.has_shape(s.states(), tape.steps, tape.batch) ||
          !apart.writes(v))
        return none();
      *to[i] = v.data();
    }
  }

  std::vector<LayerParameters<Real*>> layers;
  std::vector<HighwayParameters<Real*>> highways;
  py::object gradients;
  if (!gradient_targets(s, a.into, a.names, apart, gradients, layers, highways)) return none();
  call.gradients = layers.data();
  call.d_highways = highways.data();
  call.add = a.accumulate;
  py::object dx = none();
  if (a.input_grad) {
    Py_intptr_t shape[3];
    for (int i = 0; i < ndim; ++i) shape[i] = Py_intptr_t(kept.x_shape[size_t(i)]);
    dx = new_array<Real>(ndim, shape);
    call.dx = View<Real>(dx).template plane<Real>(kept.batch_first);
  }
  py::object dh0 = a.state_grad ? new_state<Real>(s, s.recurrent(), kept.batched, tape.batch) : none();
  py::object dc0 = new_state<Real>(s, s.cell(), kept.batched, tape.batch);
  if (a.state_grad) call.dh0 = data_of<Real>(dh0);
  call.dc0 = data_of<Real>(dc0);
  bool done;
  {
    const CoreCall core(net.flops(tape.steps * tape.batch) * 2);
    call.interrupted = core.interrupted();
    done = backward(call);
  }
  require_done(done);
  if (!a.state_grad) dc0 = none();
  return tuple_of(std::move(dx), std::move(dh0), std::move(dc0), std::move(gradients));
}

template <class Real>
py::object make_tape_as(const Network& net, py::handle x_, py::handle state_, py::handle y_, py::handle gates_,
                        py::handle c_) {
  const Sizes& s = net.sizes();
  const size_t H = s.hidden;
  const View<Real> x(x_), y(y_), gates(gates_), c(c_);
  if (!x || x.ndim() != 3 || !x.contiguous() || x.shape(2) != s.input) return none();
  const size_t steps = x.shape(0), B = x.shape(1);
  const StatePair<Real> state(state_, s, true, B, false);
  if (!state.ok || !y || !gates || !c || !y.contiguous() || !gates.contiguous() || !c.contiguous() ||
      !y.has_shape(steps, B, H) || !gates.has_shape(steps, B, size_t(4), H) || !c.has_shape(steps, B, H))
    return none();
  auto tape = std::make_unique<Tape<Real>>(net.weights<Real>(), net.family().spare<Real>(), steps, B, nullptr, nullptr,
                                           Masks());
  tape->fill(x.data(), y.data(), gates.data(), c.data(), state.h_data(), state.c_data());
  return Object<PyTape>::make(PyTape{std::move(tape), net.family().id, true, false, {steps, B, s.input}, {}});
}

// A new array that read(tape, state, data) fills in; it has H columns, and 4 rows of them for gates.
template <class F>
py::object read_tape(const PyTape& tape, py::handle state, bool gates, const char* missing, F&& read) {
  return std::visit(
      [&](const auto& t) {
        using Real = std::decay_t<decltype(t->x[0])>;
        const Sizes& s = t->weights->sizes;
        const size_t k = to_size(state);
        if (k >= s.states() || !s.cell()) throw py::index_error(missing);
        Py_intptr_t shape[4] = {Py_intptr_t(t->steps), Py_intptr_t(t->batch), 4, Py_intptr_t(s.cell())};
        if (!gates) shape[2] = shape[3];
        py::object array = new_array<Real>(gates ? 4 : 3, shape);
        const CoreCall core;
        read(*t, k, data_of<Real>(array));
        return array;
      },
      tape.tape);
}

py::object gates(PyTape& tape, py::handle state) {
  return read_tape(tape, state, true, "no such gates", [](const auto& t, size_t k, auto* to) { t.read_gates(k, to); });
}

py::object cells(PyTape& tape, py::handle state) {
  return read_tape(tape, state, false, "no such cells", [](const auto& t, size_t k, auto* to) { t.read_cells(k, to); });
}

py::object nbytes(const PyTape& tape) {
  return number(std::visit([](const auto& t) { return t->bytes(); }, tape.tape));
}

py::object network_id(const PyTape& tape) { return number(tape.network); }

py::object x_shape(const PyTape& tape) {
  py::object shape = owned(PyTuple_New(Py_ssize_t(tape.x_shape.size())));
  for (size_t i = 0; i < tape.x_shape.size(); ++i)
    PyTuple_SET_ITEM(shape.ptr(), Py_ssize_t(i), number(tape.x_shape[i]).release().ptr());
  return shape;
}

}  // namespace

py::object backward(Network& net, py::handle tape, py::handle dy, py::handle dstate, py::handle input_grad,
                    py::handle state_grad, py::handle into, py::handle names, py::handle accumulate, py::handle dcells,
                    py::handle norms) {
  if (!Object<PyTape>::is(tape)) throw py::type_error("tape must be a Tape");
  if (!PyDict_CheckExact(names.ptr())) throw py::type_error("names must be a dict");
  for (const py::handle flag : {input_grad, state_grad, accumulate})
    if (!PyBool_Check(flag.ptr())) return none();
  const PyTape& kept = Object<PyTape>::value(tape.ptr());
  if (kept.network != net.family().id) throw py::value_error("this tape was recorded by another network");
  const BackwardArguments a = {
      dy, dstate, into, names, dcells, norms, is_true(input_grad), is_true(state_grad), is_true(accumulate)};
  return net.is_double() ? backward_as<double>(net, kept, a) : backward_as<float>(net, kept, a);
}

py::object make_tape(Network& net, py::handle x, py::handle state, py::handle y, py::handle gates, py::handle c) {
  refuse_compact(net.sizes());
  if (!can_fill(net.sizes()))
    throw py::value_error("a tape can be made for a plain network of one layer and direction only");
  return net.is_double() ? make_tape_as<double>(net, x, state, y, gates, c)
                         : make_tape_as<float>(net, x, state, y, gates, c);
}

void register_tape(py::module_& m) {
  static PyMethodDef methods[] = {Method<&gates>::entry("gates"), Method<&cells>::entry("cells"), {}};
  static PyGetSetDef properties[] = {property<PyTape, &nbytes>("nbytes"),
                                     property<PyTape, &x_shape>("x_shape"),
                                     property<PyTape, &network_id>("network"),
                                     {}};
  Object<PyTape>::define(m, "quadgate._core.Tape", nullptr, methods, properties);
}

}  // namespace quadgate
