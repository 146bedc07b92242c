# Cross-compilation for 64-bit ARM Linux, used by tools/wheels.sh: CC and CXX are compilers for that machine, and
# QUADGATE_PYTHON_HEADERS the folders of Python.h and pyconfig.h, from Debian's libpython3.X-dev of arm64.
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
set(CMAKE_STRIP "$ENV{CMAKE_STRIP}" CACHE STRING "" FORCE)
