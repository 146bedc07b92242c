#!/usr/bin/env bash
# Compiles every header under csrc alone, so that none depends on what was included before it.
# Usage: tools/check_headers.sh [folder under csrc ...]      CXX and PYTHON choose the compiler and the interpreter,
# which must have pybind11; headers of intrinsics for another processor than this one are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cxx=${CXX:-g++}
python=${PYTHON:-python3}
flags=(-std=c++17 -Wall -Wextra -Werror -Icsrc -fsyntax-only -x c++)

isa_flags() {  # NAME [compiler flags]
  echo -DQG_ISA="$1" "-DQG_ISA_NAME=\"$1\"" "-DQG_ISA_${1^^}" "${@:2}"
}
case $(uname -m) in
  aarch64 | arm64) native=neon ;;
  *) native=baseline ;;
esac

read -ra pybind11 <<<"$("$python" -m pybind11 --includes)"
alone=$(mktemp -d)
trap 'rm -rf "$alone"' EXIT
jobs=$(getconf _NPROCESSORS_ONLN) n=0
while read -r header; do
  extra=()
  case $header in
    csrc/kernels/vec/avx512.h) isa=avx512 extra=(-mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma) ;;
    csrc/kernels/tile_product.h | csrc/kernels/tile_step.h)
      isa=avx512 extra=(-mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx512vnni -mavx2 -mfma -mamx-tile -mamx-int8) ;;
    csrc/kernels/vec/avx2.h) isa=avx2 extra=(-mavx2 -mfma) ;;
    csrc/kernels/vec/baseline.h) isa=baseline ;;
    csrc/kernels/vec/neon.h) isa=neon ;;
    *) isa=$native ;;
  esac
  case $isa in
    neon) [[ $native == neon ]] || continue ;;
    *) [[ $native != neon ]] || continue ;;
  esac
  read -ra defines <<<"$(isa_flags "$isa" ${extra[@]+"${extra[@]}"})"
  if [[ $header == csrc/bind/* ]]; then
    defines+=("${pybind11[@]}" -fvisibility=hidden)
  fi
  n=$((n + 1))
  # From standard input: a header as the main file would warn of its own #pragma once.
  {
    if ! echo "#include \"${header#csrc/}\"" | "$cxx" "${flags[@]}" "${defines[@]}" -; then
      echo "does not compile alone: $header" >&2
      touch "$alone/$n"
    fi
  } &
  ((n % jobs)) || wait
done < <(for folder in "${@:-.}"; do find "csrc/$folder" -name '*.h'; done | sed 's|/\./|/|' | sort)
wait
failed=$(find "$alone" -type f | wc -l)
echo "$n headers, $((failed)) do not compile alone"
[[ $n -gt 0 && $failed -eq 0 ]]
