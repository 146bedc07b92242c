// Direct calls of oneDNN's LSTM primitive with bytes: u8 rows, s8 weights, prepared once, run many times.
//
// x is converted to bytes and weights are quantised and reordered before timing, and y stays bytes, which favours this
// peer: a caller with floats has that work at every call. x and h share one scale and zero point, as the primitive
// demands; weights have a scale for each gate row.
#include <omp.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace py = pybind11;
using Array = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Memory = dnnl::memory;
using Dims = Memory::dims;
using Tag = Memory::format_tag;
using Type = Memory::data_type;

namespace {

constexpr float kZero = 128;  // the byte that stands for 0

class Lstm {
 public:
  // weight_ih (4H,I), weight_hh (4H,H), bias (4H,) and x (T,B,I) in float32; copied.
  Lstm(int64_t steps, int64_t batch, int64_t input, int64_t hidden, const Array& weight_ih, const Array& weight_hh,
       const Array& bias, const Array& x)
      : T_(steps), B_(batch), I_(input), H_(hidden), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    float largest = 1;  // of h
    for (py::ssize_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::fabs(x.data()[i]));
    scale_ = 127 / largest;
    dnnl::primitive_attr attributes;
    attributes.set_rnn_data_qparams(scale_, kZero);
    constexpr int kOfGateRow = (1 << 3) + (1 << 4);
    attributes.set_rnn_weights_qparams(kOfGateRow, weight_scales(weight_ih, weight_hh));
    const Memory::desc in({T_, B_, I_}, Type::u8, Tag::tnc), h({1, 1, B_, H_}, Type::u8, Tag::ldnc);
    const Memory::desc c({1, 1, B_, H_}, Type::f32, Tag::ldnc), out({T_, B_, H_}, Type::u8, Tag::tnc);
    const Dims ih = {1, 1, I_, 4, H_}, hh = {1, 1, H_, 4, H_};
    const Memory::desc any_ih(ih, Type::s8, Tag::any), any_hh(hh, Type::s8, Tag::any);
    const Memory::desc b({1, 1, 4, H_}, Type::f32, Tag::ldgo);
    const dnnl::lstm_forward::primitive_desc desc(engine_, dnnl::prop_kind::forward_inference,
                                                  dnnl::rnn_direction::unidirectional_left2right, in, h, c, any_ih,
                                                  any_hh, b, out, h, c, attributes);
    implementation_ = desc.impl_info_str();
    forward_ = dnnl::lstm_forward(desc);
    out_ = Memory(out, engine_);
    Memory from(in, engine_), h0(h, engine_), c0(c, engine_), biases(b, engine_);
    auto* bytes = static_cast<unsigned char*>(from.get_data_handle());
    for (py::ssize_t i = 0; i < x.size(); ++i)
      bytes[i] = static_cast<unsigned char>(std::lrint(x.data()[i] * scale_ + kZero));
    std::memset(h0.get_data_handle(), int(kZero), h.get_size());
    std::memset(c0.get_data_handle(), 0, c.get_size());
    std::memcpy(biases.get_data_handle(), bias.data(), b.get_size());
    arguments_ = {{DNNL_ARG_SRC_LAYER, from},
                  {DNNL_ARG_SRC_ITER, h0},
                  {DNNL_ARG_SRC_ITER_C, c0},
                  {DNNL_ARG_WEIGHTS_LAYER, reordered(weight_ih, ih, desc.weights_layer_desc(), attributes)},
                  {DNNL_ARG_WEIGHTS_ITER, reordered(weight_hh, hh, desc.weights_iter_desc(), attributes)},
                  {DNNL_ARG_BIAS, biases},
                  {DNNL_ARG_DST_LAYER, out_},
                  {DNNL_ARG_DST_ITER, Memory(h, engine_)},
                  {DNNL_ARG_DST_ITER_C, Memory(c, engine_)}};
  }

  // Returns the seconds of `calls` passes, without Python between them.
  double time(int64_t calls) {
    py::gil_scoped_release release;
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t call = 0; call < calls; ++call) {
      forward_.execute(stream_, arguments_);
      stream_.wait();
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  // Returns y (T,B,H) in float32.
  py::array_t<float> y() const {
    py::array_t<float> result({T_, B_, H_});
    const auto* bytes = static_cast<const unsigned char*>(out_.get_data_handle());
    for (py::ssize_t i = 0; i < result.size(); ++i)
      result.mutable_data()[i] = (static_cast<float>(bytes[i]) - kZero) / scale_;
    return result;
  }

  const std::string& implementation() const { return implementation_; }

 private:
  // 127 / the largest weight of each gate row, of both matrices: they share a scale.
  std::vector<float> weight_scales(const Array& ih, const Array& hh) const {
    std::vector<float> scales;
    for (int64_t row = 0; row < 4 * H_; ++row) {
      float largest = 1e-30f;
      for (int64_t k = 0; k < I_; ++k) largest = std::max(largest, std::fabs(ih.data()[row * I_ + k]));
      for (int64_t k = 0; k < H_; ++k) largest = std::max(largest, std::fabs(hh.data()[row * H_ + k]));
      scales.push_back(127 / largest);
    }
    return scales;
  }

  Memory reordered(const Array& weight, const Dims& dims, const Memory::desc& want, const dnnl::primitive_attr& how) {
    const Memory::desc plain(dims, Type::f32, Tag::ldgoi), middle(dims, Type::f32, Tag::ldigo);
    if (static_cast<size_t>(weight.nbytes()) != plain.get_size()) throw std::invalid_argument("array of a wrong size");
    Memory from(plain, engine_), between(middle, engine_), to(want, engine_);
    std::memcpy(from.get_data_handle(), weight.data(), plain.get_size());
    dnnl::reorder(from, between).execute(stream_, from, between);
    dnnl::reorder(dnnl::reorder::primitive_desc(between, to, how)).execute(stream_, between, to);
    stream_.wait();
    return to;
  }

  int64_t T_, B_, I_, H_;
  float scale_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::lstm_forward forward_;
  std::string implementation_;
  std::unordered_map<int, Memory> arguments_;
  Memory out_;
};

}  // namespace

PYBIND11_MODULE(_onednn_int8, m) {
  py::class_<Lstm>(m, "Lstm")
      .def(py::init<int64_t, int64_t, int64_t, int64_t, const Array&, const Array&, const Array&, const Array&>())
      .def("time", &Lstm::time)
      .def("y", &Lstm::y)
      .def("implementation", &Lstm::implementation);
  m.def("set_num_threads", [](int n) { omp_set_num_threads(n); });
  m.def("version", [] {
    const dnnl_version_t* v = dnnl::version();
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  });
}
