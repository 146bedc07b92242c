#!/usr/bin/env bash
# Builds a free-threaded CPython in a scratch folder and runs the thread tests with it: tools/free_threaded.sh [SOURCE.tar.*]
# The source is CPython 3.13 or above: the given archive, or what `apt-get source python3.13` finds, which needs deb-src
# lines of a suite that has it. Four minutes on two cores, and two more for the package; bench/NOTES.md has figures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

mkdir "$folder/source"
if [ $# -gt 0 ]; then
  tar -xf "$1" -C "$folder/source" --strip-components=1
else
  (cd "$folder" && apt-get source -qq --download-only python3.13)
  tar -xf "$folder"/python3.13_*.orig.tar.xz -C "$folder/source" --strip-components=1
fi

cd "$folder/source"
./configure --quiet --disable-gil --prefix="$folder/python" >/dev/null
make -s -j"$(nproc)" >/dev/null
make -s install >/dev/null
python=("$folder"/python/bin/python3.*t)

cd "$root"
"${python[0]}" -m venv "$folder/venv"
# Wheels only: the newest releases may need other compilers where there is no wheel for this Python.
"$folder/venv/bin/pip" install -q --only-binary :all: pytest hypothesis numpy
"$folder/venv/bin/pip" install -q .
# The GIL stays off, and stays off after the import of the module: it says that it needs none.
"$folder/venv/bin/python" -W error -c "import sys, quadgate; assert not sys._is_gil_enabled()"
"$folder/venv/bin/pytest" -q -p no:cacheprovider tests/process/test_threads.py tests/face/test_commit.py tests/stream
