#!/usr/bin/env bash
# fuzz.sh [TARGET…]: builds the targets of fuzz/ and runs each for SECONDS_EACH (60). Their first inputs are made by
# `seed`; what they learn stays in target/fuzz-corpus, an input that breaks one in fuzz/artifacts. Exits with 1 on a finding.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${SECONDS_EACH:-60}
target=${CARGO_TARGET_DIR:-target}/fuzz
corpus=${CARGO_TARGET_DIR:-target}/fuzz-corpus

CARGO_TARGET_DIR=$target RUSTC_WRAPPER=$PWD/scripts/fuzz-rustc.sh "${CARGO:-cargo}" build --manifest-path fuzz/Cargo.toml --bins
"$target/debug/seed" "$corpus"

# One word a target, so splitting is meant.
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(sed -n 's/^path = "targets\/\(.*\)\.rs"/\1/p' fuzz/Cargo.toml)
failed=
for name in "$@"; do
  mkdir -p "fuzz/artifacts/$name" "$corpus/$name"
  echo "fuzz: $name, $seconds s" >&2
  # -timeout is that of one input, in seconds.
  if ! "$target/debug/$name" "$corpus/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=8192 \
    -artifact_prefix="fuzz/artifacts/$name/" -print_final_stats=1 -seed="${SEED:-1}" >"$corpus/$name.log" 2>&1; then
    failed="$failed $name"
    tail -n 40 "$corpus/$name.log" >&2
  fi
  grep -E 'stat::number_of_executed_units|stat::average_exec_per_sec|cov:' "$corpus/$name.log" | tail -n 3 >&2 || true
done
[ -z "$failed" ] || { echo "fuzz: found something in$failed; see fuzz/artifacts" >&2; exit 1; }
echo "fuzz: nothing found" >&2
