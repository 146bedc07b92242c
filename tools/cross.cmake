# Cross-compilation for 64-bit ARM Linux, used by tools/wheels.sh: CC and CXX are compilers for that machine, and
# QUADGATE_PYTHON_HEADERS the folders of Python.h and pyconfig.h, from Debian's libpython3.X-dev of arm64.
# Needs g++-aarch64-linux-gnu for the kernels. Tried by hand with these flags, CPython 3.11: auditwheel called the wheel
# manylinux2014, and it passed `python -m quadgate` in Debian's arm64 Python under qemu-aarch64. Not tried: stripping it
# here, the tests on such a machine, other versions of Python (Debian 12 has headers of 3.11 only), and tools/wheels.sh
# from end to end with ARCHS=aarch64.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER "$ENV{CC}")
set(CMAKE_CXX_COMPILER "$ENV{CXX}")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES QUADGATE_PYTHON_HEADERS)
if(QUADGATE_PYTHON_HEADERS)
  list(GET QUADGATE_PYTHON_HEADERS 0 Python_INCLUDE_DIR)
  include_directories(SYSTEM ${QUADGATE_PYTHON_HEADERS})
endif()
# pybind11 asks the interpreter otherwise, which is that of the building machine.
set(PYTHON_MODULE_EXTENSION "$ENV{SETUPTOOLS_EXT_SUFFIX}" CACHE STRING "" FORCE)
set(PYTHON_MODULE_DEBUG_POSTFIX "" CACHE STRING "" FORCE)
# strip of the building machine does not know the other one's files.
find_program(CMAKE_STRIP aarch64-linux-gnu-strip REQUIRED)
