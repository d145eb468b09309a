#!/usr/bin/env bash
# The peers of `make compare` in target/compare, in the versions that bench/peers lists. One that cannot be installed is left out, and the
# comparison says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
installed=target/compare
mkdir -p $installed

# Installed already when the list is the one that it was installed by.
fresh() { cmp -s "$1" "$2"; }

python_peer() {
  local list=bench/peers/$1/requirements.txt venv=$installed/$1
  if fresh "$list" "$venv/installed.txt"; then return; fi
  rm -rf "$venv"
  if python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$list"; then
    cp "$list" "$venv/installed.txt"
  else
    rm -rf "$venv"
    echo "compare: $1 cannot be installed (it needs python3 with venv, and pip) and is left out" >&2
  fi
}

node_peer() {
  local list=bench/peers/$1/package.json modules=$installed/$1
  if fresh "$list" "$modules/installed.json"; then return; fi
  rm -rf "$modules"
  mkdir -p "$modules"
  cp "$list" "$modules/package.json"
  if (cd "$modules" && npm install --silent --no-audit --no-fund --no-package-lock); then
    cp "$list" "$modules/installed.json"
  else
    rm -rf "$modules"
    echo "compare: $1 cannot be installed (it needs node 20 and npm) and is left out" >&2
  fi
}

python_peer agno
python_peer celery
node_peer bullmq
