// Bindings: look at the arguments, release the GIL, call the core. No rules of their own: what is not plain is answered
// with None, and the Python side converts or complains.
#include <atomic>
#include <optional>
#include <tuple>
#include <variant>

#include "arrays.h"
#include "dispatch.h"
#include "lstm/backward.h"
#include "lstm/forward.h"
#include "lstm/stream.h"
#include "machine.h"
#include "pool.h"

namespace fourgate {
namespace {

// Runs Python's signal handlers; true leaves their exception set for the caller to throw.
bool interrupted() {
  py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

// Gives the GIL up for work that takes longer than the switch.
class Unlocked {
 public:
  explicit Unlocked(double flops) {
    if (flops > 5e5) release_.emplace();
  }

 private:
  std::optional<py::gil_scoped_release> release_;
};

void require_done(bool done) {
  if (!done) throw py::error_already_set();
}

// One network of either type. Its weights are replaced as a whole, so that running calls keep theirs.
class Network {
 public:
  Network(const std::string& dtype, size_t input, size_t hidden, size_t layers, size_t directions, bool bias)
      : sizes{input, hidden, layers, directions, bias}, is_double(dtype == "float64") {
    if (!is_double && dtype != "float32") throw py::value_error("dtype must be float32 or float64, not " + dtype);
    if (!input || !hidden || !layers || (directions != 1 && directions != 2))
      throw py::value_error("sizes must be positive, and directions 1 or 2");
  }

  template <class T>
  std::shared_ptr<const Weights<T>> weights() const {
    std::lock_guard<std::mutex> lock(mutex_);
    auto& w = std::get<std::shared_ptr<const Weights<T>>>(weights_);
    if (!w) throw std::runtime_error("the network has no parameters yet");
    return w;
  }

  template <class T>
  const std::shared_ptr<SpareTape<T>>& spare() const {
    return std::get<std::shared_ptr<SpareTape<T>>>(spares_);
  }

  template <class T>
  void set_parameters(const py::list& list) {
    const size_t per_layer = sizes.bias ? 3 : 2, H = sizes.hidden;
    if (list.size() != per_layer * sizes.states()) throw py::value_error("wrong number of parameters");
    std::vector<Parameters<T>> params;
    for (size_t i = 0; i < sizes.states(); ++i) {
      View<T> ih(list[per_layer * i]), hh(list[per_layer * i + 1]);
      View<T> bias(sizes.bias ? py::handle(list[per_layer * i + 2]) : py::none());
      if (!ih || !ih.contiguous() || !ih.has_shape(4 * H, sizes.input_of(i / sizes.directions)) || !hh ||
          !hh.contiguous() || !hh.has_shape(4 * H, H) ||
          (sizes.bias && (!bias || !bias.contiguous() || !bias.has_shape(4 * H))))
        throw py::value_error("parameters must be C-contiguous arrays of the network's dtype and shapes");
      params.push_back({ih.data(), hh.data(), sizes.bias ? bias.data() : nullptr});
    }
    std::shared_ptr<const Weights<T>> fresh;
    {
      py::gil_scoped_release unlocked;
      fresh = std::make_shared<const Weights<T>>(sizes, params.data());
      std::lock_guard<std::mutex> lock(mutex_);
      weights_ = fresh;
    }
  }

  const Sizes sizes;
  const bool is_double;
  const uint64_t id = next_id();  // an address could come back for another network

 private:
  static uint64_t next_id() {
    static std::atomic<uint64_t> last{0};
    return ++last;
  }

  const std::tuple<std::shared_ptr<SpareTape<float>>, std::shared_ptr<SpareTape<double>>> spares_{
      std::make_shared<SpareTape<float>>(), std::make_shared<SpareTape<double>>()};
  mutable std::mutex mutex_;
  std::variant<std::shared_ptr<const Weights<float>>, std::shared_ptr<const Weights<double>>> weights_ =
      is_double ? decltype(weights_)(std::shared_ptr<const Weights<double>>())
                : decltype(weights_)(std::shared_ptr<const Weights<float>>());
};

struct PyTape {
  std::variant<std::unique_ptr<Tape<float>>, std::unique_ptr<Tape<double>>> tape;
  uint64_t network;   // its id
  size_t batch_axes;  // 1, or 0 for an unbatched x
  bool batch_first;
  std::vector<size_t> x_shape;
};

double flops_of(const Sizes& s, size_t rows) {
  return 8.0 * double(rows) * double(s.hidden * s.directions) *
         double((s.input + s.hidden) + (s.layers - 1) * (s.hidden + s.output()));
}

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

template <class T>
py::object new_state(const Sizes& s, bool batched, size_t batch) {
  const Py_intptr_t shape[3] = {Py_intptr_t(s.states()), Py_intptr_t(batch), Py_intptr_t(s.hidden)};
  const Py_intptr_t flat[2] = {shape[0], shape[2]};
  return batched ? new_array<T>(3, shape) : new_array<T>(2, flat);
}

py::tuple pair(py::object a, py::object b) {
  PyObject* t = PyTuple_New(2);
  if (!t) throw py::error_already_set();
  PyTuple_SET_ITEM(t, 0, a.release().ptr());
  PyTuple_SET_ITEM(t, 1, b.release().ptr());
  return py::reinterpret_steal<py::tuple>(t);
}

// Whether lengths are as many as rows and within 0..steps.
bool valid_lengths(const View<int64_t>& n, size_t batch, size_t steps) {
  if (!n || !n.contiguous() || !n.has_shape(batch)) return false;
  for (size_t b = 0; b < batch; ++b)
    if (n.data()[b] < 0 || uint64_t(n.data()[b]) > steps) return false;
  return true;
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
  std::vector<int64_t> lengths;  // a copy: the array could change while the GIL is released
  if (!lengths_.is_none()) {
    const View<int64_t> n(lengths_);
    if (!valid_lengths(n, batch, steps)) return py::none();
    lengths.assign(n.data(), n.data() + batch);
  }
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

  auto weights = net.weights<T>();
  std::unique_ptr<PyTape> kept;
  ForwardCall<T> call = {weights.get(),
                         steps,
                         batch,
                         x.template plane<const T>(swapped),
                         lengths.empty() ? nullptr : lengths.data(),
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
  for (int i = 0; i < x.ndim(); ++i) kept->x_shape.push_back(x.shape(i));
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
  bool done;
  {
    Unlocked unlocked(flops_of(s, tape.steps * tape.batch) * 2);
    done = backward<T>({&tape, dy, dstate.h_data(), dstate.c_data(), dx_plane, View<T>(dh0).data(), View<T>(dc0).data(),
                        targets.data(), accumulate, interrupted});
  }
  require_done(done);
  return py::make_tuple(dx, dh0, dc0, gradients);
}

// A stream of either type; calls from several threads take turns.
template <class T>
class PyStreamOf;

class PyStream {
 public:
  PyStream(std::shared_ptr<Network> net, size_t batch) : net_(std::move(net)) {
    if (net_->sizes.directions != 1) throw py::value_error("a stream needs a network of one direction");
    if (batch == 0) throw py::value_error("batch must be at least 1");
    if (net_->is_double)
      stream_.emplace<Stream<double>>(net_->sizes, batch);
    else
      stream_.emplace<Stream<float>>(net_->sizes, batch);
  }

  py::object step(py::handle x, py::handle out) {
    return net_->is_double ? step_as<double>(x, out) : step_as<float>(x, out);
  }
  py::object run(py::handle x, py::handle out) {
    return net_->is_double ? run_as<double>(x, out) : run_as<float>(x, out);
  }
  void reset(py::handle mask) { net_->is_double ? reset_as<double>(mask) : reset_as<float>(mask); }
  py::tuple get_state() { return net_->is_double ? get_as<double>() : get_as<float>(); }
  void set_state(py::handle h, py::handle c) { net_->is_double ? set_as<double>(h, c) : set_as<float>(h, c); }

 private:
  // Never waits with the GIL held: the thread that has the stream may need the GIL to go on.
  std::unique_lock<std::mutex> lock() {
    std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock) {
      py::gil_scoped_release unlocked;
      lock.lock();
    }
    return lock;
  }

  template <class T>
  py::object output(const View<T>& x, int ndim, const Py_intptr_t* shape, py::handle out_) {
    if (out_.is_none()) return new_array<T>(ndim, shape);
    const View<T> out(out_);
    if (!out || out.ndim() != ndim || !out.has_rows() || !out.writable() || out.overlaps(x)) return py::none();
    for (int i = 0; i < ndim; ++i)
      if (out.shape(i) != size_t(shape[i]) || (i + 1 < ndim && shape[i] > 1 && out.stride(i) == 0)) return py::none();
    return py::reinterpret_borrow<py::object>(out_);
  }

  template <class T>
  py::object step_as(py::handle x_, py::handle out_) {
    Stream<T>& stream = std::get<Stream<T>>(stream_);
    const Sizes& s = net_->sizes;
    const View<T> x(x_);
    const bool flat = x && x.ndim() == 1 && stream.batch() == 1;
    if (!x || !x.has_rows() || !(flat ? x.has_shape(s.input) : x.has_shape(stream.batch(), s.input))) return py::none();
    const Py_intptr_t shape[2] = {Py_intptr_t(flat ? s.hidden : stream.batch()), Py_intptr_t(s.hidden)};
    py::object y = output(x, flat ? 1 : 2, shape, out_);
    if (y.is_none()) return y;
    const View<T> v(y);
    auto guard = lock();
    auto weights = net_->weights<T>();
    bool done;
    {
      Unlocked unlocked(flops_of(s, stream.batch()));
      done = stream.step(*weights, x.data(), flat ? 0 : x.stride(0), v.data(), flat ? 0 : v.stride(0), interrupted);
    }
    require_done(done);
    return y;
  }

  template <class T>
  py::object run_as(py::handle x_, py::handle out_) {
    Stream<T>& stream = std::get<Stream<T>>(stream_);
    const Sizes& s = net_->sizes;
    const View<T> x(x_);
    const bool flat = x && x.ndim() == 2 && stream.batch() == 1;
    if (!x || (x.ndim() != 3 && !flat) || !x.has_rows()) return py::none();
    if (x.shape(x.ndim() - 1) != s.input || (!flat && x.shape(1) != stream.batch())) return py::none();
    Py_intptr_t shape[3] = {Py_intptr_t(x.shape(0)), Py_intptr_t(flat ? s.hidden : stream.batch()),
                            Py_intptr_t(s.hidden)};
    py::object y = output(x, x.ndim(), shape, out_);
    if (y.is_none()) return y;
    auto guard = lock();
    auto weights = net_->weights<T>();
    bool done;
    {
      Unlocked unlocked(flops_of(s, x.shape(0) * stream.batch()));
      done = stream.run(*weights, x.shape(0), x.template plane<const T>(false), View<T>(y).template plane<T>(false),
                        interrupted);
    }
    require_done(done);
    return y;
  }

  template <class T>
  void reset_as(py::handle mask) {
    Stream<T>& stream = std::get<Stream<T>>(stream_);
    const bool* rows = nullptr;
    if (!mask.is_none()) {
      const View<bool> v(mask);
      if (!v || !v.contiguous() || !v.has_shape(stream.batch()))
        throw py::value_error("mask must be a bool array (batch,)");
      rows = v.data();
    }
    auto guard = lock();
    stream.reset(rows);
  }

  template <class T>
  py::tuple get_as() {
    Stream<T>& stream = std::get<Stream<T>>(stream_);
    py::object h = new_state<T>(net_->sizes, true, stream.batch()), c = new_state<T>(net_->sizes, true, stream.batch());
    auto guard = lock();
    std::memcpy(View<T>(h).data(), stream.h(), stream.state_size() * sizeof(T));
    std::memcpy(View<T>(c).data(), stream.c(), stream.state_size() * sizeof(T));
    return pair(std::move(h), std::move(c));
  }

  template <class T>
  void set_as(py::handle h_, py::handle c_) {
    Stream<T>& stream = std::get<Stream<T>>(stream_);
    const Sizes& s = net_->sizes;
    const View<T> h(h_), c(c_);
    if (!h || !c || !h.contiguous() || !c.contiguous() || !h.has_shape(s.layers, stream.batch(), s.hidden) ||
        !c.has_shape(s.layers, stream.batch(), s.hidden))
      throw py::value_error(
          "h and c must be C-contiguous arrays (num_layers, batch, hidden_size) of the network's dtype");
    auto guard = lock();
    stream.set(h.data(), c.data());
  }

  std::shared_ptr<Network> net_;
  std::variant<std::monostate, Stream<float>, Stream<double>> stream_;
  std::mutex mutex_;
};

// The kernels' activations on their own.
py::object activation(py::handle x, bool is_tanh) {
  auto apply = [&](auto zero, const auto& functions) -> py::object {
    using T = decltype(zero);
    const View<T> v(x);
    if (!v || !v.contiguous()) return py::none();
    std::vector<Py_intptr_t> shape;
    for (int i = 0; i < v.ndim(); ++i) shape.push_back(Py_intptr_t(v.shape(i)));
    py::object y = new_array<T>(v.ndim(), shape.data());
    (is_tanh ? functions.tanh : functions.sigmoid)(v.data(), View<T>(y).data(), v.size());
    return y;
  };
  py::object y = apply(float(), kernels().f32);
  if (y.is_none()) y = apply(double(), kernels().f64);
  if (y.is_none()) throw py::type_error("expected a C-contiguous float32 or float64 array");
  return y;
}

py::dict cpu_info() {
  py::list supported;
  for (const char* name : supported_isas()) supported.append(name);
  py::dict d;
  d["isa"] = kernels().name;
  d["supported"] = supported;
  d["cores"] = available_cpus();
  d["threads"] = get_num_threads();
  d["l1d"] = cache_sizes().l1d;
  d["l2"] = cache_sizes().l2;
  d["l3"] = cache_sizes().l3;
  return d;
}

}  // namespace
}  // namespace fourgate

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  using namespace fourgate;
  (void)kernels();  // a wrong FOURGATE_ISA is an error at import, not in the middle of work
  m.attr("__version__") = FOURGATE_VERSION;

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

  py::class_<PyStream>(m, "Stream")
      .def(py::init<std::shared_ptr<Network>, size_t>())
      .def("step", &PyStream::step)
      .def("run", &PyStream::run)
      .def("reset", &PyStream::reset)
      .def("get_state", &PyStream::get_state)
      .def("set_state", &PyStream::set_state);

  m.def("set_num_threads", &set_num_threads);
  m.def("get_num_threads", &get_num_threads);
  m.def("cpu_info", &cpu_info);
  m.def("sigmoid", [](py::handle x) { return activation(x, false); });
  m.def("tanh", [](py::handle x) { return activation(x, true); });
}
