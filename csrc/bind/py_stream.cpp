// Stream for Python; py_network.cpp has the protocol.
#include "bind/py_stream.h"

#include <algorithm>
#include <thread>

#include "bind/gil.h"
#include "bind/py_network.h"
#include "bind/sequences.h"
#include "bind/states.h"
#include "parallel/fork.h"
#include "rnn/stream.h"

namespace quadgate {
namespace {

// A stream of either type; calls from several threads run one after the other.
class PyStream {
 public:
  // Keeps nothing of the network but its numbers: each call gets the current parameters.
  PyStream(const Network& net, size_t batch)
      : sizes(net.sizes()), is_double(net.is_double()), flops(net.flops(batch)), network_(net.family().id) {
    if (sizes.directions != 1 || sizes.options.reverse)
      throw py::value_error("a stream needs a network that reads forwards only");
    if (batch == 0) throw py::value_error("batch_size must be at least 1");
    if (is_double)
      stream_.emplace<Stream<double>>(sizes, batch);
    else
      stream_.emplace<Stream<float>>(sizes, batch);
  }

  // The stream's lock, for one call. It is taken before the arguments are read: while it waits, other threads run, and
  // could change them.
  class Turn {
   public:
    explicit Turn(PyStream& stream) : stream_(stream) {
      const std::thread::id self = std::this_thread::get_id();
      if (!stream.lock_.try_lock()) wait();
      // Set already where a signal handler in a call has forked, and the child took over its own lock.
      if (stream.owner_.load(std::memory_order_relaxed) == self && came_through_fork()) refuse();
      stream.owner_.store(self, std::memory_order_relaxed);
    }
    ~Turn() {
      stream_.owner_.store(std::thread::id(), std::memory_order_relaxed);
      stream_.lock_.unlock();
    }
    Turn(const Turn&) = delete;

   private:
    void wait();
    [[noreturn]] static void refuse() {
      throw std::runtime_error("this stream is in the middle of a call on this very thread");
    }
    PyStream& stream_;
  };

  template <class Real>
  Stream<Real>& stream() {
    return std::get<Stream<Real>>(stream_);
  }

  // The weights of the stream's own network or one of its successors; the argument keeps them during a call.
  template <class Real>
  const Weights<Real>& weights(py::handle net) const {
    const Network& n = network_of(net);
    if (n.family().id != network_) throw py::value_error("this stream belongs to another network");
    return *n.weights<Real>();
  }

  const Sizes sizes;
  const bool is_double;
  const double flops;  // of one step

 private:
  const uint64_t network_;
  std::variant<std::monostate, Stream<float>, Stream<double>> stream_;
  ForkLock lock_;  // a step in the middle leaves the state from before it
  std::atomic<std::thread::id> owner_{};
};

void PyStream::Turn::wait() {
  // Called from a signal handler or a destructor. No order is needed: only this thread puts its id there.
  if (stream_.owner_.load(std::memory_order_relaxed) == std::this_thread::get_id()) refuse();
  // Never waits with the GIL held: the thread that has the lock may need it to go on.
  for (auto pause = std::chrono::microseconds(10);; pause = std::min(2 * pause, std::chrono::microseconds(1000))) {
    if (finalizing()) throw std::runtime_error("this stream is in use by a thread that the interpreter's end stopped");
    {
      const GilReleased released;
      std::this_thread::sleep_for(pause);
      if (stream_.lock_.try_lock()) return;
    }
    if (PyErr_CheckSignals() != 0) throw PythonError();
  }
}

template <class Real>
py::object step_as(PyStream& self, py::handle x_, py::handle out, py::handle net) {
  const PyStream::Turn turn(self);
  Stream<Real>& stream = self.stream<Real>();
  const Sizes& s = self.sizes;
  const View<Real> x(x_);
  const bool flat = x && x.ndim() == 1 && stream.batch() == 1;
  if (!x || !x.has_rows() || !(flat ? x.has_shape(s.input) : x.has_shape(stream.batch(), s.input))) return none();
  const Py_intptr_t shape[2] = {Py_intptr_t(flat ? s.output() : stream.batch()), Py_intptr_t(s.output())};
  py::object y = result_array<Real>(out, flat ? 1 : 2, shape);
  if (!y) return none();
  const View<Real> v(y);
  if (v.overlaps(x)) return none();
  const size_t x_row = flat ? 0 : x.stride(0), y_row = flat ? 0 : v.stride(0);
  const Weights<Real>& weights = self.weights<Real>(net);
  bool done;
  {
    const CoreCall core(self.flops);
    done = stream.step(weights, x.data(), x_row, v.data(), y_row, core.interrupted());
  }
  require_done(done);
  return y;
}

template <class Real>
py::object run_as(PyStream& self, py::handle x_, py::handle out, py::handle resets_, bool return_cells,
                  py::handle net) {
  const PyStream::Turn turn(self);
  Stream<Real>& stream = self.stream<Real>();
  const Sizes& s = self.sizes;
  const View<Real> x(x_);
  const bool flat = x && x.ndim() == 2 && stream.batch() == 1;
  if (!x || (x.ndim() != 3 && !flat) || !x.has_rows()) return none();
  if (x.shape(x.ndim() - 1) != s.input || (!flat && x.shape(1) != stream.batch())) return none();
  std::vector<unsigned char> resets;
  if (!copy_resets(resets_, x, false, resets)) return none();
  Py_intptr_t shape[3] = {Py_intptr_t(x.shape(0)), Py_intptr_t(flat ? s.output() : stream.batch()),
                          Py_intptr_t(s.output())};
  py::object y = result_array<Real>(out, x.ndim(), shape);
  if (!y) return none();
  const View<Real> v(y);
  if (v.overlaps(x) || v.overlaps(View<bool>(resets_))) return none();
  py::object cells;
  Plane<Real> cell_plane;
  if (return_cells) {
    shape[x.ndim() - 1] = Py_intptr_t(s.cell());
    cells = new_array<Real>(x.ndim(), shape);
    cell_plane = View<Real>(cells).template plane<Real>(false);
  }
  const size_t steps = x.shape(0);
  const Plane<const Real> from = x.template plane<const Real>(false);
  const Plane<Real> to = v.template plane<Real>(false);
  const Weights<Real>& weights = self.weights<Real>(net);
  bool done;
  {
    const CoreCall core(self.flops * double(steps));
    done =
        stream.run(weights, steps, from, resets.empty() ? nullptr : resets.data(), to, cell_plane, core.interrupted());
  }
  require_done(done);
  return return_cells ? tuple_of(std::move(y), std::move(cells)) : y;
}

template <class Real>
py::object reset_as(PyStream& self, py::handle rows) {
  const PyStream::Turn turn(self);
  Stream<Real>& stream = self.stream<Real>();
  const bool* chosen = nullptr;
  if (!rows.is_none()) {
    const View<bool> v(rows);
    if (!v || !v.contiguous() || !v.has_shape(stream.batch()))
      throw py::value_error("rows must be a bool array (batch_size,)");
    chosen = v.data();
  }
  stream.reset(chosen);
  return none();
}

template <class Real>
py::object get_as(PyStream& self) {
  const PyStream::Turn turn(self);
  Stream<Real>& stream = self.stream<Real>();
  const Sizes& s = self.sizes;
  py::object h = new_state<Real>(s, s.recurrent(), true, stream.batch());
  py::object c = new_state<Real>(s, s.cell(), true, stream.batch());
  std::copy(stream.h(), stream.h() + stream.h_size(), data_of<Real>(h));
  std::copy(stream.c(), stream.c() + stream.c_size(), data_of<Real>(c));
  return tuple_of(std::move(h), std::move(c));
}

template <class Real>
py::object set_as(PyStream& self, py::handle h_, py::handle c_) {
  const PyStream::Turn turn(self);
  Stream<Real>& stream = self.stream<Real>();
  const Sizes& s = self.sizes;
  const View<Real> h(h_), c(c_);
  if (!h || !c || !h.contiguous() || !c.contiguous() || !h.has_shape(s.layers, stream.batch(), s.recurrent()) ||
      !c.has_shape(s.layers, stream.batch(), s.cell()))
    throw py::value_error(
        "h and c must be C-contiguous arrays (num_layers, batch_size, columns) of the network's dtype");
  stream.set(h.data(), c.data());
  return none();
}

py::object step(PyStream& self, py::handle x, py::handle out, py::handle net) {
  return self.is_double ? step_as<double>(self, x, out, net) : step_as<float>(self, x, out, net);
}

py::object run(PyStream& self, py::handle x, py::handle out, py::handle resets, py::handle cells, py::handle net) {
  if (!PyBool_Check(cells.ptr())) return none();
  return self.is_double ? run_as<double>(self, x, out, resets, is_true(cells), net)
                        : run_as<float>(self, x, out, resets, is_true(cells), net);
}

py::object reset(PyStream& self, py::handle rows) {
  return self.is_double ? reset_as<double>(self, rows) : reset_as<float>(self, rows);
}

py::object get_state(PyStream& self) { return self.is_double ? get_as<double>(self) : get_as<float>(self); }

py::object set_state(PyStream& self, py::handle h, py::handle c) {
  return self.is_double ? set_as<double>(self, h, c) : set_as<float>(self, h, c);
}

// Stream(network, batch): zeros at first.
PyObject* new_stream(PyTypeObject*, PyObject* args, PyObject* keywords) {
  return guarded([&] {
    if (keywords && PyDict_GET_SIZE(keywords) != 0) throw py::type_error("Stream takes no keyword arguments");
    if (PyTuple_GET_SIZE(args) != 2) throw py::type_error("expected 2 arguments");
    const size_t batch = to_size(PyTuple_GET_ITEM(args, 1));
    return Object<PyStream>::make(network_of(PyTuple_GET_ITEM(args, 0)), batch);
  });
}

}  // namespace

void register_stream(py::module_& m) {
  static PyMethodDef methods[] = {Method<&step>::entry("step"),           Method<&run>::entry("run"),
                                  Method<&reset>::entry("reset"),         Method<&get_state>::entry("get_state"),
                                  Method<&set_state>::entry("set_state"), {}};
  Object<PyStream>::define(m, "quadgate._core.Stream", &new_stream, methods, nullptr);
}

}  // namespace quadgate
