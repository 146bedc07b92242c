// No argument checking beyond what memory safety needs: the Python side passes plain arrays. Anything else raises.
#include "bind/py_train.h"

#include <memory>
#include <variant>
#include <vector>

#include "bind/arrays.h"
#include "bind/gil.h"
#include "bind/py_block.h"
#include "bind/py_commit.h"
#include "bind/py_options.h"
#include "train/dense.h"
#include "train/embedding.h"
#include "train/losses.h"
#include "train/optimizers.h"

namespace quadgate {
namespace {

// A plain C-contiguous array of that shape. Throws TypeError otherwise.
template <class Element, class... N>
View<Element> contiguous(py::handle h, const char* what, N... shape) {
  const View<Element> v(h);
  if (!v || !v.contiguous() || !v.has_shape(shape...))
    throw py::type_error(std::string(what) + " must be a plain array of the right type and shape");
  return v;
}

// The same of two axes, of any number of rows.
template <class Real>
View<Real> matrix(py::handle h, const char* what) {
  const View<Real> v(h);
  if (!v || !v.contiguous() || v.ndim() != 2)
    throw py::type_error(std::string(what) + " must be a plain array of two axes of the right type");
  return v;
}

template <class Element, class... N>
Element* target(py::handle h, const char* what, N... shape) {
  const View<Element> v = contiguous<Element>(h, what, shape...);
  if (!v.writable()) throw py::type_error(std::string(what) + " must be writable");
  return v.data();
}

double real(py::handle h) {
  const double x = PyFloat_AsDouble(h.ptr());
  if (x == -1 && PyErr_Occurred()) throw PythonError();
  return x;
}

py::object real_object(double x) { return owned(PyFloat_FromDouble(x)); }

// Calls f with a number of the array's type. Throws TypeError for other arrays.
template <class F>
py::object by_type(py::handle array, F&& f) {
  if (View<float>(array)) return f(float());
  if (View<double>(array)) return f(double());
  throw py::type_error("expected a plain array of float32 or float64");
}

Py_intptr_t axis(size_t n) { return Py_intptr_t(n); }

// ------------------------------------------------------------------------------------------------------ dense layers

struct PyDense {
  std::variant<std::unique_ptr<DenseLayer<float>>, std::unique_ptr<DenseLayer<double>>> layer;
  py::object weight, bias;  // whose memory it reads

  template <class Real>
  const DenseLayer<Real>& of() const {
    return *std::get<std::unique_ptr<DenseLayer<Real>>>(layer);
  }
  bool is_double() const { return layer.index() == 1; }
};

// Dense(weight, bias, activation): bias may be None; activation None or (name, alpha, beta). The arrays must not change
// any more.
PyObject* create_dense(PyTypeObject*, PyObject* args, PyObject* keywords) {
  return guarded([&] {
    if (keywords && PyDict_GET_SIZE(keywords) != 0) throw py::type_error("Dense takes no keyword arguments");
    PyObject *weight, *bias, *activation;
    const char* name = nullptr;
    double alpha = 0, beta = 0;
    if (!PyArg_ParseTuple(args, "OOO:Dense", &weight, &bias, &activation)) throw PythonError();
    if (activation != Py_None && !PyArg_ParseTuple(activation, "sdd", &name, &alpha, &beta)) throw PythonError();
    const int function = name ? function_named(name) : 0;
    return by_type(weight, [&](auto zero) {
      using Real = decltype(zero);
      const View<Real> w = matrix<Real>(weight, "weight");
      if (w.size() == 0) throw py::value_error("weight must have rows and columns");
      const Real* b = bias == Py_None ? nullptr : contiguous<Real>(bias, "bias", w.shape(0)).data();
      const Activation<Real> f = {function, Real(alpha), Real(beta)};
      std::unique_ptr<DenseLayer<Real>> layer;
      {
        const CoreCall core(kElementFlops * double(w.size()));
        layer = std::make_unique<DenseLayer<Real>>(w.data(), b, w.shape(1), w.shape(0), name ? &f : nullptr);
      }
      return Object<PyDense>::make(PyDense{std::move(layer), borrowed(weight), borrowed(bias)});
    });
  });
}

template <class Real>
py::object dense_forward(const DenseLayer<Real>& layer, py::handle x_, bool keep) {
  const View<Real> x = matrix<Real>(x_, "x");
  const size_t rows = x.shape(0);
  if (x.shape(1) != layer.n_in()) throw py::type_error("x must have the layer's columns");
  const Py_intptr_t shape[2] = {axis(rows), axis(layer.n_out())};
  py::object y = new_array<Real>(2, shape), z = none();
  const bool own_z = keep && layer.needs_z();
  if (own_z) z = new_array<Real>(2, shape);
  bool done;
  {
    const CoreCall core(2.0 * double(rows) * double(layer.n_in()) * double(layer.n_out()));
    done = layer.forward(x.data(), rows, own_z ? data_of<Real>(z) : nullptr, data_of<Real>(y), core.interrupted());
  }
  require_done(done);
  return tuple_of(std::move(y), std::move(z));
}

// forward(x, keep): y, and z where `backward` needs it.
py::object forward_of(PyDense& d, py::handle x, py::handle keep) {
  return d.is_double() ? dense_forward(d.of<double>(), x, is_true(keep))
                       : dense_forward(d.of<float>(), x, is_true(keep));
}

template <class Real>
py::object dense_backward(const DenseLayer<Real>& layer, py::handle x_, py::handle z_, py::handle y_, py::handle dy_,
                          bool need_x, py::handle dweight, py::handle dbias) {
  const View<Real> x = matrix<Real>(x_, "x");
  const size_t rows = x.shape(0), in = layer.n_in(), out = layer.n_out();
  if (x.shape(1) != in) throw py::type_error("x must have the layer's columns");
  typename DenseLayer<Real>::Backward b = {};
  b.x = x.data();
  b.dy = contiguous<Real>(dy_, "dy", rows, out).data();
  if (layer.active()) {
    b.y = contiguous<Real>(y_, "y", rows, out).data();
    b.z = layer.needs_z() ? contiguous<Real>(z_, "z", rows, out).data() : b.y;
  }
  b.n_rows = rows;
  b.dweight = target<Real>(dweight, "the gradient of weight", out, in);
  b.dbias = layer.biased() ? target<Real>(dbias, "the gradient of bias", out) : nullptr;
  py::object dx = none();
  if (need_x) {
    const Py_intptr_t shape[2] = {axis(rows), axis(in)};
    dx = new_array<Real>(2, shape);
    b.dx = data_of<Real>(dx);
  }
  bool done;
  {
    const CoreCall core(4.0 * double(rows) * double(in) * double(out));
    done = layer.backward(b, core.interrupted());
  }
  require_done(done);
  return dx;
}

// backward(x, z, y, dy, need_x, dweight, dbias): dx or None.
py::object backward_of(PyDense& d, py::handle x, py::handle z, py::handle y, py::handle dy, py::handle need_x,
                       py::handle dweight, py::handle dbias) {
  return d.is_double() ? dense_backward(d.of<double>(), x, z, y, dy, is_true(need_x), dweight, dbias)
                       : dense_backward(d.of<float>(), x, z, y, dy, is_true(need_x), dweight, dbias);
}

// -------------------------------------------------------------------------------------------------- embeddings, losses

// A copy of the numbers of an array, which another thread could write to, each from 0 to below n; -1 for those of
// weight 0. Throws IndexError for another.
std::vector<int64_t> numbers_below(py::handle h, const char* what, size_t n, const double* weights = nullptr) {
  const View<int64_t> v(h);
  if (!v || !v.contiguous() || v.ndim() != 1) throw py::type_error(std::string(what) + " must be int64 of one axis");
  std::vector<int64_t> copy(v.data(), v.data() + v.size());
  for (size_t i = 0; i < copy.size(); ++i)
    if (weights && weights[i] == 0)
      copy[i] = -1;
    else if (uint64_t(copy[i]) >= n)
      throw py::index_error(std::string(what) + " must be from 0 to " + std::to_string(n - 1) + ", got " +
                            std::to_string(copy[i]));
  return copy;
}

py::object embed(py::handle weight, py::handle ids_) {
  return by_type(weight, [&](auto zero) {
    using Real = decltype(zero);
    const View<Real> w = matrix<Real>(weight, "weight");
    const std::vector<int64_t> ids = numbers_below(ids_, "x", w.shape(0));
    const Py_intptr_t shape[2] = {axis(ids.size()), axis(w.shape(1))};
    py::object out = new_array<Real>(2, shape);
    bool done;
    {
      const CoreCall core(double(ids.size()) * double(w.shape(1)));
      done = gather_rows(w.data(), w.shape(1), ids.data(), ids.size(), data_of<Real>(out), core.interrupted());
    }
    require_done(done);
    return out;
  });
}

py::object embed_back(py::handle ids_, py::handle dy_, py::handle dweight) {
  return by_type(dy_, [&](auto zero) {
    using Real = decltype(zero);
    const View<Real> dy = matrix<Real>(dy_, "dy"), dw = matrix<Real>(dweight, "the gradient of weight");
    const std::vector<int64_t> ids = numbers_below(ids_, "x", dw.shape(0));
    if (!dw.writable() || dw.shape(1) != dy.shape(1) || dy.shape(0) != ids.size())
      throw py::type_error("the gradient of weight must be writable and have the right shape");
    bool done;
    {
      const CoreCall core(double(ids.size() + dw.shape(0)) * double(dy.shape(1)));
      done = sum_rows(dy.data(), dy.shape(1), ids.data(), ids.size(), dw.shape(0), dw.data(), core.interrupted());
    }
    require_done(done);
    return none();
  });
}

// softmax_cross_entropy(logits, targets, weights, divisor, gradient): (total, gradient or None).
py::object softmax_cross_entropy(py::handle logits_, py::handle targets, py::handle weights, py::handle divisor,
                                 py::handle gradient) {
  return by_type(logits_, [&](auto zero) {
    using Real = decltype(zero);
    const View<Real> logits = matrix<Real>(logits_, "outputs");
    CrossEntropy<Real> c = {};
    c.n_rows = logits.shape(0);
    c.n_classes = logits.shape(1);
    c.logits = logits.data();
    if (!weights.is_none()) c.weights = contiguous<double>(weights, "weights", c.n_rows).data();
    (void)contiguous<int64_t>(targets, "targets", c.n_rows);
    const std::vector<int64_t> t = numbers_below(targets, "targets", c.n_classes, c.weights);
    c.targets = t.data();
    c.divisor = real(divisor);
    py::object d = none();
    if (is_true(gradient)) {
      const Py_intptr_t shape[2] = {axis(c.n_rows), axis(c.n_classes)};
      d = new_array<Real>(2, shape);
      c.gradient = data_of<Real>(d);
    }
    bool done;
    {
      const CoreCall core(20.0 * double(c.n_rows) * double(c.n_classes));
      done = cross_entropy(c, core.interrupted());
    }
    require_done(done);
    return tuple_of(real_object(c.total), std::move(d));
  });
}

// ---------------------------------------------------------------------------------------------------------- optimizers

template <class Real>
const Real* flat(py::handle h, size_t n, const char* what) {
  const View<Real> v(h);
  if (!v || !v.contiguous() || v.size() != n)
    throw py::type_error(std::string(what) + " must be plain arrays of the parameters' type and sizes");
  return v.data();
}

// gradient_squares(arrays): the list of their sums of squares.
py::object squares_of(py::handle list) {
  const std::vector<py::object> arrays = items_of(list, "grads");
  std::vector<double> squares;
  if (arrays.empty()) return owned(PyList_New(0));
  return by_type(arrays[0], [&](auto zero) {
    using Real = decltype(zero);
    std::vector<const Real*> data;
    std::vector<size_t> sizes;
    double total = 0;
    for (const py::object& a : arrays) {
      const View<Real> v(a);
      if (!v || !v.contiguous()) throw py::type_error("grads must be plain arrays of one type");
      data.push_back(v.data());
      sizes.push_back(v.size());
      total += double(v.size());
    }
    bool done;
    {
      const CoreCall core(total);
      done = gradient_squares(data, sizes, squares, core.interrupted());
    }
    require_done(done);
    py::object result = owned(PyList_New(Py_ssize_t(squares.size())));
    for (size_t i = 0; i < squares.size(); ++i)
      PyList_SET_ITEM(result.ptr(), Py_ssize_t(i), real_object(squares[i]).release().ptr());
    return result;
  });
}

// optimize(numbers, params, grads, slots, scales, blocks): writes the next parameters and means into the blocks.
// numbers: ("adam", bound, beta_1, beta_2, epsilon, rate, keep, 1 - beta_1^k, 1 - beta_2^k) or
// ("sgd", bound, momentum, rate, nesterov); slots: lists of arrays, none for plain SGD; blocks: one more than slots.
py::object optimize(py::handle numbers, py::handle params_, py::handle grads_, py::handle slots_, py::handle scales_,
                    py::handle blocks_) {
  const auto params = items_of(params_, "params"), grads = items_of(grads_, "grads"), slots = items_of(slots_, "slots");
  const auto scales = items_of(scales_, "scales"), blocks = items_of(blocks_, "blocks");
  const size_t n = params.size();
  if (grads.size() != n || scales.size() != n || slots.size() > 2 || blocks.size() != slots.size() + 1)
    throw py::type_error("optimize: lists of unequal lengths");
  if (!PyTuple_CheckExact(numbers.ptr())) throw py::type_error("numbers must be a tuple");
  const char* name;
  AdamNumbers adam = {};
  SgdNumbers sgd = {};
  int nesterov = 0;
  const bool is_adam = PyTuple_GET_SIZE(numbers.ptr()) == 9;
  if (!(is_adam ? PyArg_ParseTuple(numbers.ptr(), "sdddddddd", &name, &adam.bound, &adam.beta_1, &adam.beta_2,
                                   &adam.epsilon, &adam.rate, &adam.keep, &adam.correction_1, &adam.correction_2)
                : PyArg_ParseTuple(numbers.ptr(), "sdddp", &name, &sgd.bound, &sgd.momentum, &sgd.rate, &nesterov)))
    throw PythonError();
  sgd.nesterov = nesterov != 0;
  if (is_adam && slots.size() != 2) throw py::type_error("Adam has two slots");
  if (n == 0) return none();
  return by_type(params[0], [&](auto zero) {
    using Real = decltype(zero);
    std::vector<Segment<Real>> segments(n);
    std::vector<std::vector<py::object>> means;
    for (const py::object& slot : slots) {
      means.push_back(items_of(slot, "slots"));
      if (means.back().size() != n) throw py::type_error("optimize: lists of unequal lengths");
    }
    size_t total = 0;
    for (size_t i = 0; i < n; ++i) {
      Segment<Real>& s = segments[i];
      const View<Real> p(params[i]);
      if (!p || !p.contiguous()) throw py::type_error("params must be plain arrays of one type");
      s.n = p.size();
      s.p = p.data();
      s.g = flat<Real>(grads[i], s.n, "grads");
      if (means.size() > 0) s.first = flat<Real>(means[0][i], s.n, "slots");
      if (means.size() > 1) s.second = flat<Real>(means[1][i], s.n, "slots");
      s.scale = real(scales[i]);
      total = checked_add(total, s.n);
    }
    Real* to[3] = {};
    for (size_t k = 0; k < blocks.size(); ++k) {
      to[k] = reinterpret_cast<Real*>(writable_block(blocks[k], total * sizeof(Real)));
      for (size_t j = 0; j < k; ++j)
        if (to[j] == to[k]) throw py::value_error("the blocks must be different ones");
    }
    const Targets<Real> targets = {to[0], to[1], to[2]};
    bool done;
    {
      const CoreCall core(8.0 * double(total));
      done = is_adam ? adam_step(segments, adam, targets, core.interrupted())
                     : sgd_step(segments, sgd, targets, core.interrupted());
    }
    require_done(done);
    return none();
  });
}

}  // namespace

void register_train(py::module_& m) {
  register_block(m);
  register_commit(m);
  static PyMethodDef methods[] = {Method<&forward_of>::entry("forward"), Method<&backward_of>::entry("backward"), {}};
  static PyGetSetDef properties[] = {{}};
  Object<PyDense>::define(m, "quadgate._core.Dense", &create_dense, methods, properties);
  static PyMethodDef functions[] = {ModuleFunction<&embed>::entry("embed"),
                                    ModuleFunction<&embed_back>::entry("embed_back"),
                                    ModuleFunction<&softmax_cross_entropy>::entry("softmax_cross_entropy"),
                                    ModuleFunction<&squares_of>::entry("gradient_squares"),
                                    ModuleFunction<&optimize>::entry("optimize"),
                                    {}};
  add_functions(m, functions);
}

}  // namespace quadgate
