// What the bindings of networks and of streams share: the network itself, and the way in and out of a long call.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>
#include <tuple>
#include <variant>

#include "../lstm/network.h"
#include "arrays.h"

namespace fourgate {

// A thread that comes back for the GIL when the interpreter is ending would be unwound by force, through destructors
// that may not throw. It sleeps instead, until the process is gone.
inline void sleep_if_finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  const bool ending = Py_IsFinalizing();
#else
  const bool ending = _Py_IsFinalizing();
#endif
  while (ending) std::this_thread::sleep_for(std::chrono::hours(1));
}

// Runs Python's signal handlers; true leaves their exception set for the caller to throw.
inline bool interrupted() {
  sleep_if_finalizing();
  py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

// Gives the GIL up; with an amount of work, only if that takes longer than the switch.
class Unlocked {
 public:
  explicit Unlocked(double flops = 1e9) : state_(flops > 5e5 ? PyEval_SaveThread() : nullptr) {}
  ~Unlocked() {
    if (!state_) return;
    sleep_if_finalizing();
    PyEval_RestoreThread(state_);
  }
  Unlocked(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

inline void require_done(bool done) {
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
    std::vector<Parameters<T>> params;
    std::vector<py::object> held;  // whatever happens to the list meanwhile
    for (py::handle item : list) held.push_back(py::reinterpret_borrow<py::object>(item));
    if (held.size() != per_layer * sizes.states()) throw py::value_error("wrong number of parameters");
    for (size_t i = 0; i < sizes.states(); ++i) {
      View<T> ih(held[per_layer * i]), hh(held[per_layer * i + 1]);
      View<T> bias(sizes.bias ? py::handle(held[per_layer * i + 2]) : py::none());
      if (!ih || !ih.contiguous() || !ih.has_shape(4 * H, sizes.input_of(i / sizes.directions)) || !hh ||
          !hh.contiguous() || !hh.has_shape(4 * H, H) ||
          (sizes.bias && (!bias || !bias.contiguous() || !bias.has_shape(4 * H))))
        throw py::value_error("parameters must be C-contiguous arrays of the network's dtype and shapes");
      params.push_back({ih.data(), hh.data(), sizes.bias ? bias.data() : nullptr});
    }
    std::shared_ptr<const Weights<T>> fresh;
    {
      Unlocked unlocked;
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

// Multiply-adds of a forward pass, times two.
inline double flops_of(const Sizes& s, size_t rows) {
  return 8.0 * double(rows) * double(s.hidden * s.directions) *
         double((s.input + s.hidden) + (s.layers - 1) * (s.hidden + s.output()));
}

// An uninitialised (L*D,B,H), or (L*D,H) where there is no batch axis.
template <class T>
py::object new_state(const Sizes& s, bool batched, size_t batch) {
  const Py_intptr_t shape[3] = {Py_intptr_t(s.states()), Py_intptr_t(batch), Py_intptr_t(s.hidden)};
  const Py_intptr_t flat[2] = {shape[0], shape[2]};
  return batched ? new_array<T>(3, shape) : new_array<T>(2, flat);
}

inline py::tuple pair(py::object a, py::object b) {
  PyObject* t = PyTuple_New(2);
  if (!t) throw py::error_already_set();
  PyTuple_SET_ITEM(t, 0, a.release().ptr());
  PyTuple_SET_ITEM(t, 1, b.release().ptr());
  return py::reinterpret_steal<py::tuple>(t);
}

void register_network(py::module_& m);
void register_stream(py::module_& m);

}  // namespace fourgate
