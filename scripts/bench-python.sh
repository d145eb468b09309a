#!/usr/bin/env bash
# A Python with httpx in target/bench-venv, for the agents benchmark's baseline. Without one the benchmark says so and goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=target/bench-venv
if [ -x $venv/bin/python ] && $venv/bin/python -c 'import httpx' 2>/dev/null; then exit 0; fi
rm -rf $venv
mkdir -p target
if ! { python3 -m venv $venv && $venv/bin/pip install --quiet --disable-pip-version-check 'httpx>=0.27'; } >&2; then
  rm -rf $venv
  echo "bench: python3 with venv and httpx is missing (apt install python3-venv); its baseline is left out" >&2
fi
