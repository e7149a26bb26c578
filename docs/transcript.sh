#!/usr/bin/env bash
# Runs the main job for real and prints it as the README shows it: a published topology, a third-party OPC UA client that
# follows ServiceLevel, an apply lease, a swap of the roles, the death of the Primary, and its recovery.
# Needs `make build` and opcua/interop/node_modules (`make test` installs it). Takes about 90 s, most of it the recovery.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$(mktemp -d)
dev=0 restarted=0
cleanup() {
  exec 9>&- # The client ends with its standard input.
  for pid in $restarted $dev; do
    [ "$pid" = 0 ] || kill -INT "$pid" 2>/dev/null || true
  done
  wait
  rm -rf "$data"
}
trap cleanup EXIT

# Shows a command as it is typed, with the demo's folder under a short name, and then runs it.
run() {
  printf '$ %s\n' "${1//$data/demo}"
  eval "$1" 2>&1 | sed "s|$data|demo|g"
  echo
}
# Waits until a command prints a text, for at most so many seconds.
until_prints() {
  local text=$1 limit=$2 command=$3
  for ((i = 0; i < limit * 5; i++)); do
    if eval "$command" 2>/dev/null | grep -q "$text"; then return; fi
    sleep 0.2
  done
  echo "\"$command\" did not print \"$text\" within $limit s" >&2
  exit 1
}

read_levels="opcua/interop/client read '{\"endpoints\":[\"opc.tcp://127.0.0.1:4841\",\"opc.tcp://127.0.0.1:4842\",\"opc.tcp://127.0.0.1:4843\"]}'"
read_m1="opcua/interop/client read '{\"endpoints\":[\"opc.tcp://127.0.0.1:4841\"]}'"

printf '$ bin/quorate dev --processes --data demo --demo=false\n'
bin/quorate dev --processes --data "$data/group" --demo=false >"$data/dev.out" 2>&1 &
dev=$!
data=$data/group
until_prints 'Ctrl-C' 10 "cat $data/../dev.out"
sed -n '/^MEMBER/,/^$/p' "$data/../dev.out" | sed "s|$data|demo|g"

cat >"$data/line-a.yaml" <<'YAML'
sets:
  - id: line-a
    mode: WARM
    servers:
      - member: m1
        role: Primary
        applicationUri: urn:quorate:demo:m1
        endpointUrl: opc.tcp://127.0.0.1:4841
        healthUrl: http://127.0.0.1:7201/healthz
      - member: m2
        role: Backup
        applicationUri: urn:quorate:demo:m2
        endpointUrl: opc.tcp://127.0.0.1:4842
        healthUrl: http://127.0.0.1:7202/healthz
YAML
sed -e 's/Primary/Swap/; s/Backup/Primary/; s/Swap/Backup/' "$data/line-a.yaml" >"$data/swapped.yaml"

run "cat $data/line-a.yaml"
run "bin/quorate topology publish -f $data/line-a.yaml"
until_prints 255 10 "$read_m1"
run "$read_levels   # m1 Primary, m2 Backup, m3 witness"
run "bin/quorate lease begin m1"
run "$read_m1"
run "bin/quorate lease end m1"
run "$read_m1"
run "bin/quorate topology plan -f $data/swapped.yaml"
run "bin/quorate topology publish -f $data/swapped.yaml"
run "bin/quorate apply status --watch | tail -3"
run "$read_levels"
run "bin/quorate level history --limit 8"

follow="opcua/interop/client failover '{\"endpoint\":\"opc.tcp://127.0.0.1:4842\"}'"
printf '$ %s &\n' "$follow"
mkfifo "$data/stdin"
eval "$follow" <"$data/stdin" >"$data/client.out" 2>/dev/null 9>&- &
exec 9>"$data/stdin"
until_prints 255 20 "cat $data/client.out"
cat "$data/client.out"
shown=$(wc -l <"$data/client.out")
echo
m2=$(awk '$1 == "m2" {print $2}' "$data/../dev.out")
printf '$ kill -9 %s   # m2, the Primary\n' "$m2"
kill -9 "$m2"
until_prints '"value":80' 30 "cat $data/client.out"
tail -n +$((shown + 1)) "$data/client.out"
echo
printf '$ bin/quorate serve --config demo/m2.yaml &\n'
bin/quorate serve --config "$data/m2.yaml" >"$data/m2.restarted.log" 2>&1 &
restarted=$!
until_prints Recovering 20 "bin/quorate member list"
run "bin/quorate member list"
printf '# a minute later: recoverDwell\n'
until_prints 'm2 .* 255 ' 90 "bin/quorate member list"
run "bin/quorate member list"
run "bin/quorate status"
run "bin/quorate topology history"
