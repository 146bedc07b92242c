// Network for Python. Takes plain arrays of fitting shapes and explains nothing: returns None for all others, and
// Python then converts them or raises.
#include "bind/py_network.h"

#include <atomic>

#include "bind/gil.h"
#include "bind/py_options.h"
#include "bind/py_tape.h"
#include "bind/sequences.h"
#include "bind/states.h"
#include "rnn/forward/forward.h"

namespace quadgate {
namespace {

uint64_t next_id() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

// The bytes of dropped elements by the names that the Python side gives them; false where one is missing, superfluous
// or not plain. The arrays are added to `held`.
bool read_dropped(py::handle given, const Sizes& s, size_t steps, size_t batch, Masks& masks,
                  std::vector<py::object>& held) {
  const Options& o = s.options;
  size_t used = 0;
  const bool any = !given.is_none();
  if (any && !PyDict_CheckExact(given.ptr())) return false;
  auto read = [&](double rate, const std::string& name, std::vector<const unsigned char*>& list, auto... shape) {
    if (rate == 0) return true;
    if (!any) return false;
    PyObject* item = PyDict_GetItemWithError(given.ptr(), owned(PyUnicode_FromString(name.c_str())).ptr());
    if (!item && PyErr_Occurred()) throw PythonError();
    if (!item) return false;
    const View<bool> v(item);
    if (!v || !v.contiguous() || !v.has_shape(shape...)) return false;
    ++used;
    held.push_back(borrowed(item));
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

// An array of x's leading axes and `columns` columns: `given` where that fits and is apart from the inputs, else a new
// one; null where it does not fit.
template <class Real>
py::object output(py::handle given, const View<Real>& x, size_t columns, const StatePair<Real>& state,
                  py::handle lengths, py::handle resets) {
  Py_intptr_t shape[3];
  for (int i = 0; i < x.ndim() - 1; ++i) shape[i] = Py_intptr_t(x.shape(i));
  shape[x.ndim() - 1] = Py_intptr_t(columns);
  py::object array = result_array<Real>(given, x.ndim(), shape);
  if (!array || given.is_none()) return array;
  const View<Real> v(array);
  if (v.overlaps(x) || (state.h && (v.overlaps(*state.h) || v.overlaps(*state.c))) ||
      v.overlaps(View<int64_t>(lengths)) || v.overlaps(View<bool>(resets)))
    return {};
  return array;
}

struct ForwardArguments {
  py::handle x, state, lengths, out, resets, dropped;
  bool training, cells;
};

template <class Real>
py::object forward_as(const Network& net, const ForwardArguments& a) {
  const Sizes& s = net.sizes();
  const View<Real> x(a.x);
  if (!x || (x.ndim() != 3 && x.ndim() != 2) || x.shape(x.ndim() - 1) != s.input || !x.has_rows()) return none();
  const bool batched = x.ndim() == 3, swapped = batched && net.family().batch_first;
  const size_t steps = x.shape(swapped ? 1 : 0), batch = batched ? x.shape(swapped ? 0 : 1) : 1;
  const StatePair<Real> state(a.state, s, batched, batch, false);
  if (!state.ok) return none();
  std::vector<int64_t> lengths;
  if (!a.lengths.is_none() && !copy_lengths(a.lengths, batch, steps, lengths)) return none();
  std::vector<unsigned char> resets;
  if (!copy_resets(a.resets, x, swapped, resets)) return none();
  Masks masks;
  std::vector<py::object> held;
  if (a.training) refuse_compact(s);
  if (a.training && !read_dropped(a.dropped, s, steps, batch, masks, held)) return none();
  py::object y = output(a.out, x, s.output(), state, a.lengths, a.resets), cells;
  if (!y) return none();
  if (a.cells) cells = output(Py_None, x, s.directions * s.cell(), state, a.lengths, a.resets);
  py::object h = new_state<Real>(s, s.recurrent(), batched, batch), c = new_state<Real>(s, s.cell(), batched, batch);

  if (!a.training) net.family().spare<Real>()->drop();
  std::shared_ptr<const Weights<Real>> weights = net.weights<Real>();
  std::unique_ptr<Tape<Real>> tape;
  ForwardCall<Real> call;  // all of it is set below but what has a value already
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
  // Read before the GIL is released: another thread could give the array another shape.
  std::vector<size_t> x_shape;
  x_shape.reserve(3);
  if (a.training)
    for (int i = 0; i < x.ndim(); ++i) x_shape.push_back(x.shape(i));
  bool done;
  {
    const CoreCall core(net.flops(steps * batch));
    call.interrupted = core.interrupted();
    if (a.training) {
      const bool dropping = !masks.weight.empty();
      if (dropping) weights = std::make_shared<const Weights<Real>>(weights, masks.weight, s.options.weight_drop);
      tape = std::make_unique<Tape<Real>>(weights, net.family().spare<Real>(), steps, batch, call.lengths, call.resets,
                                          std::move(masks));
      tape->own_weights = dropping;
    }
    call.tape = tape.get();
    call.weights = weights.get();
    done = forward(call);
  }
  require_done(done);
  py::object state_after = tuple_of(std::move(h), std::move(c));
  if (!a.training)
    return a.cells ? tuple_of(std::move(y), std::move(state_after), std::move(cells))
                   : tuple_of(std::move(y), std::move(state_after));
  py::object kept = Object<PyTape>::make(
      PyTape{std::move(tape), net.family().id, batched, swapped, std::move(x_shape), std::move(held)});
  return a.cells ? tuple_of(std::move(y), std::move(state_after), std::move(cells), std::move(kept))
                 : tuple_of(std::move(y), std::move(state_after), std::move(kept));
}

py::object forward_any(const Network& net, ForwardArguments a, py::handle cells) {
  if (!PyBool_Check(cells.ptr())) return none();
  a.cells = is_true(cells);
  return net.is_double() ? forward_as<double>(net, a) : forward_as<float>(net, a);
}

py::object infer(Network& net, py::handle x, py::handle state, py::handle lengths, py::handle out, py::handle resets,
                 py::handle cells) {
  return forward_any(net, {x, state, lengths, out, resets, Py_None, false, false}, cells);
}

py::object train(Network& net, py::handle x, py::handle state, py::handle lengths, py::handle resets, py::handle cells,
                 py::handle dropped) {
  return forward_any(net, {x, state, lengths, Py_None, resets, dropped, true, false}, cells);
}

py::object successor(Network& net, py::handle list) { return Object<Network>::make(net.successor(list)); }

py::object unpack(Network& net, py::handle list) { return owned(PyBool_FromLong(net.unpack(list))); }

py::object network_id(const Network& net) { return number(net.family().id); }
py::object network_nbytes(const Network& net) { return number(net.nbytes()); }

// Network(dtype, input_size, hidden_size, num_layers, directions, bias, options, batch_first): without parameters.
PyObject* new_network(PyTypeObject*, PyObject* args, PyObject* keywords) {
  return guarded([&] {
    if (keywords && PyDict_GET_SIZE(keywords) != 0) throw py::type_error("Network takes no keyword arguments");
    const char* dtype;
    Py_ssize_t sizes[4];
    int bias, batch_first;
    PyObject* options;
    if (!PyArg_ParseTuple(args, "snnnnpOp:Network", &dtype, &sizes[0], &sizes[1], &sizes[2], &sizes[3], &bias, &options,
                          &batch_first))
      throw PythonError();
    for (const Py_ssize_t n : sizes)
      if (n < 1) throw py::value_error("sizes must be positive, got " + std::to_string(n));
    const Sizes all = {size_t(sizes[0]), size_t(sizes[1]), size_t(sizes[2]),
                       size_t(sizes[3]), bias != 0,        read_options(options)};
    check_options(all);
    return Object<Network>::make(std::make_shared<const Family>(dtype, all, batch_first != 0));
  });
}

template <class Real>
auto new_spare() {
  return std::make_shared<SpareTape<Real>>();
}

}  // namespace

void refuse_compact(const Sizes& s) {
  if (s.compact_type()) throw py::type_error("a network of compact weights cannot be trained");
}

Family::Family(const std::string& dtype, const Sizes& sizes_, bool batch_first_)
    : sizes(sizes_),
      is_double(dtype == "float64"),
      batch_first(batch_first_),
      id(next_id()),
      spare_(is_double ? decltype(spare_)(new_spare<double>()) : decltype(spare_)(new_spare<float>())) {
  if (is_double && sizes.compact_type()) throw py::value_error("compact weights are of float32 networks");
  if (!is_double && dtype != "float32") throw py::value_error("dtype must be float32 or float64, not " + dtype);
}

size_t Network::nbytes() const {
  return is_double() ? weights<double>()->used_bytes() : weights<float>()->used_bytes();
}

const Network& network_of(py::handle object) {
  if (!Object<Network>::is(object)) throw py::type_error("expected a network");
  return Object<Network>::value(object.ptr());
}

void register_network(py::module_& m) {
  static PyMethodDef methods[] = {Method<&successor>::entry("successor"),
                                  Method<&infer>::entry("forward"),
                                  Method<&unpack>::entry("unpack"),
                                  Method<&train>::entry("forward_tape"),
                                  Method<&backward>::entry("backward"),
                                  Method<&make_tape>::entry("make_tape"),
                                  {}};
  static PyGetSetDef properties[] = {
      property<Network, &network_id>("id"), property<Network, &network_nbytes>("nbytes"), {}};
  Object<Network>::define(m, "quadgate._core.Network", &new_network, methods, properties);
}

}  // namespace quadgate
