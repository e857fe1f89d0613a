#!/usr/bin/env bash
# Three regions on this machine: a Redis and a node each, bridged, with a page to try them. Started by `make demo-regions`.
set -euo pipefail

readonly binary=${SKYWAVE_BIN:-target/debug/skywave}
readonly regions=(eu us ap)
declare -rA redis_port=([eu]=6451 [us]=6452 [ap]=6453)
declare -rA public_port=([eu]=4451 [us]=4452 [ap]=4453)
declare -rA plain_port=([eu]=8451 [us]=8452 [ap]=8453)
declare -rA page_port=([eu]=8441 [us]=8442 [ap]=8443)
readonly start_timeout_s=30
readonly restart_after_s=30
declare -A pid=()

if ! command -v redis-server >/dev/null; then
  echo 'redis-server is missing. Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis' >&2
  exit 1
fi
if [[ ${BASH_VERSINFO[0]} -lt 5 ]]; then
  echo 'bash 5 or later is needed; macOS: brew install bash' >&2
  exit 1
fi

directory=$(mktemp -d "${TMPDIR:-/tmp}/skywave-regions.XXXXXX")

# Ends what was started here, by process id, and nothing else.
finish() {
  local status=$?
  trap - EXIT INT TERM
  for name in "${!pid[@]}"; do
    # One that waits to be started anew has none; one that is stopped does not hear.
    [[ ${pid[$name]} ]] && kill -TERM "${pid[$name]}" 2>/dev/null || true
    [[ ${pid[$name]} ]] && kill -CONT "${pid[$name]}" 2>/dev/null || true
  done
  wait
  rm -rf "$directory"
  exit "$status"
}
trap finish EXIT
trap 'echo; echo "Ending the three regions."; exit 0' INT TERM

fail() {
  echo "$1 did not start:" >&2
  tail -n 5 "$directory/$1.log" >&2
  exit 1
}

start_redis() {
  mkdir -p "$directory/redis-$1"
  redis-server --port "${redis_port[$1]}" --bind 127.0.0.1 --dir "$directory/redis-$1" --save '' --appendonly yes \
    --maxmemory-policy noeviction >>"$directory/redis-$1.log" 2>&1 &
  pid[redis-$1]=$!
}

start_node() {
  local region=$1 other name
  local -a settings=(
    SKYWAVE_NODE__ID="$region-1" SKYWAVE_NODE__REGION="$region"
    SKYWAVE_NODE__URL="https://localhost:${public_port[$region]}"
    SKYWAVE_LISTEN__PUBLIC="localhost:${public_port[$region]}"
    SKYWAVE_LISTEN__PLAIN="127.0.0.1:${plain_port[$region]}"
    SKYWAVE_LISTEN__ADMIN="localhost:${page_port[$region]}"
    SKYWAVE_TLS__CERTIFICATE="$directory/certs/certificate.pem" SKYWAVE_TLS__KEY="$directory/certs/key.pem"
    SKYWAVE_AUTH__SESSION_SECRET="$session_secret"
    SKYWAVE_BROKER__KIND=redis SKYWAVE_BROKER__URL="redis://127.0.0.1:${redis_port[$region]}"
  )
  for other in "${regions[@]}"; do
    [[ $other == "$region" ]] && continue
    name=${other^^}
    settings+=(
      "SKYWAVE_REGIONS__${name}__REDIS=redis://127.0.0.1:${redis_port[$other]}"
      "SKYWAVE_REGIONS__${name}__URL=https://localhost:${public_port[$other]}"
    )
  done
  : >"$directory/$region.ready"
  env "${settings[@]}" "$binary" serve --dev >"$directory/$region.ready" 2>>"$directory/$region.log" &
  pid[$region]=$!
}

# Waits until a command succeeds; what it waits for has to live so long.
until_ready() {
  local name=$1 deadline=$((SECONDS + start_timeout_s))
  shift
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "${pid[$name]}" 2>/dev/null || ((SECONDS > deadline)); then fail "$name"; fi
    sleep 0.1
  done
}

redis_answers() { [[ $(redis-cli -p "${redis_port[$1]}" ping) == PONG ]] && kill -0 "${pid[redis-$1]}"; }
node_is_ready() { grep -q '^ready ' "$directory/$1.ready"; }

start() {
  case $1 in
    redis-*) start_redis "${1#redis-}" && until_ready "$1" redis_answers "${1#redis-}" ;;
    *) start_node "$1" && until_ready "$1" node_is_ready "$1" ;;
  esac
}

tell() {
  echo
  echo 'Three regions run, each with a Redis and a node, and know each other:'
  for region in "${regions[@]}"; do
    printf '  %s   page http://localhost:%s   node pid %s   redis pid %s, port %s\n' \
      "$region" "${page_port[$region]}" "${pid[$region]}" "${pid[redis-$region]}" "${redis_port[$region]}"
  done
  cat <<TEXT

Try, in Chromium or Firefox:
  Open http://localhost:${page_port[eu]} and http://localhost:${page_port[us]} side by side; type here, see it there.
  kill -9 ${pid[us]}      ends the node of us: its page goes on in another region, and nothing is lost or shown
                      twice. It notices by its heartbeat. (A page that may use WebSocket alone waits for its
                      node: browsers trust a development certificate over WebTransport only.)
  kill -STOP ${pid[redis-us]}   stops the Redis of us: after 3 s its sessions are sent elsewhere (kill -CONT ${pid[redis-us]} lets it go on).
  curl -s localhost:${page_port[eu]}/api/v1/info -H 'content-type: application/json' -d '{}'   shows the links; so does /metrics (skywave_link_…).
What ends is started anew after $restart_after_s s. Logs: $directory/*.log. Ctrl-C ends all of it.
TEXT
}

echo "Starting three regions (${regions[*]}) …"
"$binary" cert --out "$directory/certs" >/dev/null
session_secret=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
for region in "${regions[@]}"; do start "redis-$region"; done
for region in "${regions[@]}"; do start "$region"; done
tell

# Looks for what has ended, and starts it anew so much later that its absence can be watched.
declare -A restart_at=()
while true; do
  sleep 0.5 &
  wait $!
  for name in "${!pid[@]}"; do
    if [[ ${restart_at[$name]:-} ]]; then
      ((SECONDS < restart_at[$name])) && continue
      unset "restart_at[$name]"
      start "$name"
      echo "$name is back, as pid ${pid[$name]}."
    elif ! kill -0 "${pid[$name]}" 2>/dev/null; then
      echo "$name has ended; it is started anew in $restart_after_s s."
      pid[$name]=
      restart_at[$name]=$((SECONDS + restart_after_s))
    fi
  done
done
