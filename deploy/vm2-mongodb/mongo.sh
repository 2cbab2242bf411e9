#!/usr/bin/env bash
# Runs and asks the MongoDB of this machine: mongo.sh setup|build|up|wait|down|health|ping|script|shell|password|rotate|
# backup|restore, by way of ../with-env.sh. COMPOSE is the compose command. Data and secrets belong to user 999, whom the
# image calls mongodb; here they are reached through sudo.
set -euo pipefail

readonly OWNER=999 SECRETS=secrets
read -r -a compose <<<"${COMPOSE:?}"

# shellcheck source-path=SCRIPTDIR source=../machine-shell.sh
source "${BASH_SOURCE[0]%/*}/../machine-shell.sh"

setup() {
  cat <<END
On $(hostname) this installs Docker (where there is none) and makes $MONGO_DATA for the data of MongoDB and, where they
are missing, a key file and passwords in $PWD/$SECRETS.
END
  ask_to_go_on
  [[ ${compose[0]} != docker ]] || YES=1 ../docker-setup.sh
  as_root install -d -o "$OWNER" -g "$OWNER" -m 0700 "$MONGO_DATA" "$SECRETS"
  as_root install -d -m 0700 "$MONGO_BACKUPS"
  as_root test -s "$SECRETS/keyfile" || random 96 | write_secret keyfile
  for name in root pertoken reader; do
    as_root test -s "$SECRETS/$name-password" || random_password | write_secret "$name-password"
  done
  echo "Next: make up"
}

# $1: so many random bytes, in characters that a key file may have.
random() {
  head -c "$1" /dev/urandom | base64 -w 0
}

# In characters that a URL may have.
random_password() {
  random 24 | tr '+/' '-_'
}

# Standard input becomes the secret, whole or not at all.
write_secret() {
  as_root install -o "$OWNER" -g "$OWNER" -m 0400 /dev/stdin "$SECRETS/.$1"
  as_root mv "$SECRETS/.$1" "$SECRETS/$1"
}

build() {
  "${compose[@]}" pull mongodb
}

up() {
  as_root test -s "$SECRETS/keyfile" || fail "There is no $SECRETS/keyfile yet: make setup" 2
  "${compose[@]}" up -d mongodb
  local deadline=$((SECONDS + 60))
  until (: <"/dev/tcp/127.0.0.1/$MONGO_PORT") 2>/dev/null; do
    if [[ $SECONDS -ge $deadline ]]; then
      "${compose[@]}" logs --tail=20 mongodb >&2
      fail "MongoDB does not listen on port $MONGO_PORT: the lines above say why"
    fi
    sleep 0.2
  done
  init
}

# A rotation that was cut short is finished as well: what MongoDB has now is what the files say.
init() {
  local user
  script init
  for user in root pertoken reader; do
    if as_root test -s "$SECRETS/$user-password.new"; then
      as_root mv "$SECRETS/$user-password.new" "$SECRETS/$user-password"
    fi
  done
}

# Runs scripts/NAME.js in MongoDB's shell, inside the container; no password leaves it.
script() {
  "${compose[@]}" exec -T mongodb mongosh --quiet --norc "$(url 127.0.0.1)" --file "/etc/pertoken/scripts/$1.js"
}

url() {
  local host=$1
  [[ $host != *:* ]] || host=[$host]
  echo "mongodb://$host:$MONGO_PORT/?directConnection=true&serverSelectionTimeoutMS=${2:-10000}"
}

wait_for_it() {
  "${compose[@]}" exec -T mongodb mongosh --quiet --norc "$(url "$MONGO_ADDRESS" 60000)" \
    --eval 'for (let i = 0; i < 600 && !db.hello().isWritablePrimary; i++) sleep(100); quit(db.hello().isWritablePrimary ? 0 : 1)' ||
    fail "MongoDB takes no writes at $MONGO_ADDRESS:$MONGO_PORT: make logs"
  echo "MongoDB takes writes at $MONGO_ADDRESS:$MONGO_PORT"
}

# shellcheck disable=SC2016 # Expanded by the shell of MongoDB.
ping() {
  "${compose[@]}" exec -T mongodb mongosh --quiet --norc "$(url "$MONGO_ADDRESS")" \
    --eval 'const at = Date.now(); db.hello(); print(`MongoDB ${db.version()} answers in ${Date.now() - at} ms`)'
}

health() {
  local problems=() used
  script health || problems+=("MongoDB is not well: make ps, make logs")
  used=$(df --output=pcent "$MONGO_DATA" | tr -dc 0-9)
  [[ $used -lt 90 ]] || problems+=("The disk of $MONGO_DATA is $used % full: set RAW_RETENTION_DAYS on VM3, or take a larger one")
  [[ ${#problems[@]} == 0 ]] || fail "$(printf 'WRONG %s\n' "${problems[@]}")"
  echo "ok    disk $used % full"
}

shell() {
  local words=(mongosh --quiet --norc "$(url 127.0.0.1)" --eval "load('/etc/pertoken/scripts/login.js')")
  if [[ -t 0 ]]; then
    "${compose[@]}" exec mongodb "${words[@]}" --shell
  else
    "${compose[@]}" exec -T mongodb "${words[@]}" --eval "$(cat)"
  fi
}

check_login() {
  [[ $1 == root || $1 == pertoken || $1 == reader ]] || fail "LOGIN is \"$1\": expected pertoken, reader or root" 2
}

password() {
  check_login "$1"
  as_root cat "$SECRETS/$1-password"
  echo
}

# The new password is on disk before MongoDB has it, and the old one until then.
rotate() {
  check_login "${1:-}"
  random_password | write_secret "$1-password.new"
  init
  echo "$1 has another password: make password LOGIN=$1 shows it"
}

backup() {
  local file
  file=$MONGO_BACKUPS/$(date -u +%Y%m%dT%H%M%SZ).tar
  "${compose[@]}" stop mongodb
  # Not compressed: the data are already, and MongoDB is away until it is done.
  if as_root tar -C "$MONGO_DATA" -cf "$file.part" . && as_root mv "$file.part" "$file"; then
    "${compose[@]}" start mongodb
    echo "$file"
  else
    "${compose[@]}" start mongodb
    fail "The backup failed: is there room in $MONGO_BACKUPS?"
  fi
}

restore() {
  local before
  before=$MONGO_DATA.before-$(date -u +%Y%m%dT%H%M%SZ)
  as_root test -f "$1" || fail "FILE is \"$1\": expected one of $MONGO_BACKUPS (make backup makes them)" 2
  as_root tar -tf "$1" ./WiredTiger >/dev/null 2>&1 || fail "$1 is no backup of MongoDB's data: it has no WiredTiger file"
  # A MongoDB that does not even run has no processor to ask for.
  if (: <"/dev/tcp/127.0.0.1/$MONGO_PORT") 2>/dev/null; then script in-use >&2; fi
  down
  as_root mv "$MONGO_DATA" "$before"
  as_root install -d -o "$OWNER" -g "$OWNER" -m 0700 "$MONGO_DATA"
  as_root tar -C "$MONGO_DATA" --numeric-owner -xf "$1"
  up
  echo "Restored $1; what was there before lies in $before"
}

down() {
  "${compose[@]}" down
}

case ${1:-} in
  setup | build | up | down | health | ping | shell | backup) "$1" ;;
  wait) wait_for_it ;;
  script | password | rotate | restore) "$1" "${2:-}" ;;
  *) fail "mongo.sh: expected setup, build, up, wait, down, health, ping, script, shell, password, rotate, backup or restore" 2 ;;
esac
