// A network's parameters: packed for the kernels, and unpacked again.
#include <unordered_set>

#include "bind/gil.h"
#include "bind/py_network.h"

namespace quadgate {

template <class Real>
Network Network::packed(py::handle list) const {
  if (!PyList_CheckExact(list.ptr())) throw py::type_error("parameters must be a list");
  const Sizes& s = sizes();
  std::vector<LayerParameters<const Real*>> layers(s.states());
  std::vector<HighwayParameters<const Real*>> highways(s.layers);
  std::vector<py::object> held;  // keeps them if the list changes while the GIL is released
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list.ptr()); ++i) held.push_back(borrowed(PyList_GET_ITEM(list.ptr(), i)));
  size_t used = 0;
  each_parameter<const Real*>(
      s, layers.data(), highways.data(), [&](const Real*& slot, size_t rows, size_t cols, int axes) {
        const View<Real> v(used < held.size() ? py::handle(held[used++]) : py::handle(Py_None));
        if (!v || !v.contiguous() || !(axes == 1 ? v.has_shape(rows) : v.has_shape(rows, cols)))
          throw py::value_error("parameters must be C-contiguous arrays of the network's dtype and shapes");
        slot = v.data();
      });
  if (used != held.size()) throw py::value_error("wrong number of parameters");
  Network result(family_);
  const CoreCall core;
  result.weights_ = std::make_shared<const Weights<Real>>(s, layers.data(), highways.data());
  return result;
}

Network Network::packed_compact(py::handle list) const {
  if (!PyList_CheckExact(list.ptr())) throw py::type_error("parameters must be a list");
  const Sizes& s = sizes();
  using Layers = std::vector<LayerParameters<const void*>>;
  using Highways = std::vector<HighwayParameters<const void*>>;
  Layers layers(s.states()), scales(s.states());
  Highways highways(s.layers), highway_scales(s.layers);
  std::vector<py::object> held;  // keeps them if the list changes while the GIL is released
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list.ptr()); ++i) held.push_back(borrowed(PyList_GET_ITEM(list.ptr(), i)));
  size_t used = 0;
  auto next = [&](auto element, size_t rows, size_t cols, int axes) {
    const View<decltype(element)> v(used < held.size() ? py::handle(held[used++]) : py::handle(Py_None));
    if (!v || !v.contiguous() || !(axes == 1 ? v.has_shape(rows) : v.has_shape(rows, cols)))
      throw py::value_error("parameters must be C-contiguous arrays of the weights' type and shapes");
    return static_cast<const void*>(v.data());
  };
  // The same places among the scales, in the same order.
  std::vector<const void**> places;
  each_parameter<const void*>(s, scales.data(), highway_scales.data(),
                              [&](const void*& slot, size_t, size_t, int) { places.push_back(&slot); });
  std::unordered_set<const void*> matrices;
  for (const auto& l : layers) matrices.insert({&l.weight_ih, &l.weight_hh, &l.weight_hr});
  for (const auto& h : highways) matrices.insert(&h.weight);
  size_t n = 0;
  each_parameter<const void*>(s, layers.data(), highways.data(),
                              [&](const void*& slot, size_t rows, size_t cols, int axes) {
                                const void** scale = places[n++];
                                if (!matrices.count(&slot)) {
                                  slot = next(float(), rows, cols, axes);
                                } else if (s.options.weights == WeightType::int8) {
                                  slot = next(int8_t(), rows, cols, axes);
                                  *scale = next(float(), rows, 1, 1);
                                } else {
                                  slot = next(uint16_t(), rows, cols, axes);
                                }
                              });
  if (used != held.size()) throw py::value_error("wrong number of parameters");
  Network result(family_);
  const CoreCall core;
  result.weights_ =
      std::make_shared<const Weights<float>>(s, layers.data(), scales.data(), highways.data(), highway_scales.data());
  return result;
}

Network Network::successor(py::handle list) const {
  if (sizes().compact_type()) return packed_compact(list);
  return is_double() ? packed<double>(list) : packed<float>(list);
}

bool Network::unpack(py::handle list) const {
  const Sizes& s = sizes();
  if (!s.compact_type() || weights<float>()->compact()) return false;
  if (list.is_none()) return true;
  if (!PyList_CheckExact(list.ptr())) throw py::type_error("arrays must be a list");
  std::vector<float*> to;
  std::vector<LayerParameters<int>> layers(s.states());
  std::vector<HighwayParameters<int>> highways(s.layers);
  std::unordered_set<const int*> matrices;
  for (const auto& l : layers) matrices.insert({&l.weight_ih, &l.weight_hh, &l.weight_hr});
  for (const auto& h : highways) matrices.insert(&h.weight);
  const size_t given = size_t(PyList_GET_SIZE(list.ptr()));
  each_parameter<int>(s, layers.data(), highways.data(), [&](const int& slot, size_t rows, size_t cols, int) {
    if (!matrices.count(&slot)) return;
    const View<float> v(to.size() < given ? py::handle(PyList_GET_ITEM(list.ptr(), Py_ssize_t(to.size())))
                                          : py::handle(Py_None));
    if (!v || !v.contiguous() || !v.writable() || !v.has_shape(rows, cols))
      throw py::value_error("arrays must be writable, C-contiguous, of float32 and the matrices' shapes");
    to.push_back(v.data());
  });
  if (to.size() != given) throw py::value_error("wrong number of arrays");
  weights<float>()->unpack(to.data());
  return true;
}

}  // namespace quadgate
