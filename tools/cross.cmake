# Toolchain file of tools/wheels.sh, for every wheel: the machine is $QUADGATE_ARCH, and CXX compiles for it.
# Python.h and pyconfig.h are those of the building interpreter, also where the wheel is for another machine or libc.
# Debian's headers of Python 3.11, 3.13 and 3.14 for x86-64 and ARM differ in pyconfig.h alone, by five macros; after the
# preprocessor the bindings are the same text. With 3.10's, two functions more are declared, which nobody calls.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR "$ENV{QUADGATE_ARCH}")
set(CMAKE_CXX_COMPILER "$ENV{CXX}")
# pybind11 asks the interpreter otherwise, which is that of the building machine.
set(PYTHON_MODULE_EXTENSION "$ENV{SETUPTOOLS_EXT_SUFFIX}" CACHE STRING "" FORCE)
set(PYTHON_MODULE_DEBUG_POSTFIX "" CACHE STRING "" FORCE)
# strip of the building machine does not know the other one's files.
find_program(CMAKE_STRIP "$ENV{QUADGATE_ARCH}-linux-gnu-strip" REQUIRED)
