// Network and Tape for Python. No rules of their own: what is not plain is answered with None, and the Python side
// converts or complains.
#include "network.h"

#include <algorithm>
#include <optional>

#include "../lstm/backward.h"
#include "../lstm/forward.h"

namespace fourgate {
namespace {

struct PyTape {
  std::variant<std::unique_ptr<Tape<float>>, std::unique_ptr<Tape<double>>> tape;
  uint64_t network;   // its id
  size_t batch_axes;  // 1, or 0 for an unbatched x
  bool batch_first;
  std::vector<size_t> x_shape;
};

// The (h, c) pair of an argument, plain or absent.
template <class T>
struct StatePair {
  std::optional<View<T>> h, c;
  bool ok = true;

  // Each (L*D,B,H), or (L*D,H) where x has no batch axis; with `optional_parts`, either may be None.
  StatePair(py::handle state, const Sizes& s, bool batched, size_t batch, bool optional_parts) {
    if (state.is_none()) return;
    if (!PyTuple_CheckExact(state.ptr()) || PyTuple_GET_SIZE(state.ptr()) != 2) {
      ok = false;
      return;
    }
    std::optional<View<T>>* parts[2] = {&h, &c};
    for (int i = 0; i < 2; ++i) {
      py::handle part = PyTuple_GET_ITEM(state.ptr(), i);
      if (optional_parts && part.is_none()) continue;
      View<T> v(part);
      ok = ok && v && v.contiguous() &&
           (batched ? v.has_shape(s.states(), batch, s.hidden) : v.has_shape(s.states(), s.hidden));
      *parts[i] = v;
    }
  }
  const T* h_data() const { return h ? h->data() : nullptr; }
  const T* c_data() const { return c ? c->data() : nullptr; }
};

// The lengths of an argument, copied before they are believed: another thread could be writing to the array.
bool copy_lengths(py::handle h, size_t batch, size_t steps, std::vector<int64_t>& lengths) {
  const View<int64_t> n(h);
  if (!n || !n.contiguous() || !n.has_shape(batch)) return false;
  lengths.assign(n.data(), n.data() + batch);
  return std::all_of(lengths.begin(), lengths.end(), [=](int64_t v) { return v >= 0 && uint64_t(v) <= steps; });
}

template <class T>
py::object forward_as(Network& net, py::handle x_, py::handle state_, py::handle lengths_, bool batch_first,
                      py::handle out_, bool training) {
  const Sizes& s = net.sizes;
  const View<T> x(x_);
  if (!x || (x.ndim() != 3 && x.ndim() != 2) || x.shape(x.ndim() - 1) != s.input || !x.has_rows()) return py::none();
  const bool batched = x.ndim() == 3, swapped = batched && batch_first;
  const size_t steps = x.shape(swapped ? 1 : 0), batch = batched ? x.shape(swapped ? 0 : 1) : 1;
  const StatePair<T> state(state_, s, batched, batch, false);
  if (!state.ok) return py::none();
  std::vector<int64_t> lengths;
  if (!lengths_.is_none() && !copy_lengths(lengths_, batch, steps, lengths)) return py::none();
  py::object y;
  if (out_.is_none()) {
    Py_intptr_t shape[3];
    for (int i = 0; i < x.ndim() - 1; ++i) shape[i] = Py_intptr_t(x.shape(i));
    shape[x.ndim() - 1] = Py_intptr_t(s.output());
    y = new_array<T>(x.ndim(), shape);
  } else {
    const View<T> out(out_);
    if (!out || out.ndim() != x.ndim() || out.shape(out.ndim() - 1) != s.output() || !out.has_rows() ||
        !out.writable() || out.overlaps(x) || (state.h && (out.overlaps(*state.h) || out.overlaps(*state.c))))
      return py::none();
    for (int i = 0; i < x.ndim() - 1; ++i)
      if (out.shape(i) != x.shape(i) || (out.shape(i) > 1 && out.stride(i) == 0)) return py::none();
    y = py::reinterpret_borrow<py::object>(out_);
  }
  py::object h = new_state<T>(s, batched, batch), c = new_state<T>(s, batched, batch);

  if (!training) net.spare<T>()->drop();
  auto weights = net.weights<T>();
  std::unique_ptr<PyTape> kept;
  std::vector<size_t> x_shape;
  for (int i = 0; i < x.ndim(); ++i) x_shape.push_back(x.shape(i));
  ForwardCall<T> call = {weights.get(),
                         steps,
                         batch,
                         x.template plane<const T>(swapped),
                         lengths_.is_none() ? nullptr : lengths.data(),
                         state.h_data(),
                         state.c_data(),
                         View<T>(y).template plane<T>(swapped),
                         View<T>(h).data(),
                         View<T>(c).data(),
                         nullptr,
                         interrupted};
  bool done;
  {
    Unlocked unlocked(flops_of(s, steps * batch));
    if (training) {
      auto tape = std::make_unique<Tape<T>>(weights, net.spare<T>(), steps, batch, call.lengths);
      call.tape = tape.get();
      kept = std::make_unique<PyTape>();
      kept->tape = std::move(tape);
    }
    done = forward(call);
  }
  require_done(done);
  if (!training) return pair(std::move(y), pair(std::move(h), std::move(c)));
  kept->network = net.id;
  kept->batch_axes = batched;
  kept->batch_first = swapped;
  kept->x_shape = std::move(x_shape);
  return py::make_tuple(y, pair(std::move(h), std::move(c)), py::cast(std::move(kept)));
}

template <class T>
py::object backward_as(Network& net, const PyTape& kept, py::handle dy_, py::handle dstate_, bool need_x,
                       py::handle into, bool accumulate) {
  const Sizes& s = net.sizes;
  const Tape<T>& tape = *std::get<std::unique_ptr<Tape<T>>>(kept.tape);
  if (tape.weights != net.weights<T>())
    throw std::runtime_error("the parameters have changed since this tape was recorded: run forward again");
  const bool batched = kept.batch_axes == 1;
  const int ndim = int(kept.x_shape.size());
  Plane<const T> dy;
  std::vector<View<T>> used;  // arrays that results may not share memory with
  if (!dy_.is_none()) {
    const View<T> v(dy_);
    if (!v || v.ndim() != ndim || v.shape(ndim - 1) != s.output() || !v.has_rows()) return py::none();
    for (int i = 0; i < ndim - 1; ++i)
      if (v.shape(i) != kept.x_shape[size_t(i)]) return py::none();
    dy = v.template plane<const T>(kept.batch_first);
    used.push_back(v);
  }
  const StatePair<T> dstate(dstate_, s, batched, tape.batch, true);
  if (!dstate.ok) return py::none();
  for (const auto& part : {dstate.h, dstate.c})
    if (part) used.push_back(*part);

  const size_t per_layer = s.bias ? 3 : 2, H = s.hidden;
  std::vector<ParameterGradients<T>> targets(s.states());
  py::list gradients;
  const bool given = !into.is_none();
  if (given && (!PyList_CheckExact(into.ptr()) || size_t(PyList_GET_SIZE(into.ptr())) != per_layer * s.states()))
    return py::none();
  for (size_t i = 0; i < s.states(); ++i) {
    T** const slots[3] = {&targets[i].weight_ih, &targets[i].weight_hh, &targets[i].bias};
    targets[i].bias = nullptr;
    for (size_t j = 0; j < per_layer; ++j) {
      const Py_intptr_t shape[2] = {Py_intptr_t(4 * H), Py_intptr_t(j == 0 ? s.input_of(i / s.directions) : H)};
      const int axes = j == 2 ? 1 : 2;
      py::object g =
          given ? py::reinterpret_borrow<py::object>(PyList_GET_ITEM(into.ptr(), Py_ssize_t(i * per_layer + j)))
                : new_array<T>(axes, shape);
      const View<T> v(g);
      if (!v || !v.contiguous() || !v.writable() ||
          !(axes == 1 ? v.has_shape(shape[0]) : v.has_shape(shape[0], shape[1])))
        return py::none();
      if (given) {
        for (const View<T>& other : used)
          if (v.overlaps(other)) return py::none();
        used.push_back(v);
      }
      *slots[j] = v.data();
      gradients.append(g);
    }
  }
  py::object dx = py::none();
  Plane<T> dx_plane;
  if (need_x) {
    Py_intptr_t shape[3];
    for (int i = 0; i < ndim; ++i) shape[i] = Py_intptr_t(kept.x_shape[size_t(i)]);
    dx = new_array<T>(ndim, shape);
    dx_plane = View<T>(dx).template plane<T>(kept.batch_first);
  }
  py::object dh0 = new_state<T>(s, batched, tape.batch), dc0 = new_state<T>(s, batched, tape.batch);
  const BackwardCall<T> call = {
      &tape,          dy,         dstate.h_data(), dstate.c_data(), dx_plane, View<T>(dh0).data(), View<T>(dc0).data(),
      targets.data(), accumulate, interrupted};
  bool done;
  {
    Unlocked unlocked(flops_of(s, tape.steps * tape.batch) * 2);
    done = backward(call);
  }
  require_done(done);
  return py::make_tuple(dx, dh0, dc0, gradients);
}

}  // namespace

void register_network(py::module_& m) {
  py::class_<PyTape>(m, "Tape")
      .def_property_readonly("nbytes",
                             [](const PyTape& t) { return std::visit([](auto& p) { return p->bytes(); }, t.tape); })
      .def_property_readonly("x_shape", [](const PyTape& t) {
        py::tuple shape(t.x_shape.size());
        for (size_t i = 0; i < t.x_shape.size(); ++i) shape[i] = t.x_shape[i];
        return shape;
      });

  py::class_<Network, std::shared_ptr<Network>>(m, "Network")
      .def(py::init<const std::string&, size_t, size_t, size_t, size_t, bool>())
      .def("set_parameters",
           [](Network& n, const py::list& params) {
             n.is_double ? n.set_parameters<double>(params) : n.set_parameters<float>(params);
           })
      .def("forward",
           [](Network& n, py::handle x, py::handle state, py::handle lengths, bool batch_first, py::handle out) {
             return n.is_double ? forward_as<double>(n, x, state, lengths, batch_first, out, false)
                                : forward_as<float>(n, x, state, lengths, batch_first, out, false);
           })
      .def("forward_tape",
           [](Network& n, py::handle x, py::handle state, py::handle lengths, bool batch_first) {
             return n.is_double ? forward_as<double>(n, x, state, lengths, batch_first, py::none(), true)
                                : forward_as<float>(n, x, state, lengths, batch_first, py::none(), true);
           })
      .def("backward", [](Network& n, const PyTape& tape, py::handle dy, py::handle dstate, bool need_x,
                          py::handle into, bool accumulate) {
        if (tape.network != n.id) throw py::value_error("this tape was recorded by another network");
        return n.is_double ? backward_as<double>(n, tape, dy, dstate, need_x, into, accumulate)
                           : backward_as<float>(n, tape, dy, dstate, need_x, into, accumulate);
      });
}

}  // namespace fourgate
