# The steps of .ci/run and .ci/full, one function each. Sourced by both; needs $work, an empty folder.
# Needs Python >= 3.10, a C++17 compiler and network. As root it installs the cross compiler, the emulator and ccache;
# it can do without the last.

WHEEL_LIMIT_MB=1.0
TORCH=torch==2.13.0

# step TITLE COMMAND...: run a function of this file, and note how long it took.
step() {
  local title=$1 start=$SECONDS
  shift
  printf '\n== %s (%d s so far)\n' "$title" "$SECONDS"
  "$@"
  times_taken+=("$(printf '%5d s  %s' $((SECONDS - start)) "$title")")
}

# beside NAME COMMAND...: start a command at the lowest priority beside steps that leave a core idle. end_beside NAME: wait
# for it, before a step that needs all cores, and show what it printed.
declare -A started=()
beside() {
  local name=$1
  shift
  set -m  # a group of its own, to be ended with its children; in a session of its own priorities would not be compared
  nice -n 19 "$@" >"$work/$name.log" 2>&1 </dev/null &
  started[$name]=$!
  set +m
}
end_beside() {
  local result=0
  wait "${started[$1]}" || result=$?
  unset "started[$1]"
  cat "$work/$1.log"
  return "$result"
}

# To be called on exit: what runs beside goes with its children.
clean_up() {
  local group
  for group in "${started[@]}"; do kill -- "-$group" || true; done
  rm -rf "$work"
}

# finish MINUTES: print the seconds of each step; fail if all of them took longer than that.
finish() {
  printf '\n== seconds per step\n'
  printf '%s\n' "${times_taken[@]}"
  printf '%5d s  in total, of %d allowed\n' "$SECONDS" $(($1 * 60))
  [ "$SECONDS" -le $(($1 * 60)) ] || { echo "that is too long: move something to .ci/full" >&2; exit 1; }
}

# packages NAME...: install packages of Debian or Ubuntu.
packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

tools() {
  if ! command -v aarch64-linux-gnu-g++ >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
      echo "install g++-aarch64-linux-gnu and qemu-user first" >&2
      exit 1
    fi
    packages g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user ccache
  fi
  # The installed module and the native tests have the same core, and .ci/full's wheel. With ccache it is compiled once,
  # for this run alone; without, for each.
  command -v ccache >/dev/null || packages ccache || true
  if command -v ccache >/dev/null; then export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_DIR=$work/ccache; fi
  mkdir "$work/judgements"
  export QUADGATE_TEST_JUDGEMENTS=$work/judgements
  python3 -m venv "$work/venv"
  export PATH="$work/venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1
  # Python compiles what is imported, which is a fifth of what is installed, and keeps it, whatever this machine's
  # variables say: otherwise each process would compile it anew.
  export PIP_NO_COMPILE=1
  unset PYTHONDONTWRITEBYTECODE
}

# As the README says, then everything that is compared with. pip, style and site take one core: the other one tests NEON
# meanwhile.
install() {
  CXXFLAGS=-Werror pip install -q -e ".[test]"
  pip install -q cmake ninja
  export CMAKE_GENERATOR=Ninja
  beside neon tests/native/run_neon.sh "$work/neon"
  # Adds what the extras name. The exact version keeps pip from looking for another quadgate in the index.
  pip install -q mpich "$TORCH" keras \
    "quadgate[gallery,plot,bench,dev,docs]==$(python -c 'import quadgate; print(quadgate.__version__)')"
}

style() {
  ruff check .
  ruff format --check .
  mypy --strict
  python -m mypy.stubtest --mypy-config-file pyproject.toml quadgate._core
  git ls-files '*.cpp' '*.h' | xargs clang-format --dry-run -Werror
  tools/check_rooms.sh
}

headers() { tools/check_headers.sh; }

# Size of a wheel, estimated from the installed files, compressed as wheels are; .ci/full builds one.
size() {
  python - "$WHEEL_LIMIT_MB" <<'PY'
import sys
import zlib
from pathlib import Path

import quadgate
import quadgate._core

limit, package = float(sys.argv[1]), Path(quadgate.__file__).parent
kinds = {".py", ".pyi", ".html", ".css", ".js"}
files = [Path(quadgate._core.__file__), *(p for p in package.rglob("*") if p.suffix in kinds)]
metadata = 0.025  # licences, parts, names of files
size = sum(len(zlib.compress(p.read_bytes(), 6)) for p in files) / 1e6 + metadata
print(f"{len(files)} files: a wheel of {size:.3f} MB")
if size >= limit:
    sys.exit(f"the wheel must be below {limit} MB")
PY
}

# Built by the exact tools of the lock file, which pip checks by their hashes.
wheel() {
  python3 -m venv "$work/build-tools"
  "$work/build-tools/bin/pip" install -q --require-hashes --only-binary :all: -r .ci/requirements-build.txt
  PATH="$work/build-tools/bin:$PATH" CXXFLAGS=-Werror "$work/build-tools/bin/pip" wheel -q --no-deps --no-build-isolation \
    -w "$work/wheel" .
  python - "$work"/wheel/*.whl "$WHEEL_LIMIT_MB" <<'PY'
import json
import sys
import zipfile
from pathlib import Path

wheel, limit = Path(sys.argv[1]), float(sys.argv[2])
size = wheel.stat().st_size / 1e6
archive = zipfile.ZipFile(wheel)
names = {Path(n).name.split(".")[0] + Path(n).suffix for n in archive.namelist()}
(info,) = {n.split("/")[0] for n in archive.namelist() if ".dist-info/" in n}
sbom = json.loads(archive.read(f"{info}/sboms/quadgate.cdx.json"))
parts = [sbom["metadata"]["component"], *sbom["components"]]
for part in parts:
    print("  holds", part["name"], part["version"], part["licenses"][0]["license"]["id"])
if [part["name"] for part in parts] != ["quadgate", "pybind11"] or not all(part["version"] for part in parts):
    sys.exit("the wheel's list of parts is not complete")
for name in ("LICENSE", "licenses/pybind11.txt"):
    if b"copyright" not in archive.read(f"{info}/licenses/{name}").lower():
        sys.exit(f"the wheel holds no licence {name}")
missing = {"_core.so", "_core.pyi", "py.typed", "LICENSE"} - names
print(f"{wheel.name}: {size:.2f} MB")
if size >= limit or missing:
    sys.exit(f"the wheel must be below {limit} MB and hold everything; missing: {sorted(missing)}")
PY
}

# Warnings are errors: links between pages, docstrings, and what the pages quote of the source.
site() { python -m sphinx -q -W --keep-going -b html docs "$work/site"; }

native() {
  # Under the compiler's name that Python's builds use, or ccache takes it for another one.
  local cxx
  cxx=$(python -c 'import sysconfig; print(sysconfig.get_config_var("CXX").split()[0])')
  CXX=$cxx CXXFLAGS=-Werror cmake -S . -B "$work/native" -DQUADGATE_NATIVE_TESTS=ON >/dev/null
  cmake --build "$work/native" --parallel "$(nproc)"
  ctest --test-dir "$work/native" --parallel "$(nproc)" --output-on-failure
}

sanitizers() { tests/native/run_sanitizers.sh "$work/sanitizers"; }

emulation() { end_beside neon; }

example() { python examples/write_python.py --seconds 5 --explore "$work/page.html"; }

bench() {
  pytest bench/test_arguments.py bench/test_bench.py -q -n auto
  pytest bench --benchmark-only --benchmark-min-rounds=1 --benchmark-max-time=0.05 --benchmark-warmup=off -q
}

tests() { pytest -n auto --dist worksteal --require-peers --durations=10 "$@"; }

# The promises about numbers once more for each instruction set that the other tests did not run on. What the judges
# answered there they need not compute again. The native tests run on the baseline, too, so that it is left to .ci/full.
instruction_sets() { numbers_on '{*i["supported"]} - {i["isa"], "baseline"}'; }
baseline() { numbers_on '{*i["supported"]} - {i["isa"]} & {"baseline"}'; }

numbers_on() {  # SET OF NAMES, in Python, by i = qg.cpu_info()
  local isa names
  names=$(python -c "import quadgate as qg; i = qg.cpu_info(); print(*($1))")  # not in `for`, which ignores a failure
  for isa in $names; do
    echo "-- $isa"
    QUADGATE_ISA=$isa pytest -q -n auto -m numbers
  done
}

# Everything that protects main, in the order in which mistakes are cheapest to find.
all_of_run() {
  step "tools" tools
  step "install, as the README says" install
  step "size of what is installed" size
  step "style, types and the core's stub" style
  step "site" site
  step "NEON kernels and native tests under emulation, beside those" emulation
  step "tests" tests
  step "numbers on the other instruction sets" instruction_sets
  step "native tests" native
  step "native tests under sanitizers" sanitizers
  step "the example" example
  step "bench: its own arithmetic and the peers, one quick round each" bench
}
