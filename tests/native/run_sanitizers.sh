#!/usr/bin/env bash
# Builds and runs the native tests under AddressSanitizer with UBSan, and those that start threads under
# ThreadSanitizer.
# Usage: tests/native/run_sanitizers.sh [build folder]
# QUADGATE_TEST_ALL=1: every check, in the kernels, too, ThreadSanitizer for every instruction set, and all networks,
# not one half of them, and a quarter under ThreadSanitizer; takes as long again.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=${1:-$(mktemp -d)}
export QUADGATE_TEST_ROUNDS=${QUADGATE_TEST_ROUNDS:-10000}
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:allocator_may_return_null=1

kernels=all  # up to those that this machine runs: others are compiled for nothing
if [ -r /proc/cpuinfo ] && ! grep -qw avx512vl /proc/cpuinfo; then kernels=avx2; fi

for kind in address,undefined thread; do
  echo "== -fsanitize=$kind"
  flags="-fsanitize=$kind -fno-sanitize-recover=all -fno-omit-frame-pointer -g1"
  # UBSan's checks of each pointer take the compiler a third of its time, and AddressSanitizer sees most of their
  # faults.
  if [ "${QUADGATE_TEST_ALL:-0}" != 1 ]; then flags+=" -fno-sanitize=alignment,null,object-size"; fi
  build=$work/${kind%%,*}
  target=all tests=() networks=2 some=("-DQUADGATE_X86_KERNELS=$kernels")
  if [ "$kind" = thread ]; then
    # Races are of the code around the kernels, which is the same for all of them.
    target=threaded_tests tests=(--label-regex threads) networks=4
    some=(-DQUADGATE_X86_KERNELS=baseline)
    export QUADGATE_TEST_FORK=0  # ThreadSanitizer itself fails when a forked child starts threads
  fi
  # The register tiles of the kernels take minutes to compile with more than -O1, or with the check that nobody uses a
  # variable after its block, which is kept for all other code. Debug brings -g, which overrides -g1 and takes the
  # compiler half as long again.
  # Kernels keep their frames on the stack: where a frame is moved to look for uses after a return, GCC 12 aligns
  # vectors of 64 bytes to 32, and stores to them fault.
  frames="--param=asan-use-after-return=0"
  some+=("-DQUADGATE_KERNEL_OPTIONS=-O1;-fno-sanitize-address-use-after-scope;$frames")
  if [ "${QUADGATE_TEST_ALL:-0}" = 1 ]; then some=("-DQUADGATE_KERNEL_OPTIONS=-O1;$frames") networks=1; fi
  cmake -S "$root" -B "$build" -DQUADGATE_NATIVE_TESTS=ON -DQUADGATE_OPTIMIZE=-O1 -DCMAKE_BUILD_TYPE=Debug \
    -DCMAKE_CXX_FLAGS_DEBUG= -DCMAKE_CXX_FLAGS="$flags" -DCMAKE_EXE_LINKER_FLAGS="-fsanitize=$kind" \
    "${some[@]}" >/dev/null
  cmake --build "$build" --target "$target" --parallel "$(nproc)"
  QUADGATE_TEST_NETWORKS=$networks ctest --test-dir "$build" ${tests[@]+"${tests[@]}"} --parallel "$(nproc)" \
    --output-on-failure
done
