// What the bindings of networks and of streams share: the network itself, and the way in and out of a long call.
#pragma once

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <tuple>
#include <variant>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include "bind/arrays.h"
#include "bind/py_options.h"
#include "rnn/weights.h"

namespace quadgate {

// A thread that comes back for the GIL when the interpreter is ending would be unwound by force, through destructors
// and handlers that must not be left so. It sleeps instead, until the process is gone: where it sees the end come, and
// where it is overtaken while it waits for the GIL.
[[noreturn]] inline void sleep_to_the_end() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

template <class F>
auto taking_the_gil(F&& f) {
#if PY_VERSION_HEX >= 0x030D0000
  if (Py_IsFinalizing()) sleep_to_the_end();
#else
  if (_Py_IsFinalizing()) sleep_to_the_end();
#endif
#ifdef __GLIBCXX__
  try {
    return f();
  } catch (abi::__forced_unwind&) {
    sleep_to_the_end();
  }
#else
  return f();
#endif
}

// Runs Python's signal handlers; true leaves their exception set for the caller to throw.
inline bool interrupted() {
  return taking_the_gil([] {
    py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
  });
}

// Gives the GIL up; with an amount of work, only if that takes longer than the switch.
class Unlocked {
 public:
  explicit Unlocked(double flops = 1e9) : state_(flops > 5e5 ? PyEval_SaveThread() : nullptr) {}
  ~Unlocked() {
    if (state_) taking_the_gil([this] { PyEval_RestoreThread(state_); });
  }
  Unlocked(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

inline void require_done(bool done) {
  if (!done) throw py::error_already_set();
}

// One network of either type with its parameters, which never change: an update makes a successor.
class Network {
 public:
  Network(const std::string& dtype, size_t input, size_t hidden, size_t layers, size_t directions, bool bias,
          py::handle options, bool batch_first_)
      : sizes{input, hidden, layers, directions, bias, read_options(options)},
        is_double(dtype == "float64"),
        batch_first(batch_first_) {
    if (!is_double && dtype != "float32") throw py::value_error("dtype must be float32 or float64, not " + dtype);
    if (!input || !hidden || !layers || (directions != 1 && directions != 2))
      throw py::value_error("sizes must be positive, and directions 1 or 2");
  }

  template <class Real>
  const std::shared_ptr<const Weights<Real>>& weights() const {
    auto& w = std::get<std::shared_ptr<const Weights<Real>>>(weights_);
    if (!w) throw std::runtime_error("the network has no parameters yet");
    return w;
  }

  template <class Real>
  const std::shared_ptr<SpareTape<Real>>& spare() const {
    return std::get<std::shared_ptr<SpareTape<Real>>>(spares_);
  }

  // The same network with other parameters. The two share their id and the spare tape, so that each can go backward
  // through the other's tapes.
  std::shared_ptr<Network> successor(const py::list& params) const {
    std::shared_ptr<Network> result(new Network(*this));
    is_double ? result->pack<double>(params) : result->pack<float>(params);
    return result;
  }

  const Sizes sizes;
  const bool is_double, batch_first;
  const uint64_t id = next_id();  // an address could come back for another network

 private:
  Network(const Network&) = default;

  template <class Real>
  void pack(const py::list& list) {
    std::vector<LayerParameters<const Real*>> layers(sizes.states());
    std::vector<HighwayParameters<const Real*>> highways(sizes.layers);
    std::vector<py::object> held;  // the list may change while the GIL is released
    for (py::handle item : list) held.push_back(py::reinterpret_borrow<py::object>(item));
    size_t used = 0;
    each_parameter<const Real*>(
        sizes, layers.data(), highways.data(), [&](const Real*& slot, size_t rows, size_t cols, int axes) {
          const View<Real> v(used < held.size() ? py::handle(held[used++]) : py::none());
          if (!v || !v.contiguous() || !(axes == 1 ? v.has_shape(rows) : v.has_shape(rows, cols)))
            throw py::value_error("parameters must be C-contiguous arrays of the network's dtype and shapes");
          slot = v.data();
        });
    if (used != held.size()) throw py::value_error("wrong number of parameters");
    Unlocked unlocked;
    weights_ = std::make_shared<const Weights<Real>>(sizes, layers.data(), highways.data());
  }

  static uint64_t next_id() {
    static std::atomic<uint64_t> last{0};
    return ++last;
  }

  std::tuple<std::shared_ptr<SpareTape<float>>, std::shared_ptr<SpareTape<double>>> spares_{
      std::make_shared<SpareTape<float>>(), std::make_shared<SpareTape<double>>()};
  std::variant<std::shared_ptr<const Weights<float>>, std::shared_ptr<const Weights<double>>> weights_ =
      is_double ? decltype(weights_)(std::shared_ptr<const Weights<double>>())
                : decltype(weights_)(std::shared_ptr<const Weights<float>>());
};

// The network that a Python object is. Throws TypeError for any other object.
const Network& network_of(py::handle object);

// Multiply-adds of a forward pass, times two.
inline double flops_of(const Sizes& s, size_t rows) {
  return 2.0 * double(s.gates() * rows) * double(s.hidden * s.directions) *
         double((s.input + s.recurrent()) + (s.layers - 1) * (s.recurrent() + s.input_of(s.layers - 1)));
}

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

// A tape for Python, and what its memory belongs to.
struct PyTape {
  std::variant<std::unique_ptr<Tape<float>>, std::unique_ptr<Tape<double>>> tape;
  uint64_t network;   // its id
  size_t batch_axes;  // 1, or 0 for an unbatched x
  bool batch_first;
  std::vector<size_t> x_shape;
  std::vector<py::object> held;  // the masks' arrays; set once the GIL is held
};

inline py::handle py_true() { return Py_True; }

inline py::tuple pair(py::object a, py::object b) {
  PyObject* t = PyTuple_New(2);
  if (!t) throw py::error_already_set();
  PyTuple_SET_ITEM(t, 0, a.release().ptr());
  PyTuple_SET_ITEM(t, 1, b.release().ptr());
  return py::reinterpret_steal<py::tuple>(t);
}

void register_network(py::module_& m);
void register_tape(py::module_& m);
// The rest of Network's methods.
py::object backward(const Network& net, const PyTape& tape, py::handle dy, py::handle dstate, py::handle need_x,
                    py::handle into, bool accumulate, py::handle dcells, py::handle norms);
py::object make_tape(const Network& net, py::handle x, py::handle state, py::handle y, py::handle gates, py::handle c);
void register_stream(py::module_& m);

}  // namespace quadgate
