#!/usr/bin/env bash
# Makes sure that what a build (`setup.sh build`), the tests (`setup.sh test`) or the laboratory (`setup.sh chaos`) need is there. Installs what is missing where apt may
# be used, else prints the one line to type and fails. Says nothing when nothing is missing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
what=${1:-build}

has() { command -v "$1" >/dev/null 2>&1; }
has_compiler() { has "${CXX:-c++}" || has g++ || has clang++; }
has_redis() {
  has redis-server || return 1
  local version
  version=$(redis-server --version | sed -n 's/.* v=\([0-9]*\).*/\1/p')
  [ "${version:-0}" -ge 7 ]
}
has_postgres() { "$here/postgres-bin.sh" >/dev/null; }
may_install() { has apt-get && { [ "$(id -u)" = 0 ] || { has sudo && sudo -n true 2>/dev/null; }; }; }
# Where it cannot be installed, the laboratory does without.
wants_faketime() { [ "$what" = chaos ] && may_install && ! ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1; }

missing() {
  has cmake || echo cmake
  has_compiler || echo g++
  [ "$what" != build ] || return 0
  has_redis || echo redis-server
  has_postgres || echo postgresql
  ! wants_faketime || echo libfaketime
}

fail() {
  echo "setup: $1" >&2
  exit 1
}

# The packages' own services are neither started nor left enabled: the tests start their own.
apt_install() {
  local sudo=$1 policy=/usr/sbin/policy-rc.d
  shift
  echo "setup: installing $*" >&2
  $sudo apt-get update -q >&2
  if [ ! -e "$policy" ]; then
    # shellcheck disable=SC2064  # expanded now: the variables are gone when the trap runs
    trap "$sudo rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod 755 "$policy"
  fi
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
  has systemctl || return 0
  for package in "$@"; do
    case $package in
      redis-server | postgresql) $sudo systemctl disable --quiet "$package" >&2 || true ;;
    esac
  done
}

brew_names() {
  for package in "$@"; do
    case $package in
      g++) ;; # comes with the developer tools that brew itself needs
      redis-server) echo redis ;;
      postgresql) echo postgresql@17 ;;
      *) echo "$package" ;;
    esac
  done
}

has "${CARGO:-cargo}" || fail "Rust is missing; install it with rustup, then open a new shell"
if [ "$what" != build ] && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
  rustup component add rustfmt clippy >&2 || fail "type: rustup component add rustfmt clippy"
fi

# One word a package, so splitting is meant.
# shellcheck disable=SC2046
set -- $(missing)
[ $# -gt 0 ] || exit 0
if has apt-get; then
  if [ "$(id -u)" = 0 ]; then
    apt_install "" "$@"
  elif has sudo && sudo -n true 2>/dev/null; then
    apt_install sudo "$@"
  else
    fail "$* missing; type: sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
  fi
elif has brew; then
  # shellcheck disable=SC2046
  set -- $(brew_names "$@")
  fail "type: brew install $*"
else
  fail "install with your package manager: $* (redis-server must be 7 or newer)"
fi

# shellcheck disable=SC2046
set -- $(missing)
[ $# -eq 0 ] || fail "apt has no $* that is new enough (redis-server must be 7 or newer); install it by hand"
