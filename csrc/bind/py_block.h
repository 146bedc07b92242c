// Memory that the core writes and Python only reads.
#pragma once

#include <atomic>

#include "bind/object.h"
#include "memory/buffer.h"

namespace quadgate {

// A piece of memory with a read-only buffer: arrays over it can never be made writable. `exports` counts the buffers
// that are open, so that its owner knows when no array over it is left and it can be written again.
struct PyBlock {
  explicit PyBlock(size_t n) : memory(Buffer<char>::hot(n)) {}
  Buffer<char> memory;
  std::atomic<Py_ssize_t> exports{0};
};

// The memory of a Python object that is a block of n bytes without open buffers. Throws TypeError or ValueError.
char* writable_block(py::handle object, size_t n);

void register_block(py::module_& m);

}  // namespace quadgate
