// Network for Python. No rules of its own: what is not plain is answered with None, and the Python side converts or
// complains.
#include "bind/py_network.h"

#include <algorithm>

#include "bind/method.h"
#include "rnn/forward/forward.h"

namespace quadgate {
namespace {

// The lengths of an argument, copied before they are believed: another thread could be writing to the array.
bool copy_lengths(py::handle h, size_t batch, size_t steps, std::vector<int64_t>& lengths) {
  const View<int64_t> n(h);
  if (!n || !n.contiguous() || !n.has_shape(batch)) return false;
  lengths.assign(n.data(), n.data() + batch);
  return std::all_of(lengths.begin(), lengths.end(), [=](int64_t v) { return v >= 0 && uint64_t(v) <= steps; });
}

// The resets of an argument, time-major, for the same reason; bytes of 0 or 1.
template <class Real>
bool copy_resets(py::handle h, const View<Real>& x, bool swapped, std::vector<unsigned char>& resets) {
  const View<bool> v(h);
  if (!v || !v.contiguous() || v.ndim() != x.ndim() - 1) return false;
  for (int i = 0; i < v.ndim(); ++i)
    if (v.shape(i) != x.shape(i)) return false;
  const auto* from = reinterpret_cast<const unsigned char*>(v.data());
  resets.resize(v.size());
  const size_t rows = v.ndim() == 2 ? v.shape(0) : v.size(), cols = v.ndim() == 2 ? v.shape(1) : 1;
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < cols; ++j) resets[swapped ? j * rows + i : i * cols + j] = from[i * cols + j] != 0;
  return true;
}

// Masks by the names that the Python side gives them; false where one is missing, superfluous or not plain.
bool read_masks(py::handle given, const Sizes& s, size_t steps, size_t batch, Masks& masks,
                std::vector<py::object>& held) {
  const Options& o = s.options;
  size_t used = 0;
  const bool any = !given.is_none();
  if (any && !PyDict_CheckExact(given.ptr())) return false;
  auto read = [&](double rate, const std::string& name, std::vector<const unsigned char*>& list, auto... shape) {
    if (rate == 0) return true;
    PyObject* item = any ? PyDict_GetItemString(given.ptr(), name.c_str()) : nullptr;
    if (!item) return false;
    const View<bool> v(item);
    if (!v || !v.contiguous() || !v.has_shape(shape...)) return false;
    ++used;
    held.push_back(py::reinterpret_borrow<py::object>(item));
    list.push_back(reinterpret_cast<const unsigned char*>(v.data()));
    return true;
  };
  const size_t R = s.recurrent(), H = s.hidden;
  for (size_t l = 0; l < s.layers; ++l) {
    for (size_t d = 0; d < s.directions; ++d) {
      const std::string suffix = "_l" + std::to_string(l) + (d ? "_reverse" : "");
      if (!read(o.weight_drop, "weight_drop" + suffix, masks.weight, s.gates() * H, R) ||
          !read(o.recurrent_dropout, "recurrent_dropout" + suffix, masks.recurrent, batch, R) ||
          !read(o.cell.zoneout_h, "zoneout_h" + suffix, masks.zoneout_h, steps, batch, R) ||
          !read(o.cell.zoneout_c, "zoneout_c" + suffix, masks.zoneout_c, steps, batch, H))
        return false;
    }
    if (l + 1 < s.layers && !read(o.dropout, "dropout_l" + std::to_string(l), masks.dropout, steps, batch, s.output()))
      return false;
  }
  return !any || used == size_t(PyDict_GET_SIZE(given.ptr()));
}

// An array of x's leading axes and `columns` columns: `out` where that is given and fits, else a new one; null where it
// does not fit.
template <class Real>
py::object output(py::handle out_, const View<Real>& x, size_t columns, const StatePair<Real>& state) {
  if (out_.is_none()) {
    Py_intptr_t shape[3];
    for (int i = 0; i < x.ndim() - 1; ++i) shape[i] = Py_intptr_t(x.shape(i));
    shape[x.ndim() - 1] = Py_intptr_t(columns);
    return new_array<Real>(x.ndim(), shape);
  }
  const View<Real> out(out_);
  if (!out || out.ndim() != x.ndim() || out.shape(out.ndim() - 1) != columns || !out.has_rows() || !out.writable() ||
      out.overlaps(x) || (state.h && (out.overlaps(*state.h) || out.overlaps(*state.c))))
    return {};
  for (int i = 0; i < x.ndim() - 1; ++i)
    if (out.shape(i) != x.shape(i) || (out.shape(i) > 1 && out.stride(i) == 0)) return {};
  return py::reinterpret_borrow<py::object>(out_);
}

struct ForwardArguments {
  py::handle x, state, lengths, out, resets, masks;
  bool training, cells;
};

template <class Real>
py::object forward_as(const Network& net, const ForwardArguments& a) {
  const Sizes& s = net.sizes;
  const View<Real> x(a.x);
  if (!x || (x.ndim() != 3 && x.ndim() != 2) || x.shape(x.ndim() - 1) != s.input || !x.has_rows()) return py::none();
  const bool batched = x.ndim() == 3, swapped = batched && net.batch_first;
  const size_t steps = x.shape(swapped ? 1 : 0), batch = batched ? x.shape(swapped ? 0 : 1) : 1;
  const StatePair<Real> state(a.state, s, batched, batch, false);
  if (!state.ok) return py::none();
  std::vector<int64_t> lengths;
  if (!a.lengths.is_none() && !copy_lengths(a.lengths, batch, steps, lengths)) return py::none();
  std::vector<unsigned char> resets;
  if (!a.resets.is_none() &&
      (!copy_resets(a.resets, x, swapped, resets) ||
       (!a.out.is_none() && View<Real>(a.out) && View<Real>(a.out).overlaps(View<bool>(a.resets)))))
    return py::none();
  Masks masks;
  std::vector<py::object> held;
  if (a.training && !read_masks(a.masks, s, steps, batch, masks, held)) return py::none();
  py::object y = output(a.out, x, s.output(), state), cells;
  if (!y) return py::none();
  if (a.cells) cells = output(py::none(), x, s.directions * s.cell(), state);
  py::object h = new_state<Real>(s, s.recurrent(), batched, batch), c = new_state<Real>(s, s.cell(), batched, batch);

  if (!a.training) net.spare<Real>()->drop();
  auto weights = net.weights<Real>();
  std::unique_ptr<PyTape> kept;
  ForwardCall<Real> call;  // all of it is set below
  call.steps = steps;
  call.batch = batch;
  call.x = x.template plane<const Real>(swapped);
  call.lengths = a.lengths.is_none() ? nullptr : lengths.data();
  call.resets = resets.empty() ? nullptr : resets.data();
  call.resets_step = batch;
  call.resets_row = 1;
  call.h0 = state.h_data();
  call.c0 = state.c_data();
  call.y = View<Real>(y).template plane<Real>(swapped);
  if (a.cells) call.cells = View<Real>(cells).template plane<Real>(swapped);
  call.h = data_of<Real>(h);
  call.c = data_of<Real>(c);
  call.tape = nullptr;
  call.interrupted = interrupted;
  bool done;
  {
    Unlocked unlocked(flops_of(s, steps * batch));
    if (a.training) {
      const auto whole = weights;
      if (!masks.weight.empty())
        weights = std::make_shared<const Weights<Real>>(*whole, masks.weight, s.options.weight_drop);
      auto tape =
          std::make_unique<Tape<Real>>(weights, net.spare<Real>(), steps, batch, call.lengths, call.resets, masks);
      tape->made_of = whole;
      call.tape = tape.get();
      kept = std::make_unique<PyTape>();
      kept->tape = std::move(tape);
    }
    call.weights = weights.get();
    done = forward(call);
  }
  require_done(done);
  py::object end = pair(std::move(h), std::move(c));
  if (!a.training) return a.cells ? py::object(py::make_tuple(y, end, cells)) : pair(std::move(y), std::move(end));
  kept->network = net.id;
  kept->batch_axes = batched;
  kept->batch_first = swapped;
  for (int i = 0; i < x.ndim(); ++i) kept->x_shape.push_back(x.shape(i));
  kept->held = std::move(held);
  py::object tape = py::cast(std::move(kept));
  return a.cells ? py::tuple(py::make_tuple(y, end, cells, tape)) : py::tuple(py::make_tuple(y, end, tape));
}

py::object forward_any(const Network& net, ForwardArguments a, py::handle cells) {
  if (!PyBool_Check(cells.ptr())) return py::none();
  a.cells = cells.is(py_true());
  return net.is_double ? forward_as<double>(net, a) : forward_as<float>(net, a);
}

py::object infer(Network& net, py::handle x, py::handle state, py::handle lengths, py::handle out, py::handle resets,
                 py::handle cells) {
  return forward_any(net, {x, state, lengths, out, resets, Py_None, false, false}, cells);
}

py::object train(Network& net, py::handle x, py::handle state, py::handle lengths, py::handle resets, py::handle cells,
                 py::handle masks) {
  return forward_any(net, {x, state, lengths, Py_None, resets, masks, true, false}, cells);
}

// Sets an attribute if it still is the expected object. One call, in which no other thread and no signal handler runs;
// a lock in Python could be left behind by an interrupt.
bool replace(py::handle object, py::handle name, py::handle expected, py::handle value) {
  bool same = false;
  int error = 0;
#ifdef Py_GIL_DISABLED
  Py_BEGIN_CRITICAL_SECTION(object.ptr());
#endif
  const auto now = py::reinterpret_steal<py::object>(PyObject_GetAttr(object.ptr(), name.ptr()));
  error = now ? 0 : -1;
  same = now.is(expected);
  if (same) error = PyObject_SetAttr(object.ptr(), name.ptr(), value.ptr());
#ifdef Py_GIL_DISABLED
  Py_END_CRITICAL_SECTION();
#endif
  if (error) throw py::error_already_set();
  return same;
}

PyTypeObject* network_type = nullptr;  // set when the module is imported

}  // namespace

const Network& network_of(py::handle object) {
  if (Py_TYPE(object.ptr()) == network_type) {  // which is final: the object holds a Network and nothing else
    void* network = reinterpret_cast<py::detail::instance*>(object.ptr())->get_value_and_holder().value_ptr();
    if (network) return *static_cast<const Network*>(network);
  }
  throw py::type_error("expected a network");
}

void register_network(py::module_& m) {
  py::class_<Network, std::shared_ptr<Network>> type(m, "Network", py::is_final());
  network_type = reinterpret_cast<PyTypeObject*>(type.ptr());
  type.def(py::init<const std::string&, size_t, size_t, size_t, size_t, bool, py::handle, bool>())
      .def("successor", &Network::successor)
      .def("make_tape", &make_tape)
      .def("backward", &backward);
  m.def("replace", &replace);
  Method<&infer>::define(type, "forward");
  Method<&train>::define(type, "forward_tape");
}

}  // namespace quadgate
