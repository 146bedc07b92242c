#!/usr/bin/env bash
# Coverage of Python by coverage.py and of C++ by gcov, of one run of the tests: tools/coverage.sh [FOLDER [PYTEST ARGUMENTS...]]
# Needs the package's test requirements and coverage. FOLDER (a new one by default) keeps the build and the reports.
# The C++ is that of the plainest instruction set, without optimisation, so that each line is counted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-$(mktemp -d)}
shift || true
[ $# -gt 0 ] || set -- -m "not slow" tests --ignore=tests/process/test_allocations.py

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
python -m pip install -q --no-deps --target "$folder/package" --upgrade . \
  -C build-dir="$folder/build" -C cmake.build-type=Debug -C install.strip=false \
  -C cmake.define.QUADGATE_X86_KERNELS=baseline -C cmake.define.QUADGATE_OPTIMIZE=-O0 \
  -C cmake.define.CMAKE_CXX_FLAGS=--coverage -C cmake.define.CMAKE_MODULE_LINKER_FLAGS=--coverage

# The tests that run Python in processes of their own are counted, too: their coverage starts by a .pth file.
cat >"$folder/package/coveragerc" <<RC
[run]
branch = True
parallel = True
source_pkgs = quadgate
data_file = $folder/data
[report]
exclude_also =
    if TYPE_CHECKING:
    @overload
RC
cat >"$folder/package/sitecustomize.py" <<'PY'
import sys

import coverage

# An editable install would come before this package.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildRedirectingFinder"]
coverage.process_startup()
PY
find "$folder/build" -name '*.gcda' -delete
export PYTHONPATH="$folder/package" COVERAGE_PROCESS_START="$folder/package/coveragerc"
status=0
python -m pytest -q -p no:cacheprovider "$@" || status=$?
unset COVERAGE_PROCESS_START

echo "== Python"
python -m coverage combine -q --rcfile "$folder/package/coveragerc"
python -m coverage report --rcfile "$folder/package/coveragerc" -m --skip-covered | tee "$folder/python.txt"

echo "== C++"
find "$folder/build" -name '*.gcda' -print0 | (cd "$folder" && xargs -0 gcov -t -r -s "$OLDPWD" 2>/dev/null) >"$folder/cpp.gcov"
python - "$folder/cpp.gcov" <<'PY' | tee "$folder/cpp.txt"
"""Sum up gcov's listings: a line that is compiled several times counts as run if it ran in one of them."""

import sys
from collections import defaultdict

lines = defaultdict(dict)
for text in open(sys.argv[1], errors="replace"):
    count, _, rest = text.partition(":")
    number, _, source = rest.partition(":")
    if number.strip() == "0" and source.startswith("Source:"):
        file = source[len("Source:") :].strip()
    elif number.strip().isdigit() and count.strip() not in ("-", ""):
        ran = not count.strip().startswith(("#", "="))
        lines[file][int(number)] = lines[file].get(int(number), False) or ran
total = covered = 0
for file, found in sorted(lines.items()):
    if not file.startswith("csrc"):
        continue
    total, covered = total + len(found), covered + sum(found.values())
    missed = [n for n, ran in sorted(found.items()) if not ran]
    if missed:
        print(f"{file}: {100 * (1 - len(missed) / len(found)):.0f} %, not run: {', '.join(map(str, missed))}")
print(f"C++: {100 * covered / max(total, 1):.1f} % of {total} lines")
PY
echo "reports in $folder"
exit $status
