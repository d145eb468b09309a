#!/usr/bin/env bash
# fuzz-api.sh: a whole Runmill in one process, in a temporary folder, on free loopback ports, with the offline model; schemathesis asks it
# what the OpenAPI documents allow and what they forbid. SEED, EXAMPLES (of each operation and phase) and MINUTES (of all) bound it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
wanted=schemathesis==4.32.5
venv=target/fuzz-api-venv

"${CARGO:-cargo}" build -p runmill
binary=$("${CARGO:-cargo}" metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug/runmill

if ! $venv/bin/python -m pip freeze 2>/dev/null | grep -qx "$wanted"; then
  rm -rf $venv
  mkdir -p target
  if ! { python3 -m venv $venv && $venv/bin/pip install --quiet --disable-pip-version-check "$wanted"; } >&2; then
    rm -rf $venv
    echo "fuzz-api: python3 with venv, and $wanted, are needed (apt install python3-venv)" >&2
    exit 1
  fi
fi
exec $venv/bin/python scripts/fuzz_api.py "$binary" "$@"
