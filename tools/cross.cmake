# Toolchain file of tools/wheels.sh, for every wheel: the machine is $QUADGATE_ARCH, and CXX compiles for it.
# Python.h is that of the building interpreter, also where the wheel is for another machine or another libc: the files
# are the same, and the pyconfig.h of Debian's Python 3.11, 3.13 and 3.14 on x86-64 and ARM differ in five macros, which
# the headers of CPython 3.11 and above do not read. (3.10's pymath.h and pyport.h have macros for the x87 by them.)
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR "$ENV{QUADGATE_ARCH}")
set(CMAKE_CXX_COMPILER "$ENV{CXX}")
# pybind11 asks the interpreter otherwise, which is that of the building machine.
set(PYTHON_MODULE_EXTENSION "$ENV{SETUPTOOLS_EXT_SUFFIX}" CACHE STRING "" FORCE)
set(PYTHON_MODULE_DEBUG_POSTFIX "" CACHE STRING "" FORCE)
# strip of the building machine does not know the other one's files.
find_program(CMAKE_STRIP "$ENV{QUADGATE_ARCH}-linux-gnu-strip" REQUIRED)
