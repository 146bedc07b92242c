#!/usr/bin/env bash
# Cross-compiles the kernels and the native tests for 64-bit ARM and runs them under emulation.
# Needs g++-aarch64-linux-gnu and qemu-user. Usage: tests/native/run_neon.sh [build folder]
# QUADGATE_TEST_ALL=1: all networks, not one quarter of them.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=${1:-$(mktemp -d)}
export QUADGATE_TEST_ROUNDS=${QUADGATE_TEST_ROUNDS:-1000}
export QUADGATE_TEST_FORK=0  # qemu itself fails when a forked child starts threads

cmake -S "$root" -B "$work" -DQUADGATE_NATIVE_TESTS=ON \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  -DCMAKE_EXE_LINKER_FLAGS=-static -DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64 >/dev/null
cmake --build "$work" --parallel "$(nproc)"
if [ "${QUADGATE_TEST_ALL:-0}" != 1 ]; then export QUADGATE_TEST_NETWORKS=4; fi
ctest --test-dir "$work" --parallel "$(nproc)" --output-on-failure
