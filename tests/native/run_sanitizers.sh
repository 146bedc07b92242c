#!/usr/bin/env bash
# Builds and runs the native tests under AddressSanitizer with UBSan, and those that start threads under ThreadSanitizer.
# Usage: tests/native/run_sanitizers.sh [build folder]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=${1:-$(mktemp -d)}
export QUADGATE_TEST_ROUNDS=${QUADGATE_TEST_ROUNDS:-10000}
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:allocator_may_return_null=1

for kind in address,undefined thread; do
  echo "== -fsanitize=$kind"
  flags="-fsanitize=$kind -fno-sanitize-recover=all -fno-omit-frame-pointer -g1"
  build=$work/${kind%%,*}
  target=all tests=()
  if [ "$kind" = thread ]; then
    target=threaded_tests tests=(--label-regex threads)
    export QUADGATE_TEST_FORK=0  # ThreadSanitizer itself fails when a forked child starts threads
  fi
  # -O1, since the register tiles of the kernels take minutes to compile otherwise. Debug brings -g, which overrides -g1
  # and takes the compiler half as long again.
  cmake -S "$root" -B "$build" -DQUADGATE_NATIVE_TESTS=ON -DQUADGATE_OPTIMIZE=-O1 -DCMAKE_BUILD_TYPE=Debug \
    -DCMAKE_CXX_FLAGS_DEBUG= -DCMAKE_CXX_FLAGS="$flags" -DCMAKE_EXE_LINKER_FLAGS="-fsanitize=$kind" >/dev/null
  cmake --build "$build" --target "$target" --parallel "$(nproc)"
  ctest --test-dir "$build" ${tests[@]+"${tests[@]}"} --parallel "$(nproc)" --output-on-failure
done
