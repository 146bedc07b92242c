// Direct calls of oneDNN's LSTM primitives: one float32 network, prepared once, run many times.
//
// Weights arrive in PyTorch's layout and are reordered before timing into the format that each primitive prefers
// (format_tag::any), once for the forward and once for the backward primitive. A training step here therefore omits the
// reorder that a real training loop needs after each update, which favours this peer.
#include <omp.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace py = pybind11;
using Array = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Arguments = std::unordered_map<int, dnnl::memory>;
using Dims = dnnl::memory::dims;
using Tag = dnnl::memory::format_tag;

namespace {

dnnl::memory::desc describe(const Dims& dims, Tag tag) { return {dims, dnnl::memory::data_type::f32, tag}; }

struct Sizes {
  int64_t steps, batch, input, hidden, layers, directions;
};

// One primitive, with as many layers as oneDNN can run at once (their inputs must be equally wide).
struct Stage {
  int64_t input, layers;
  dnnl::lstm_forward forward;
  dnnl::lstm_backward backward;
  // Two sets of arguments, which alternate if the state is carried: each step reads the state that the previous one
  // wrote.
  Arguments forward_arguments[2], backward_arguments;
  dnnl::memory state_h[2], state_c[2], out;
  dnnl::memory diff_in, diff_weights_layer, diff_weights_iter, diff_bias;
};

class Lstm {
 public:
  // params: for each layer, for each direction: weight_ih (4H, in), weight_hh (4H, H), bias (4H,); copied.
  // x (T,B,I) and dy (T,B,D*H; read only for "training") are copied. mode: "inference", "stream" or "training".
  Lstm(const Sizes& sizes, const std::string& mode, const std::vector<Array>& params, const Array& x, const Array& dy)
      : s_(sizes),
        training_(mode == "training"),
        carry_(mode == "stream"),
        engine_(dnnl::engine::kind::cpu, 0),
        stream_(engine_) {
    if (!training_ && !carry_ && mode != "inference") throw std::invalid_argument("unknown mode: " + mode);
    x_ = filled(describe({s_.steps, s_.batch, s_.input}, Tag::tnc), x);
    dnnl::memory in = x_;
    for (int64_t layer = 0; layer < s_.layers;) {
      const int64_t width = layer == 0 ? s_.input : s_.directions * s_.hidden;
      const bool joined = s_.directions == 1 && width == s_.hidden;
      const int64_t layers = joined ? s_.layers - layer : 1;
      stages_.push_back(make_stage(width, layers, params, layer, in));
      in = stages_.back().out;
      layer += layers;
    }
    if (!training_) return;
    dnnl::memory diff_out = filled(in.get_desc(), dy);
    for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage) {
      stage->backward_arguments[DNNL_ARG_DIFF_DST_LAYER] = diff_out;
      diff_out = stage->diff_in;
    }
  }

  // Returns the seconds of `calls` passes, without Python between them.
  double time(int64_t calls) {
    py::gil_scoped_release release;
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t call = 0; call < calls; ++call) run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  py::array_t<float> y() { return copied(stages_.back().out, {s_.steps, s_.batch, s_.directions * s_.hidden}); }
  py::array_t<float> dx() { return copied(stages_.front().diff_in, {s_.steps, s_.batch, s_.input}); }

  // Returns (h, c) of each primitive after the last pass, each (layers, D, B, H).
  std::vector<std::pair<py::array_t<float>, py::array_t<float>>> state() {
    std::vector<std::pair<py::array_t<float>, py::array_t<float>>> result;
    for (Stage& stage : stages_) {
      const Dims dims = {stage.layers, s_.directions, s_.batch, s_.hidden};
      result.emplace_back(copied(stage.state_h[last_], dims), copied(stage.state_c[last_], dims));
    }
    return result;
  }

  // Returns the gradients in the order and layout of `params`.
  std::vector<py::array_t<float>> gradients() {
    std::vector<py::array_t<float>> result;
    for (Stage& stage : stages_) {
      const int64_t layers = stage.layers, dirs = s_.directions, rows = 4 * s_.hidden;
      const auto plain_ih = describe({layers, dirs, stage.input, 4, s_.hidden}, Tag::ldgoi);
      const auto plain_hh = describe({layers, dirs, s_.hidden, 4, s_.hidden}, Tag::ldgoi);
      const dnnl::memory ih = reordered(stage.diff_weights_layer, plain_ih);
      const dnnl::memory hh = reordered(stage.diff_weights_iter, plain_hh);
      const auto* w_ih = static_cast<const float*>(ih.get_data_handle());
      const auto* w_hh = static_cast<const float*>(hh.get_data_handle());
      const auto* bias = static_cast<const float*>(stage.diff_bias.get_data_handle());
      for (int64_t i = 0; i < layers * dirs; ++i) {
        result.push_back(py::array_t<float>({rows, stage.input}, w_ih + i * rows * stage.input));
        result.push_back(py::array_t<float>({rows, s_.hidden}, w_hh + i * rows * s_.hidden));
        result.push_back(py::array_t<float>(rows, bias + i * rows));
      }
    }
    return result;
  }

 private:
  void run() {
    const int turn = carry_ ? turn_ : 0;
    for (Stage& stage : stages_) stage.forward.execute(stream_, stage.forward_arguments[turn]);
    if (training_) {
      for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage) {
        stage->backward.execute(stream_, stage->backward_arguments);
      }
    }
    stream_.wait();
    if (carry_) turn_ = 1 - turn_;
    last_ = carry_ ? turn_ : 1;
  }

  dnnl::memory zeroed(const dnnl::memory::desc& desc) {
    dnnl::memory memory(desc, engine_);
    std::memset(memory.get_data_handle(), 0, desc.get_size());
    return memory;
  }

  dnnl::memory filled(const dnnl::memory::desc& desc, const Array& values) {
    if (static_cast<size_t>(values.nbytes()) != desc.get_size()) throw std::invalid_argument("array of a wrong size");
    dnnl::memory memory(desc, engine_);
    std::memcpy(memory.get_data_handle(), values.data(), desc.get_size());
    return memory;
  }

  dnnl::memory reordered(dnnl::memory& from, const dnnl::memory::desc& desc) {
    dnnl::memory to(desc, engine_);
    dnnl::reorder(from, to).execute(stream_, from, to);
    stream_.wait();
    return to;
  }

  static py::array_t<float> copied(const dnnl::memory& from, const Dims& dims) {
    const std::vector<py::ssize_t> shape(dims.begin(), dims.end());
    return py::array_t<float>(shape, static_cast<const float*>(from.get_data_handle()));
  }

  Stage make_stage(int64_t width, int64_t layers, const std::vector<Array>& params, int64_t first_layer,
                   dnnl::memory& in) {
    Stage stage;
    stage.input = width;
    stage.layers = layers;
    const int64_t dirs = s_.directions, hidden = s_.hidden;
    const Dims ih = {layers, dirs, width, 4, hidden}, hh = {layers, dirs, hidden, 4, hidden};
    dnnl::memory w_ih(describe(ih, Tag::ldgoi), engine_), w_hh(describe(hh, Tag::ldgoi), engine_);
    dnnl::memory bias(describe({layers, dirs, 4, hidden}, Tag::ldgo), engine_);
    float* to[3] = {static_cast<float*>(w_ih.get_data_handle()), static_cast<float*>(w_hh.get_data_handle()),
                    static_cast<float*>(bias.get_data_handle())};
    for (int64_t i = first_layer * dirs * 3; i < (first_layer + layers) * dirs * 3; ++i) {
      const Array& param = params.at(static_cast<size_t>(i));
      std::memcpy(to[i % 3], param.data(), static_cast<size_t>(param.nbytes()));
      to[i % 3] += param.size();
    }
    const auto direction =
        dirs == 2 ? dnnl::rnn_direction::bidirectional_concat : dnnl::rnn_direction::unidirectional_left2right;
    const auto kind = training_ ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
    const dnnl::memory::desc none, any_ih = describe(ih, Tag::any), any_hh = describe(hh, Tag::any);
    const auto out = describe({s_.steps, s_.batch, dirs * hidden}, Tag::tnc);
    const auto state = describe({layers, dirs, s_.batch, hidden}, Tag::ldnc);
    // A training step returns y and the gradients of x and of the parameters, and needs no state. It gets a zero one
    // all the same: without src_iter, oneDNN 3.2 computes a wrong gradient of the recurrent weights.
    const auto from_state = carry_ || training_ ? state : none, to_state = training_ ? none : state;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::library);
    const dnnl::lstm_forward::primitive_desc desc(engine_, kind, direction, in.get_desc(), from_state, from_state,
                                                  any_ih, any_hh, bias.get_desc(), out, to_state, to_state, attributes);
    stage.forward = dnnl::lstm_forward(desc);
    stage.out = zeroed(out);
    Arguments arguments = {{DNNL_ARG_SRC_LAYER, in},
                           {DNNL_ARG_WEIGHTS_LAYER, reordered(w_ih, desc.weights_layer_desc())},
                           {DNNL_ARG_WEIGHTS_ITER, reordered(w_hh, desc.weights_iter_desc())},
                           {DNNL_ARG_BIAS, bias},
                           {DNNL_ARG_DST_LAYER, stage.out}};
    if (training_) {
      arguments[DNNL_ARG_WORKSPACE] = dnnl::memory(desc.workspace_desc(), engine_);
      arguments[DNNL_ARG_SRC_ITER] = zeroed(state);
      arguments[DNNL_ARG_SRC_ITER_C] = zeroed(state);
      stage.forward_arguments[0] = arguments;
      add_backward(stage, desc, direction, w_ih, w_hh);
      return stage;
    }
    for (int i = 0; i < 2; ++i) {
      stage.state_h[i] = zeroed(state);
      stage.state_c[i] = zeroed(state);
    }
    for (int i = 0; i < 2; ++i) {
      stage.forward_arguments[i] = arguments;
      if (carry_) {
        stage.forward_arguments[i][DNNL_ARG_SRC_ITER] = stage.state_h[i];
        stage.forward_arguments[i][DNNL_ARG_SRC_ITER_C] = stage.state_c[i];
      }
      stage.forward_arguments[i][DNNL_ARG_DST_ITER] = stage.state_h[1 - i];
      stage.forward_arguments[i][DNNL_ARG_DST_ITER_C] = stage.state_c[1 - i];
    }
    return stage;
  }

  void add_backward(Stage& stage, const dnnl::lstm_forward::primitive_desc& hint, dnnl::rnn_direction direction,
                    dnnl::memory& w_ih, dnnl::memory& w_hh) {
    const auto any_ih = describe(w_ih.get_desc().get_dims(), Tag::any);
    const auto any_hh = describe(w_hh.get_desc().get_dims(), Tag::any);
    const auto in = hint.src_layer_desc(), out = hint.dst_layer_desc(), bias = hint.bias_desc();
    const auto state = hint.src_iter_desc();
    // The C++ constructor lacks the flag with which the primitive overwrites the weights' gradients. Without the flag
    // they accumulate and must be cleared before every step.
    dnnl_primitive_desc_t made = nullptr;
    const dnnl_status_t status = dnnl_lstm_backward_primitive_desc_create(
        &made, engine_.get(), dnnl_backward, static_cast<dnnl_rnn_direction_t>(direction), in.get(), state.get(),
        state.get(), any_ih.get(), any_hh.get(), nullptr, nullptr, bias.get(), out.get(), nullptr, nullptr, in.get(),
        state.get(), state.get(), any_ih.get(), any_hh.get(), nullptr, nullptr, bias.get(), out.get(), nullptr, nullptr,
        dnnl_rnn_flags_diff_weights_overwrite, hint.get(), nullptr);
    dnnl::error::wrap_c_api(status, "no backward primitive");
    const dnnl::lstm_backward::primitive_desc desc(made);
    stage.backward = dnnl::lstm_backward(desc);
    stage.diff_in = zeroed(in);
    stage.diff_weights_layer = zeroed(desc.diff_weights_layer_desc());
    stage.diff_weights_iter = zeroed(desc.diff_weights_iter_desc());
    stage.diff_bias = zeroed(bias);
    stage.backward_arguments = stage.forward_arguments[0];
    stage.backward_arguments[DNNL_ARG_WEIGHTS_LAYER] = reordered(w_ih, desc.weights_layer_desc());
    stage.backward_arguments[DNNL_ARG_WEIGHTS_ITER] = reordered(w_hh, desc.weights_iter_desc());
    stage.backward_arguments[DNNL_ARG_DIFF_SRC_LAYER] = stage.diff_in;
    stage.backward_arguments[DNNL_ARG_DIFF_SRC_ITER] = zeroed(state);
    stage.backward_arguments[DNNL_ARG_DIFF_SRC_ITER_C] = zeroed(state);
    stage.backward_arguments[DNNL_ARG_DIFF_WEIGHTS_LAYER] = stage.diff_weights_layer;
    stage.backward_arguments[DNNL_ARG_DIFF_WEIGHTS_ITER] = stage.diff_weights_iter;
    stage.backward_arguments[DNNL_ARG_DIFF_BIAS] = stage.diff_bias;
  }

  Sizes s_;
  bool training_, carry_;
  int turn_ = 0, last_ = 1;
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::memory x_;
  std::vector<Stage> stages_;
};

}  // namespace

PYBIND11_MODULE(_onednn, m) {
  py::class_<Lstm>(m, "Lstm")
      .def(py::init([](int64_t steps, int64_t batch, int64_t input, int64_t hidden, int64_t layers, int64_t directions,
                       const std::string& mode, const std::vector<Array>& params, const Array& x, const Array& dy) {
        return Lstm({steps, batch, input, hidden, layers, directions}, mode, params, x, dy);
      }))
      .def("time", &Lstm::time)
      .def("y", &Lstm::y)
      .def("dx", &Lstm::dx)
      .def("state", &Lstm::state)
      .def("gradients", &Lstm::gradients);
  m.def("set_num_threads", [](int n) { omp_set_num_threads(n); });
  m.def("version", [] {
    const dnnl_version_t* v = dnnl::version();
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  });
}
