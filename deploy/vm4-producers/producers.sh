#!/usr/bin/env bash
# Runs and asks the producers of this machine: producers.sh setup|up|wait|health|logs|run-once|send|doctor, by way of
# ../with-env.sh. COMPOSE is the compose command.
set -euo pipefail

read -r -a compose <<<"${COMPOSE:?}"

# shellcheck source-path=SCRIPTDIR source=../machine-shell.sh
source "${BASH_SOURCE[0]%/*}/../machine-shell.sh"

check_values() {
  local problems=() name
  [[ $PRODUCERS == [12] ]] || problems+=("PRODUCERS is \"$PRODUCERS\": expected 1 or 2")
  [[ $PRODUCER_1_HOST != "$PRODUCER_2_HOST" ]] ||
    problems+=("PRODUCER_1_HOST and PRODUCER_2_HOST are both \"$PRODUCER_1_HOST\": expected two names, or two machines' GPUs are taken for one")
  for name in PRODUCER_1_HOST PRODUCER_2_HOST; do
    [[ ${!name} =~ ^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$ ]] ||
      problems+=("$name is \"${!name}\": expected a host name of letters, digits and dashes")
  done
  [[ ${#problems[@]} == 0 ]] || fail "$(printf '%s\n' "${problems[@]}")" 2
}

setup() {
  set_up_for_containers
  echo "Next: make doctor up wait"
}

# Names of the services that are to run.
services() {
  seq -f 'producer-%g' "$PRODUCERS"
}

up() {
  local wanted
  mapfile -t wanted < <(services)
  # The second one may run from when there were to be two.
  [[ $PRODUCERS == 2 ]] || "${compose[@]}" stop producer-2 >/dev/null 2>&1 || true
  "${compose[@]}" up -d "${wanted[@]}"
}

logs() {
  local wanted
  mapfile -t wanted < <(services)
  "${compose[@]}" logs --tail=100 "${wanted[@]}"
}

# Runs pertoken once, with the settings of the first producer.
pertoken() {
  "${compose[@]}" run --rm -T producer-1 "$@"
}

# Events of both topics so far, asked from inside the first producer's container.
events() {
  "${compose[@]}" exec -T producer-1 node bin/pertoken.js topics describe | awk -F '\t' 'NR > 1 && $1 !~ /^dead/ { sum += $4 } END { print sum + 0 }'
}

# $1: seconds to wait for new events.
check() {
  local problems=() service before after deadline shown
  shown=$("${compose[@]}" ps)
  for service in $(services); do
    # Docker has the name first and the state behind it, podman the other way round.
    grep -F "$service" <<<"$shown" | grep -qw Up || problems+=("$service does not run: make up, make logs")
  done
  [[ ${#problems[@]} == 0 ]] || fail "$(printf 'WRONG %s\n' "${problems[@]}")"
  before=$(events) || fail "WRONG Kafka at $KAFKA_BOOTSTRAP does not answer: make doctor"
  deadline=$((SECONDS + $1)) after=$before
  until [[ $after -gt $before ]]; do
    [[ $SECONDS -lt $deadline ]] || fail "WRONG No new event came into Kafka at $KAFKA_BOOTSTRAP in $1 s: make logs, make doctor"
    sleep 0.5
    after=$(events) || after=$before
  done
  echo "ok    $(services | paste -sd ' ') run, Kafka has $after events"
}

# What pertoken's doctor says, without the parts that are VM2's and VM3's: nothing here stores or serves.
doctor() {
  local said status=0
  said=$(pertoken doctor) || status=$?
  [[ $status == 0 || $status == 1 ]] || exit "$status"
  said=$(grep -E '^(ok   |WRONG|-    ) ' <<<"$said" | grep -vE '^.{5} (settings|store|group|disk|data|http) ') || fail "It looked at nothing: make logs"
  echo "$said"
  ! grep -q '^WRONG' <<<"$said" || fail "make up when nothing is WRONG any more"
}

case ${1:-} in
  setup | up | logs) check_values && "$1" ;;
  wait) check 60 ;;
  health) check 15 ;;
  run-once) pertoken produce --batch "$BATCH" ;;
  # Each is sent at once, whatever its time says.
  send) pertoken replay /dev/stdin --speed max ;;
  doctor) check_values && doctor ;;
  *) fail "producers.sh: expected setup, up, wait, health, logs, run-once, send or doctor" 2 ;;
esac
