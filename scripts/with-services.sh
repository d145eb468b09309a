#!/usr/bin/env bash
# with-services.sh COMMAND…: runs COMMAND with a Postgres and a Redis of its own, on free loopback ports and in a temporary folder, named
# by RUNMILL_TEST_DATABASE_URL and RUNMILL_TEST_REDIS_URL. Stops both, and nothing else, when COMMAND ends. Nothing is synced to disk.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -gt 0 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }

postgres_bin=$("$here/postgres-bin.sh") || { echo "with-services: no Postgres here; run scripts/setup.sh test" >&2; exit 1; }
# Not TMPDIR: the other user must reach it, and a socket's path may have 107 bytes.
dir=$(mktemp -d /tmp/runmill-services.XXXXXX)
chmod 755 "$dir"
redis_pid=

# Postgres refuses to run as root.
as_postgres() {
  if [ "$(id -u)" != 0 ]; then
    "$@"
  elif command -v setpriv >/dev/null; then
    (cd / && setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups "$@")
  else
    (cd / && su -s /bin/sh "$user" -c '"$0" "$@"' -- "$@")
  fi
}

cleanup() {
  status=$?
  trap '' INT TERM
  if [ -f "$dir/postgres/postmaster.pid" ]; then
    as_postgres "$postgres_bin/pg_ctl" -D "$dir/postgres" -m immediate stop >/dev/null 2>&1 || true
  fi
  if [ -n "$redis_pid" ]; then
    kill "$redis_pid" 2>/dev/null || true
    wait "$redis_pid" 2>/dev/null || true
  fi
  rm -rf "$dir"
  exit "$status"
}
trap cleanup EXIT

random_hex() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }
# Below the range that systems give to outgoing connections.
random_port() { echo $((20000 + (RANDOM * 32768 + RANDOM) % 12000)); }

start_postgres() {
  user=postgres
  id "$user" >/dev/null 2>&1 || user=nobody
  mkdir "$dir/postgres"
  [ "$(id -u)" != 0 ] || chown "$user" "$dir/postgres"
  (umask 077 && echo "$password" >"$dir/password")
  [ "$(id -u)" != 0 ] || chown "$user" "$dir/password"
  as_postgres "$postgres_bin/initdb" -D "$dir/postgres" -U runmill -A password --pwfile="$dir/password" -E UTF8 --locale=C -N \
    >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; return 1; }
  local options="-k $dir/postgres -c listen_addresses=127.0.0.1 -c max_connections=500 -c shared_buffers=64MB -c fsync=off \
-c full_page_writes=off"
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    port=$(random_port)
    if as_postgres "$postgres_bin/pg_ctl" -D "$dir/postgres" -l "$dir/postgres/log" -o "$options -p $port" -w -t 60 start \
      >"$dir/pg_ctl.log" 2>&1; then
      export RUNMILL_TEST_DATABASE_URL="postgres://runmill:$password@127.0.0.1:$port/postgres"
      return
    fi
  done
  cat "$dir/pg_ctl.log" "$dir/postgres/log" >&2
  return 1
}

# The password proves that the answer comes from the server that was started here.
redis_answers() {
  local line=
  exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf 'AUTH %s\r\n' "$password" >&3
  IFS= read -r -t 5 line <&3 || true
  exec 3>&-
  [ "$line" = $'+OK\r' ]
} 2>/dev/null

start_redis() {
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    port=$(random_port)
    redis-server --bind 127.0.0.1 --port "$port" --requirepass "$password" --dir "$dir" --save '' --appendonly no \
      --maxmemory-policy noeviction --daemonize no >"$dir/redis.log" 2>&1 &
    redis_pid=$!
    for _ in $(seq 100); do
      if redis_answers "$port"; then
        export RUNMILL_TEST_REDIS_URL="redis://default:$password@127.0.0.1:$port/"
        return
      fi
      kill -0 "$redis_pid" 2>/dev/null || break
      sleep 0.1
    done
    kill "$redis_pid" 2>/dev/null || true
  done
  cat "$dir/redis.log" >&2
  return 1
}

password=$(random_hex)
start_postgres
start_redis
"$@"
