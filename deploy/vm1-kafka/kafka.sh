#!/usr/bin/env bash
# Runs and asks the broker of this machine: kafka.sh up|wait|down|ps|logs|health|topics|list-topics|send|consume, by way of
# ../with-env.sh. Services are systemd's; questions go through Kafka's own tools, to the address that clients use.
set -euo pipefail

# An IPv6 address stands in brackets before a port.
if [[ $KAFKA_ADDRESS == *:* ]]; then BOOTSTRAP=[$KAFKA_ADDRESS]:$KAFKA_PORT; else BOOTSTRAP=$KAFKA_ADDRESS:$KAFKA_PORT; fi
readonly BOOTSTRAP
METRIC=${TOPIC_METRIC:-gpu.metrics.v1} TOKEN=${TOPIC_TOKEN:-token.usage.v1} DEAD=${TOPIC_DEAD:-dead.letter.v1}
services=(kafka.service)
[[ $KAFKA_MODE == kraft ]] || services=(zookeeper.service kafka.service)

# shellcheck source-path=SCRIPTDIR source=../machine-shell.sh
source "${BASH_SOURCE[0]%/*}/../machine-shell.sh"

# One of /opt/kafka/bin/kafka-NAME.sh, for a question of a second: little memory, no thorough compiler, and no logs in /opt.
tool() {
  local name=$1
  shift
  KAFKA_HEAP_OPTS=-Xmx256m KAFKA_JVM_PERFORMANCE_OPTS='-XX:+UseSerialGC -XX:TieredStopAtLevel=1' LOG_DIR=${TMPDIR:-/tmp} \
    "/opt/kafka/bin/kafka-$name.sh" --bootstrap-server "$BOOTSTRAP" "$@"
}

up() {
  as_root systemctl start "${services[@]}"
  wait_for_it
}

# Asks which versions of which requests it speaks, and waits for the answer's first bytes; Kafka's own tools would take a
# second of CPU for that. The request (ApiVersions) is the protocol's smallest: https://kafka.apache.org/protocol
answers() {
  # shellcheck disable=SC2016 # It is expanded by that bash.
  timeout 4 bash -c 'exec 3<>"/dev/tcp/$0/$1"; echo AAAACgASAAAAAAAB//8= | base64 -d >&3; head -c 8 <&3 | wc -c | grep -qx 8' \
    "$KAFKA_ADDRESS" "$KAFKA_PORT" 2>/dev/null
}

wait_for_it() {
  local deadline=$((SECONDS + 60))
  until answers; do
    if [[ $SECONDS -ge $deadline ]] || systemctl -q is-failed kafka.service; then
      as_root journalctl --no-pager -q -n 20 -u kafka.service >&2
      fail "The broker does not answer at $BOOTSTRAP: the lines above say why, make logs says more"
    fi
    sleep 0.2
  done
  echo "Kafka answers at $BOOTSTRAP"
}

down() {
  as_root systemctl stop kafka.service
  [[ $KAFKA_MODE == kraft ]] || as_root systemctl stop zookeeper.service
}

ps() {
  systemctl --no-pager --lines=0 status "${services[@]}" || [[ $? == 3 ]] # 3: one of them is stopped.
}

logs() {
  local follow=()
  [[ ${FOLLOW:-} != 1 ]] || follow=(-f)
  as_root journalctl --no-pager -n 100 -u zookeeper.service -u kafka.service "${follow[@]}"
}

health() {
  local problems=() found topics name used
  for name in "${services[@]}"; do
    systemctl -q is-active "$name" || problems+=("$name is not active: make up, make logs")
  done
  if answers && found=$(tool broker-api-versions 2>/dev/null | sed -nE 's/^(\S+) \(id: .*/\1/p'); then
    [[ ${found//[][]/} == "${BOOTSTRAP//[][]/}" ]] || problems+=("The broker sends clients to \"$found\": expected $BOOTSTRAP; make restart takes .env over")
    topics=$(tool topics --list)
    for name in "$METRIC" "$TOKEN" "$DEAD"; do
      grep -qxF "$name" <<<"$topics" || problems+=("Topic $name is missing: make topics")
    done
  else
    problems+=("No answer at $BOOTSTRAP: make wait, make logs")
  fi
  used=$(df --output=pcent /var/lib/kafka | tr -dc 0-9)
  [[ $used -lt 90 ]] || problems+=("The disk of /var/lib/kafka is $used % full: lower KAFKA_RETENTION_GB or take a larger one, then make restart")
  [[ ${#problems[@]} == 0 ]] || fail "$(printf 'WRONG %s\n' "${problems[@]}")"
  echo "ok    $BOOTSTRAP ($KAFKA_MODE), topics $METRIC $TOKEN $DEAD, disk $used % full"
}

topics() {
  local name
  for name in "$METRIC" "$TOKEN" "$DEAD"; do
    tool topics --create --if-not-exists --topic "$name" --partitions "$KAFKA_PARTITIONS" --replication-factor 1
  done
}

# A sample alone covers no time and an event of no tokens and no requests counts none: both may be sent to a ledger that is in use.
send() {
  local topic=$METRIC value key now
  now=$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)
  value='{"ts":"'$now'","host":"vm1-test","gpu_index":0,"name":"test","utilization":0,"mem_used_mb":0,"mem_total_mb":1,"power_w":0,"price_per_hour_usd":0}'
  if [[ $1 == token ]]; then
    topic=$TOKEN
    value='{"ts":"'$now'","host":"vm1-test","gpu_index":0,"model":"test","prompt_tokens":0,"completion_tokens":0,"requests":0,"latency_ms":0}'
  fi
  value=${VALUE:-$value}
  key=$(sed -nE 's/.*"host" *: *"([^"]*)".*/\1/p' <<<"$value")
  # Keyed by host, as pertoken does: a host's events stay in order. Null without one.
  printf '%s\t%s\n' "${key:-null}" "$value" | tool console-producer --topic "$topic" --sync --max-block-ms 10000 \
    --property parse.key=true --property $'key.separator=\t' --property null.marker=null
  echo "Sent to $topic: $value"
}

consume() {
  local topic=$METRIC from=(--from-beginning)
  [[ $1 != token ]] || topic=$TOKEN
  [[ ${FROM:-beginning} != latest ]] || from=()
  # Ends by itself when nothing comes for 10 s, which it then calls an error.
  tool console-consumer --topic "$topic" "${from[@]}" --max-messages "${N:-10}" --timeout-ms 10000 \
    --consumer-property enable.auto.commit=false --property print.partition=true --property print.offset=true \
    --property print.key=true 2> >(grep -vE 'TimeoutException|Error processing message|^Processed a total' >&2)
}

case ${1:-} in
  up | down | ps | logs | health | topics) "$1" ;;
  wait) wait_for_it ;;
  list-topics) tool topics --describe --exclude-internal ;;
  send | consume) [[ ${2:-} == metric || ${2:-} == token ]] || fail "kafka.sh $1: expected metric or token" 2; "$1" "$2" ;;
  *) fail "kafka.sh: expected up, wait, down, ps, logs, health, topics, list-topics, send or consume" 2 ;;
esac
