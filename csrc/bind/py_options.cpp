#include "bind/py_options.h"

#include <array>
#include <cmath>

namespace quadgate {
namespace py = pybind11;
namespace {

// The place of `name` among `names`.
template <size_t N>
int place(const std::string& name, const std::array<const char*, N>& names, const char* what) {
  for (size_t i = 0; i < N; ++i)
    if (name == names[i]) return int(i);
  throw py::value_error(std::string("unknown ") + what + ": " + name);
}

}  // namespace

int function_named(const std::string& name) {
  static constexpr std::array<const char*, 11> names = {
      "sigmoid",          "tanh",        "relu", "hard_sigmoid", "affine",  "leaky_relu",
      "thresholded_relu", "scaled_tanh", "elu",  "softsign",     "softplus"};
  return place(name, names, "activation");
}

Options read_options(py::handle given) {
  Options o;
  if (given.is_none()) return o;
  const auto dict = py::cast<py::dict>(given);
  size_t n_read = 0;
  auto get = [&](const char* key) {
    if (!dict.contains(key)) return py::object(py::none());
    ++n_read;
    return py::object(dict[key]);
  };
  auto number = [&](const char* key, double& to) {
    if (const py::object v = get(key); !v.is_none()) to = v.cast<double>();
  };
  auto flag = [&](const char* key, bool& to) {
    if (const py::object v = get(key); !v.is_none()) to = v.cast<bool>();
  };
  auto choice = [&](const char* key, auto& to, const auto& names) {
    if (const py::object v = get(key); !v.is_none())
      to = static_cast<std::decay_t<decltype(to)>>(place(v.cast<std::string>(), names, key));
  };
  if (const py::object v = get("proj_size"); !v.is_none()) o.projection = v.cast<size_t>();
  if (const py::object v = get("activations"); !v.is_none()) {
    Activation<double>* to[3] = {&o.cell.gate, &o.cell.cell, &o.cell.output};
    size_t i = 0;
    for (py::handle item : v) {
      const auto parts = item.cast<py::tuple>();
      if (i < 3)
        *to[i++] = {function_named(parts[0].cast<std::string>()), parts[1].cast<double>(), parts[2].cast<double>()};
    }
  }
  number("cell_clip", o.cell.cell_clip);
  number("gate_clip", o.cell.gate_clip);
  number("proj_clip", o.proj_clip);
  if (const py::object v = get("zoneout"); !v.is_none()) {
    const auto rates = v.cast<py::tuple>();
    o.cell.zoneout_h = rates[0].cast<double>();
    o.cell.zoneout_c = rates[1].cast<double>();
  }
  flag("coupled", o.cell.coupled);
  bool elman = false;
  flag("elman", elman);
  if (elman) o.cell.type = CellType::elman;
  flag("peephole", o.peephole);
  flag("reverse", o.reverse);
  choice("layer_norm", o.layer_norm, std::array<const char*, 3>{"none", "output", "cell"});
  choice("merge", o.merge, std::array<const char*, 4>{"concat", "sum", "mul", "mean"});
  choice("shortcut", o.shortcut, std::array<const char*, 4>{"none", "residual", "highway", "dense"});
  choice("weights", o.weights, std::array<const char*, 4>{"real", "float16", "bfloat16", "int8"});
  number("layer_norm_eps", o.epsilon);
  number("dropout", o.dropout);
  number("recurrent_dropout", o.recurrent_dropout);
  number("weight_drop", o.weight_drop);
  if (n_read != dict.size()) throw py::value_error("an option that the core does not know");
  return o;
}

void check_options(const Sizes& s) {
  const Options& o = s.options;
  auto require = [](bool ok, const char* message) {
    if (!ok) throw py::value_error(message);
  };
  auto probability = [](double p) { return p >= 0 && p <= 1; };
  require(s.input && s.hidden && s.layers && (s.directions == 1 || s.directions == 2),
          "sizes must be positive, and directions 1 or 2");
  require(!o.reverse || s.directions == 1, "reverse needs one direction");
  require(o.merge == Merge::concat || s.directions == 2, "merge needs two directions");
  for (const double p : {o.dropout, o.recurrent_dropout, o.weight_drop, o.cell.zoneout_h, o.cell.zoneout_c})
    require(probability(p), "probabilities must be from 0 to 1");
  for (const double clip : {o.proj_clip, o.cell.cell_clip, o.cell.gate_clip})
    require(clip > 0, "a clip must be positive");
  require(o.epsilon > 0 && std::isfinite(o.epsilon), "layer_norm_eps must be positive");
  for (const Activation<double>& f : {o.cell.gate, o.cell.cell, o.cell.output})
    require(std::isfinite(f.alpha) && std::isfinite(f.beta), "an activation's numbers must be finite");
  if (o.cell.type != CellType::elman) return;
  const bool plain = !o.projection && !o.peephole && !o.cell.coupled && o.layer_norm == LayerNorm::none &&
                     o.cell.zoneout_h == 0 && o.cell.zoneout_c == 0 && o.proj_clip == Options::kNone &&
                     o.cell.cell_clip == Options::kNone && o.cell.gate_clip == Options::kNone;
  require(plain, "a network without gates takes no options of an LSTM");
}

}  // namespace quadgate
