#include "bind/py_block.h"

namespace quadgate {
namespace {

using Block = Object<PyBlock>;

PyObject* new_block(PyTypeObject*, PyObject* args, PyObject* keywords) {
  return guarded([&] {
    Py_ssize_t n;
    if (keywords && PyDict_GET_SIZE(keywords) != 0) throw py::type_error("Block takes no keyword arguments");
    if (!PyArg_ParseTuple(args, "n:Block", &n)) throw PythonError();
    if (n < 0) throw py::value_error("the size must be 0 or more, got " + std::to_string(n));
    return Block::make(size_t(n));
  });
}

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  PyBlock& block = Block::value(self);
  const int status = PyBuffer_FillInfo(view, self, block.memory.data(), Py_ssize_t(block.memory.size()), 1, flags);
  if (status == 0) block.exports.fetch_add(1, std::memory_order_relaxed);
  return status;
}

void release_buffer(PyObject* self, Py_buffer*) { Block::value(self).exports.fetch_sub(1, std::memory_order_release); }

PyObject* exports(PyObject* self, void*) {
  return PyLong_FromSsize_t(Block::value(self).exports.load(std::memory_order_acquire));
}

}  // namespace

char* writable_block(py::handle object, size_t n) {
  if (!Block::is(object)) throw py::type_error("expected a Block");
  PyBlock& block = Block::value(object.ptr());
  if (block.memory.size() != n || block.exports.load(std::memory_order_acquire) != 0)
    throw py::value_error("expected a Block of " + std::to_string(n) + " bytes that no array is over");
  return block.memory.data();
}

void register_block(py::module_& m) {
  static PyGetSetDef properties[] = {{"exports", &exports, nullptr, nullptr, nullptr}, {}};
  PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(&Block::dealloc)},
                         {Py_tp_new, reinterpret_cast<void*>(&new_block)},
                         {Py_tp_getset, properties},
                         {Py_bf_getbuffer, reinterpret_cast<void*>(&get_buffer)},
                         {Py_bf_releasebuffer, reinterpret_cast<void*>(&release_buffer)},
                         {0, nullptr}};
  PyType_Spec spec = {"quadgate._core.Block", int(sizeof(Block)), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                      slots};
  py::object type = owned(PyType_FromSpec(&spec));
  Block::type = reinterpret_cast<PyTypeObject*>(type.ptr());
  m.attr("Block") = type;
  type.release();  // never freed
}

}  // namespace quadgate
