#!/usr/bin/env bash
# Prints the folder of initdb, pg_ctl and postgres; fails when there is none. Distributions keep them off the PATH.
set -euo pipefail

on_path=$(command -v initdb || true)
candidates=("${on_path%/initdb}")
for dir in /usr/lib/postgresql/[1-9][0-9]/bin /usr/pgsql-[1-9][0-9]/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
  candidates+=("$dir")
done
# The PATH first, then the newest version: the last of the sorted list.
best=
for dir in "${candidates[@]}"; do
  if [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ] && [ -x "$dir/postgres" ]; then
    best=$dir
    [ "$dir" = "${candidates[0]}" ] && break
  fi
done
[ -n "$best" ] || exit 1
echo "$best"
