#!/usr/bin/env bash
# Sends a marked GPU sample and a marked token event of 0 tokens from VM4, waits for both documents on VM2, as VM3's HTTP
# shows them, and prints when each hop was done. Exit 1 with what is missing. It leaves no trace in what anything costs:
# the host is `smoke`, the GPU index 1023 (no real one, whose host it could be mistaken for), the price and the requests 0.
# INVENTORY, SSH, DIR as for machine.sh. API_TOKEN_FILE: a file with a token of scope read, where VM3 asks for tokens;
# SMOKE_URL: where VM3 serves, as it sees it, unless that is http://127.0.0.1:8080; SMOKE_SECONDS: how long to wait once they are sent
# (60).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/inventory.sh
source "$here/inventory.sh"
readonly SECONDS_TO_WAIT=${SMOKE_SECONDS:-60} URL=${SMOKE_URL:-http://127.0.0.1:8080}

main() {
  local id word rest from='' started sent at missing wait
  read_inventory "${INVENTORY:-$here/inventory}" || exit 2
  id=smoke-$(date -u +%Y%m%d%H%M%S)-$RANDOM
  wait=$(<"$here/smoke-wait.sh")
  coproc VM3 { on vm3 "bash -c ${wait@Q} smoke-wait $id $SECONDS_TO_WAIT ${URL@Q}" 2>&1 | stamp; }
  exec 3<&"${VM3[0]}" 4>&"${VM3[1]}"
  header >&4
  read -r _ word from <&3 || word=no
  [[ $word == ready ]] || fail "VM3 (${NAME[vm3]}) does not answer at $URL: ${from:-no answer}. Do: make vm3-ps vm3-logs"

  started=$(now_ms)
  if ! sent=$(events "$from" "$id" | on vm4 "timeout 60 make -s --no-print-directory -C '${DIR:-pertoken}/deploy/vm4-producers' send" 2>&1 | stamp); then
    sent=${sent##*$'\n'}
    fail "VM4 (${NAME[vm4]}) could not hand the events to Kafka on VM1 (${NAME[vm1]}): ${sent#* }. Do: make vm4-doctor"
  fi
  # VM3 may have found both before, and be gone.
  (trap '' PIPE && echo sent >&4) 2>/dev/null || true
  # What pertoken says once Kafka has acknowledged them.
  [[ $sent =~ ([0-9]+)' Replayed 2 events' ]] || fail "VM4 (${NAME[vm4]}) did not send two events: $sent"
  say 'VM4 → VM1' 'both events are in Kafka' "${BASH_REMATCH[1]}"

  missing=' gpu_metrics token_usage '
  while read -r at word rest <&3; do
    case $word in
      gpu_metrics | token_usage)
        missing=${missing/ $word / }
        say 'VM1 → VM3 → VM2' "the document in $word" "$at"
        ;;
      *) echo "$word $rest" >&2 ;;
    esac
  done
  # shellcheck disable=SC2086 # Its words.
  [[ $missing == ' ' ]] || fail "after $SECONDS_TO_WAIT s there is no document $id in$(printf ' %s' $missing). Do: make vm3-doctor vm3-logs"
  echo "Smoke: passed ($id)"
}

say() {
  printf '%-16s %-32s %6d ms\n' "$1" "$2" "$(($3 - started))"
}

fail() {
  echo "Smoke: FAILED: $1" >&2
  exit 1
}

# Puts the time before each line, as it comes.
stamp() {
  local line
  while IFS= read -r line; do echo "$(now_ms) $line"; done
}

now_ms() {
  echo $((${EPOCHREALTIME/[.,]/} / 1000))
}

# The two events, in VM3's time: another machine's clock may be off.
events() {
  local both="\"ts\":\"$1\",\"host\":\"smoke\",\"gpu_index\":1023,\"event_id\":\"$2\""
  echo "{$both,\"name\":\"smoke\",\"price_per_hour_usd\":0}"
  echo "{$both,\"model\":\"smoke\",\"prompt_tokens\":0,\"completion_tokens\":0,\"requests\":0}"
}

# For curl's -K, and an empty line.
header() {
  [[ -z ${API_TOKEN_FILE-} ]] || printf 'header = "Authorization: Bearer %s"\n' "$(<"$API_TOKEN_FILE")"
  echo
}

main "$@"
