#!/usr/bin/env bash
# Runs and asks the processor of this machine: processor.sh setup|set-password|up|wait|ask PATH…|pertoken|compose WORD…, by way of
# ../with-env.sh. COMPOSE is the compose command.
set -euo pipefail

readonly PASSWORD=secrets/mongo-password
read -r -a compose <<<"${COMPOSE:?}"
# The file is for a URL that names a user and holds no password.
MONGO_PASSWORD_FILE=
[[ ! $MONGO_URL =~ ^mongodb(\+srv)?://[^:@/]+@ ]] || MONGO_PASSWORD_FILE=/run/$PASSWORD
export MONGO_PASSWORD_FILE

# shellcheck source-path=SCRIPTDIR source=../machine-shell.sh
source "${BASH_SOURCE[0]%/*}/../machine-shell.sh"

setup() {
  set_up_for_containers
  echo "Next: the password of MongoDB, from VM2: make set-password; then make up wait"
}

set_password() {
  local password
  [[ ! -t 0 ]] || echo "Password of MongoDB's user pertoken (on VM2: make password), then Enter:" >&2
  IFS= read -r password || [[ -n $password ]] || fail "No password came: expected it on standard input" 2
  # Written aside first, whole or not at all.
  printf '%s' "$password" | as_root install -D -o "$IMAGE_USER" -g "$IMAGE_USER" -m 0400 /dev/stdin secrets/.mongo-password
  as_root mv secrets/.mongo-password "$PASSWORD"
  echo "Kept in $PWD/$PASSWORD: make up, or make restart"
}

up() {
  if [[ -n $MONGO_PASSWORD_FILE ]]; then
    as_root test -s "$PASSWORD" || fail "There is no $PASSWORD yet: make set-password; on VM2 make password prints it" 2
  fi
  "${compose[@]}" up -d processor
}

# Its address on this machine.
address() {
  local scheme=http host=127.0.0.1
  [[ -z ${HTTP_TLS_CERT:-} ]] || scheme=https
  [[ -z ${HOST:-} || $HOST =~ ^[0:.]+$ ]] || host=$HOST
  [[ $host != *:* ]] || host=[$host]
  echo "$scheme://$host:$PORT"
}

wait_for_it() {
  local deadline=$((SECONDS + 60)) answer=
  until answer=$(ask /health 2>&1); do
    [[ $SECONDS -lt $deadline ]] || fail "Not well after 60 s: ${answer:-no answer}; make logs doctor"
    sleep 0.3
  done
  echo "The processor at $(address) is well"
}

# The certificate names the machine as others know it, and this question never leaves the machine.
ask() {
  local path
  for path in "$@"; do
    # Where this is a condition, set -e does not hold.
    curl -sS -k --max-time 5 --fail-with-body "$(address)$path" || return
    echo
  done
}

# WORDS are pertoken's, with blanks between them.
pertoken() {
  local words
  read -r -a words <<<"${WORDS:-}"
  [[ ${#words[@]} -gt 0 ]] || fail "Say what pertoken is to do: make pertoken WORDS='report --by model'" 2
  "${compose[@]}" run --rm -T processor "${words[@]}"
}

case ${1:-} in
  setup | up | pertoken) "$1" ;;
  set-password) set_password ;;
  wait) wait_for_it ;;
  ask) "$@" ;;
  compose) "${compose[@]}" "${@:2}" ;;
  *) fail "processor.sh: expected setup, set-password, up, wait, ask, pertoken or compose" 2 ;;
esac
