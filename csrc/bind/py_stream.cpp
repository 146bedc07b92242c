// Stream for Python; see network.cpp for the protocol.
#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "bind/method.h"
#include "bind/py_network.h"
#include "rnn/stream.h"

namespace quadgate {
namespace {

// A stream of either type; calls from several threads take turns. A child forked while another thread is in a call must
// not use that stream.
class PyStream {
 public:
  // Keeps nothing of the network but its numbers: each call is given the parameters of that moment.
  PyStream(const Network& net, size_t batch) : sizes_(net.sizes), is_double_(net.is_double), id_(net.id) {
    if (sizes_.directions != 1 || sizes_.options.reverse)
      throw py::value_error("a stream needs a network that reads forwards only");
    if (batch == 0) throw py::value_error("batch must be at least 1");
    if (is_double_)
      stream_.emplace<Stream<double>>(sizes_, batch);
    else
      stream_.emplace<Stream<float>>(sizes_, batch);
  }

  // net: the stream's own network or one of its successors.
  py::object step(py::handle x, py::handle out, const Network& net) {
    require_related(net);
    return is_double_ ? step_as<double>(x, out, net) : step_as<float>(x, out, net);
  }
  py::object run(py::handle x, py::handle out, py::handle resets, py::handle cells_, const Network& net) {
    require_related(net);
    if (!PyBool_Check(cells_.ptr())) return py::none();
    const bool cells = cells_.is(py_true());
    return is_double_ ? run_as<double>(x, out, resets, cells, net) : run_as<float>(x, out, resets, cells, net);
  }
  void reset(py::handle mask) { is_double_ ? reset_as<double>(mask) : reset_as<float>(mask); }
  py::tuple get_state() { return is_double_ ? get_as<double>() : get_as<float>(); }
  void set_state(py::handle h, py::handle c) { is_double_ ? set_as<double>(h, c) : set_as<float>(h, c); }

 private:
  // A call's turn. It comes before the arguments are looked at: while it waits, other threads run, and could change
  // them.
  class Turn {
   public:
    explicit Turn(PyStream& stream) : stream_(stream) {
      // Called from a signal handler or a destructor. No order is needed: only this thread puts its id there.
      if (stream.owner_.load(std::memory_order_relaxed) == std::this_thread::get_id())
        throw std::runtime_error("this stream is in the middle of a call on this very thread");
      if (!stream.mutex_.try_lock()) {
        Unlocked unlocked;  // never waits with the GIL held: the thread whose turn it is may need it to go on
        stream.mutex_.lock();
      }
      stream.owner_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    }
    ~Turn() {
      stream_.owner_.store(std::thread::id(), std::memory_order_relaxed);
      stream_.mutex_.unlock();
    }
    Turn(const Turn&) = delete;

   private:
    PyStream& stream_;
  };

  void require_related(const Network& net) const {
    if (net.id != id_) throw py::value_error("this stream belongs to another network");
  }

  template <class Real>
  py::object output(const View<Real>& x, int ndim, const Py_intptr_t* shape, py::handle out_) {
    if (out_.is_none()) return new_array<Real>(ndim, shape);
    const View<Real> out(out_);
    if (!out || out.ndim() != ndim || !out.has_rows() || !out.writable() || out.overlaps(x)) return py::none();
    for (int i = 0; i < ndim; ++i)
      if (out.shape(i) != size_t(shape[i]) || (i + 1 < ndim && shape[i] > 1 && out.stride(i) == 0)) return py::none();
    return py::reinterpret_borrow<py::object>(out_);
  }

  template <class Real>
  py::object step_as(py::handle x_, py::handle out_, const Network& net) {
    const Turn turn(*this);
    Stream<Real>& stream = std::get<Stream<Real>>(stream_);
    const Sizes& s = sizes_;
    const View<Real> x(x_);
    const bool flat = x && x.ndim() == 1 && stream.batch() == 1;
    if (!x || !x.has_rows() || !(flat ? x.has_shape(s.input) : x.has_shape(stream.batch(), s.input))) return py::none();
    const Py_intptr_t shape[2] = {Py_intptr_t(flat ? s.output() : stream.batch()), Py_intptr_t(s.output())};
    py::object y = output(x, flat ? 1 : 2, shape, out_);
    if (y.is_none()) return y;
    const View<Real> v(y);
    const Real* from = x.data();
    Real* to = v.data();
    const size_t x_row = flat ? 0 : x.stride(0), y_row = flat ? 0 : v.stride(0);
    const auto weights = net.weights<Real>();
    bool done;
    {
      Unlocked unlocked(flops_of(s, stream.batch()));
      done = stream.step(*weights, from, x_row, to, y_row, interrupted);
    }
    require_done(done);
    return y;
  }

  template <class Real>
  py::object run_as(py::handle x_, py::handle out_, py::handle resets_, bool return_cells, const Network& net) {
    const Turn turn(*this);
    Stream<Real>& stream = std::get<Stream<Real>>(stream_);
    const Sizes& s = sizes_;
    const View<Real> x(x_);
    const bool flat = x && x.ndim() == 2 && stream.batch() == 1;
    if (!x || (x.ndim() != 3 && !flat) || !x.has_rows()) return py::none();
    if (x.shape(x.ndim() - 1) != s.input || (!flat && x.shape(1) != stream.batch())) return py::none();
    Py_intptr_t shape[3] = {Py_intptr_t(x.shape(0)), Py_intptr_t(flat ? s.output() : stream.batch()),
                            Py_intptr_t(s.output())};
    std::vector<unsigned char> resets;  // copied: another thread could be writing to the array
    if (!resets_.is_none()) {
      const View<bool> v(resets_);
      if (!v || !v.contiguous() || !(flat ? v.has_shape(x.shape(0)) : v.has_shape(x.shape(0), stream.batch())))
        return py::none();
      const auto* from = reinterpret_cast<const unsigned char*>(v.data());
      for (size_t i = 0; i < v.size(); ++i) resets.push_back(from[i] != 0);
    }
    py::object y = output(x, x.ndim(), shape, out_);
    if (y.is_none()) return y;
    py::object cells;
    Plane<Real> cell_plane;
    if (return_cells) {
      shape[x.ndim() - 1] = Py_intptr_t(s.cell());
      cells = new_array<Real>(x.ndim(), shape);
      cell_plane = View<Real>(cells).template plane<Real>(false);
    }
    const size_t steps = x.shape(0);
    const Plane<const Real> from = x.template plane<const Real>(false);
    const Plane<Real> to = View<Real>(y).template plane<Real>(false);
    const auto weights = net.weights<Real>();
    bool done;
    {
      Unlocked unlocked(flops_of(s, steps * stream.batch()));
      done = stream.run(*weights, steps, from, resets.empty() ? nullptr : resets.data(), to, cell_plane, interrupted);
    }
    require_done(done);
    return return_cells ? py::object(pair(std::move(y), std::move(cells))) : y;
  }

  template <class Real>
  void reset_as(py::handle mask) {
    const Turn turn(*this);
    Stream<Real>& stream = std::get<Stream<Real>>(stream_);
    const bool* rows = nullptr;
    if (!mask.is_none()) {
      const View<bool> v(mask);
      if (!v || !v.contiguous() || !v.has_shape(stream.batch()))
        throw py::value_error("rows must be a bool array (batch_size,)");
      rows = v.data();
    }
    stream.reset(rows);
  }

  template <class Real>
  py::tuple get_as() {
    const Turn turn(*this);
    Stream<Real>& stream = std::get<Stream<Real>>(stream_);
    const Sizes& s = sizes_;
    py::object h = new_state<Real>(s, s.recurrent(), true, stream.batch());
    py::object c = new_state<Real>(s, s.cell(), true, stream.batch());
    std::copy(stream.h(), stream.h() + stream.h_size(), data_of<Real>(h));
    std::copy(stream.c(), stream.c() + stream.c_size(), data_of<Real>(c));
    return pair(std::move(h), std::move(c));
  }

  template <class Real>
  void set_as(py::handle h_, py::handle c_) {
    const Turn turn(*this);
    Stream<Real>& stream = std::get<Stream<Real>>(stream_);
    const Sizes& s = sizes_;
    const View<Real> h(h_), c(c_);
    if (!h || !c || !h.contiguous() || !c.contiguous() || !h.has_shape(s.layers, stream.batch(), s.recurrent()) ||
        !c.has_shape(s.layers, stream.batch(), s.cell()))
      throw py::value_error("h and c must be C-contiguous arrays (num_layers, batch, columns) of the network's dtype");
    stream.set(h.data(), c.data());
  }

  const Sizes sizes_;
  const bool is_double_;
  const uint64_t id_;
  std::variant<std::monostate, Stream<float>, Stream<double>> stream_;
  std::mutex mutex_;
  std::atomic<std::thread::id> owner_{};
};

py::object step(PyStream& stream, py::handle x, py::handle out, py::handle net) {
  return stream.step(x, out, network_of(net));
}

py::object run(PyStream& stream, py::handle x, py::handle out, py::handle resets, py::handle cells, py::handle net) {
  return stream.run(x, out, resets, cells, network_of(net));
}

}  // namespace

void register_stream(py::module_& m) {
  py::class_<PyStream> type(m, "Stream", py::is_final());
  type.def(py::init<const Network&, size_t>())
      .def("reset", &PyStream::reset)
      .def("get_state", &PyStream::get_state)
      .def("set_state", &PyStream::set_state);
  Method<&step>::define(type, "step");
  Method<&run>::define(type, "run");
}

}  // namespace quadgate
