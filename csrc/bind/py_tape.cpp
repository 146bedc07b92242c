// Tapes for Python: what is in them, and the way back through them.
#include <algorithm>

#include "bind/py_network.h"
#include "rnn/backward/backward.h"

namespace quadgate {
namespace {

// Where the gradients of the parameters go: the arrays of `into`, or new ones; false where one does not fit.
template <class Real>
bool gradient_targets(const Sizes& s, py::handle into, std::vector<View<Real>>& used, py::list& arrays,
                      std::vector<LayerParameters<Real*>>& layers, std::vector<HighwayParameters<Real*>>& highways) {
  const bool given = !into.is_none();
  if (given && !PyList_CheckExact(into.ptr())) return false;
  layers.resize(s.states());
  highways.resize(s.layers);
  Py_ssize_t i = 0;
  bool ok = true;
  each_parameter<Real*>(s, layers.data(), highways.data(), [&](Real*& slot, size_t rows, size_t cols, int axes) {
    if (!ok) return;
    const Py_intptr_t shape[2] = {Py_intptr_t(rows), Py_intptr_t(cols)};
    ok = !given || i < PyList_GET_SIZE(into.ptr());
    if (!ok) return;
    py::object g =
        given ? py::reinterpret_borrow<py::object>(PyList_GET_ITEM(into.ptr(), i++)) : new_array<Real>(axes, shape);
    const View<Real> v(g);
    ok = v && v.contiguous() && v.writable() && (axes == 1 ? v.has_shape(rows) : v.has_shape(rows, cols));
    if (!ok) return;
    if (given) {
      for (const View<Real>& other : used) ok = ok && !v.overlaps(other);
      used.push_back(v);
    }
    slot = v.data();
    arrays.append(g);
  });
  return ok && (!given || i == PyList_GET_SIZE(into.ptr()));
}

template <class Real>
py::object backward_as(const Network& net, const PyTape& kept, py::handle dy_, py::handle dstate_, bool need_x,
                       py::handle into, bool accumulate, py::handle dcells_, py::handle norms) {
  const Sizes& s = net.sizes;
  const Tape<Real>& tape = *std::get<std::unique_ptr<Tape<Real>>>(kept.tape);
  const bool batched = kept.batch_axes == 1;
  const int ndim = int(kept.x_shape.size());
  std::vector<View<Real>> used;  // arrays that results may not share memory with
  auto sequence = [&](py::handle given, size_t columns, Plane<const Real>& plane) {
    if (given.is_none()) return true;
    const View<Real> v(given);
    if (!v || v.ndim() != ndim || v.shape(ndim - 1) != columns || !v.has_rows()) return false;
    for (int i = 0; i < ndim - 1; ++i)
      if (v.shape(i) != kept.x_shape[size_t(i)]) return false;
    plane = v.template plane<const Real>(kept.batch_first);
    used.push_back(v);
    return true;
  };
  BackwardCall<Real> call = {};
  call.tape = &tape;
  if (!sequence(dy_, s.output(), call.dy) || !sequence(dcells_, s.directions * s.cell(), call.dcells))
    return py::none();
  const StatePair<Real> dstate(dstate_, s, batched, tape.batch, true);
  if (!dstate.ok) return py::none();
  for (const auto& part : {dstate.h, dstate.c})
    if (part) used.push_back(*part);
  call.dh = dstate.h_data();
  call.dc = dstate.c_data();
  if (!norms.is_none()) {
    const auto pair_of = py::cast<py::tuple>(norms);
    Real** const to[2] = {&call.dh_norm, &call.dc_norm};
    for (size_t i = 0; i < 2; ++i) {
      const View<Real> v(pair_of[i]);
      if (!v || !v.contiguous() || !v.writable() || !v.has_shape(s.states(), tape.steps, tape.batch)) return py::none();
      *to[i] = v.data();
    }
  }

  std::vector<LayerParameters<Real*>> layers;
  std::vector<HighwayParameters<Real*>> highways;
  py::list gradients;
  if (!gradient_targets(s, into, used, gradients, layers, highways)) return py::none();
  call.gradients = layers.data();
  call.d_highways = highways.data();
  call.add = accumulate;
  py::object dx = py::none();
  if (need_x) {
    Py_intptr_t shape[3];
    for (int i = 0; i < ndim; ++i) shape[i] = Py_intptr_t(kept.x_shape[size_t(i)]);
    dx = new_array<Real>(ndim, shape);
    call.dx = View<Real>(dx).template plane<Real>(kept.batch_first);
  }
  py::object dh0 = new_state<Real>(s, s.recurrent(), batched, tape.batch);
  py::object dc0 = new_state<Real>(s, s.cell(), batched, tape.batch);
  call.dh0 = View<Real>(dh0).data();
  call.dc0 = View<Real>(dc0).data();
  call.interrupted = interrupted;
  bool done;
  {
    Unlocked unlocked(flops_of(s, tape.steps * tape.batch) * 2);
    done = backward(call);
  }
  require_done(done);
  return py::make_tuple(dx, dh0, dc0, gradients);
}

// (T,B,4,H): i, f, g, o of a state, activated; zeros past a row's length.
template <class Real>
py::object gates_of(const Tape<Real>& tape, size_t k) {
  const Sizes& s = tape.weights->sizes;
  const size_t H = s.cell(), B = tape.batch;
  if (k >= s.states() || !H) throw py::index_error("no such gates");
  const Py_intptr_t shape[4] = {Py_intptr_t(tape.steps), Py_intptr_t(B), 4, Py_intptr_t(H)};
  py::object result = new_array<Real>(4, shape);
  Real* to = View<Real>(result).data();
  const Real* from = tape.gates[k].data();
  const CellKind<Real>* kind = tape.weights->kind();
  const RowOrder order(tape.steps, B, tape.ragged ? tape.lengths.data() : nullptr);
  const Unlocked unlocked;
  std::fill(to, to + tape.steps * B * 4 * H, Real(0));
  for (size_t r = 0; r < B; ++r)
    for (size_t t = 0; t < order.length(r); ++t) {
      const size_t at = (t * B + order.index(r)) * 4 * H;
      std::copy(from + at, from + at + 4 * H, to + at);
      if (!kind) continue;  // what is taped are the arguments
      for (size_t g = 0; g < 4; ++g) {
        Real* gate = to + at + g * H;
        for (size_t u = 0; u < H; ++u)
          if (gate[u] > kind->gate_clip || gate[u] < -kind->gate_clip)
            gate[u] = gate[u] < 0 ? -kind->gate_clip : kind->gate_clip;
        tape.weights->kernels.activate(g == 2 ? kind->cell : kind->gate, gate, gate, H);
        if (g == 1 && kind->coupled)
          for (size_t u = 0; u < H; ++u) gate[u] = Real(1) - to[at + u];
      }
    }
  return result;
}

// (T,B,H): c of a state; zeros past a row's length.
template <class Real>
py::object cells_of(const Tape<Real>& tape, size_t k) {
  const size_t H = tape.weights->sizes.cell(), B = tape.batch;
  if (k >= tape.weights->sizes.states() || !H) throw py::index_error("no such cells");
  const Py_intptr_t shape[3] = {Py_intptr_t(tape.steps), Py_intptr_t(B), Py_intptr_t(H)};
  py::object result = new_array<Real>(3, shape);
  Real* to = View<Real>(result).data();
  const RowOrder order(tape.steps, B, tape.ragged ? tape.lengths.data() : nullptr);
  const Unlocked unlocked;
  std::copy(tape.c[k].data(), tape.c[k].data() + tape.steps * B * H, to);
  zero_padding<Real>(order, tape.steps, {to, B * H, H, 0}, H);
  return result;
}

template <class Real>
py::object make_tape_as(const Network& net, py::handle x_, py::handle state_, py::handle y_, py::handle gates_,
                        py::handle c_) {
  const Sizes& s = net.sizes;
  const size_t H = s.hidden;
  if (s.states() != 1 || !s.options.plain_cell() || s.options.projection || s.options.reverse)
    throw py::value_error("a tape can be made for a plain network of one layer and direction only");
  const View<Real> x(x_), y(y_), gates(gates_), c(c_);
  if (!x || x.ndim() != 3 || !x.contiguous() || x.shape(2) != s.input) return py::none();
  const size_t T_ = x.shape(0), B = x.shape(1), rows = T_ * B;
  const StatePair<Real> state(state_, s, true, B, false);
  if (!state.ok || !y || !gates || !c || !y.contiguous() || !gates.contiguous() || !c.contiguous() ||
      !y.has_shape(T_, B, H) || !gates.has_shape(T_, B, size_t(4), H) || !c.has_shape(T_, B, H))
    return py::none();
  const auto weights = net.weights<Real>();
  auto tape = std::make_unique<Tape<Real>>(weights, net.spare<Real>(), T_, B, nullptr, nullptr, Masks());
  std::copy(x.data(), x.data() + rows * s.input, tape->x.data());
  std::copy(y.data(), y.data() + rows * H, tape->y[0].data());
  std::copy(gates.data(), gates.data() + rows * 4 * H, tape->gates[0].data());
  std::copy(c.data(), c.data() + rows * H, tape->c[0].data());
  copy_or_zero(state.h_data(), B * H, tape->h0.data());
  copy_or_zero(state.c_data(), B * H, tape->c0.data());
  auto kept = std::make_unique<PyTape>();
  kept->tape = std::move(tape);
  kept->network = net.id;
  kept->batch_axes = 1;
  kept->batch_first = false;
  kept->x_shape = {T_, B, s.input};
  return py::cast(std::move(kept));
}

}  // namespace

py::object backward(const Network& net, const PyTape& tape, py::handle dy, py::handle dstate, py::handle need_x_,
                    py::handle into, bool accumulate, py::handle dcells, py::handle norms) {
  if (!PyBool_Check(need_x_.ptr())) return py::none();
  const bool need_x = need_x_.is(py_true());
  if (tape.network != net.id) throw py::value_error("this tape was recorded by another network");
  return net.is_double ? backward_as<double>(net, tape, dy, dstate, need_x, into, accumulate, dcells, norms)
                       : backward_as<float>(net, tape, dy, dstate, need_x, into, accumulate, dcells, norms);
}

py::object make_tape(const Network& net, py::handle x, py::handle state, py::handle y, py::handle gates, py::handle c) {
  return net.is_double ? make_tape_as<double>(net, x, state, y, gates, c)
                       : make_tape_as<float>(net, x, state, y, gates, c);
}

void register_tape(py::module_& m) {
  py::class_<PyTape>(m, "Tape", py::is_final())
      .def_property_readonly("nbytes",
                             [](const PyTape& t) { return std::visit([](auto& p) { return p->bytes(); }, t.tape); })
      .def_property_readonly("x_shape",
                             [](const PyTape& t) {
                               py::tuple shape(t.x_shape.size());
                               for (size_t i = 0; i < t.x_shape.size(); ++i) shape[i] = t.x_shape[i];
                               return shape;
                             })
      .def("gates",
           [](const PyTape& t, size_t k) { return std::visit([&](auto& p) { return gates_of(*p, k); }, t.tape); })
      .def("cells",
           [](const PyTape& t, size_t k) { return std::visit([&](auto& p) { return cells_of(*p, k); }, t.tape); });
}

}  // namespace quadgate
