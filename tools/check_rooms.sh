#!/usr/bin/env bash
# Checks that no room of csrc includes a higher one. Usage: tools/check_rooms.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Rooms include lower ones only; those on one line may include each other. docs/architecture.md has the order.
failed=0 lower=
while read -r rooms; do
  lower+=" $rooms"
  for room in $rooms; do
    while IFS=: read -r file target; do
      allowed=0
      for below in $lower; do [[ $target == "$below"/* ]] && allowed=1; done
      [[ $allowed == 1 ]] || { echo "a higher room: $file includes $target" >&2; failed=$((failed + 1)); }
    done < <(grep -rE '^ *#include "' "csrc/$room" | sed -E 's|^([^:]+):.*"([^"]+)".*|\1:\2|')
  done
done <<'ROOMS'
kernels/vec
kernels cells
memory cpu parallel
rnn train
bind
ROOMS
[[ $failed -eq 0 ]]
