#!/usr/bin/env bash
# Makes this machine a Kafka broker: setup.sh all|kafka|config|wipe, by way of ../with-env.sh, which reads .env. Every step
# looks first whether it is done: a second run changes nothing. Runs as root, through sudo if need be.
#   all     Java, users, kafka, config, services enabled; says so and asks (YES=1 does not)
#   kafka   /opt/kafka-VERSION, out of KAFKA_TGZ or from a mirror, accepted by its SHA-512 only
#   config  /etc/kafka and the units, out of .env; makes an empty data folder usable (kraft)
#   wipe    stops, deletes all records, config again
set -euo pipefail

readonly DATA=/var/lib/kafka/log ZOOKEEPER_DATA=/var/lib/zookeeper SEGMENT_BYTES=67108864

[[ $(id -u) == 0 ]] || exec sudo --preserve-env="$ENV_NAMES,YES" "$0" "$@"

# shellcheck source-path=SCRIPTDIR source=../machine-shell.sh
source "${BASH_SOURCE[0]%/*}/../machine-shell.sh"

all() {
  cat <<END
On $(hostname) this installs Java (where there is none) and Kafka $KAFKA_VERSION into /opt, makes the users kafka and
zookeeper, writes /etc/kafka and services into /etc/systemd/system (mode $KAFKA_MODE), and keeps data in /var/lib/kafka.
END
  ask_to_go_on
  packages
  user kafka
  user zookeeper
  kafka
  config
  echo "Next: make up topics"
}

packages() {
  local missing=()
  command -v java >/dev/null || missing+=(default-jre-headless)
  command -v curl >/dev/null || missing+=(curl ca-certificates)
  [[ ${#missing[@]} -gt 0 ]] || return 0
  echo "Installing ${missing[*]}"
  apt-get -q update
  DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}"
}

user() {
  id -u "$1" >/dev/null 2>&1 || useradd --system --user-group --no-create-home --home-dir "/var/lib/$1" --shell /usr/sbin/nologin "$1"
}

# Unpacked beside its place and renamed: what lies at /opt/kafka-VERSION is whole.
kafka() {
  local target=/opt/kafka-$KAFKA_VERSION work sha512=${KAFKA_SHA512,,}
  [[ $sha512 =~ ^[0-9a-f]{128}$ ]] || fail "KAFKA_SHA512 is \"$KAFKA_SHA512\": expected 128 hexadecimal digits" 2
  if [[ -f $target/.sha512 && $(<"$target/.sha512") == "$sha512" ]]; then
    echo "Kafka $KAFKA_VERSION is in $target"
  else
    work=$(mktemp -d /opt/.kafka-XXXXXX)
    # shellcheck disable=SC2064 # Now: the variable is gone when the trap runs.
    trap "rm -rf '$work'" EXIT
    fetch "$sha512" "$work/kafka.tgz"
    mkdir "$work/kafka"
    tar -xzf "$work/kafka.tgz" -C "$work/kafka" --strip-components=1 --no-same-owner
    [[ -d $work/kafka/libs ]] || fail "This archive is no binary release of Kafka: it has no libs/"
    chmod -R u=rwX,go=rX "$work/kafka"
    echo "$sha512" >"$work/kafka/.sha512"
    rm -rf "$target"
    mv "$work/kafka" "$target"
    echo "Kafka $KAFKA_VERSION is now in $target"
  fi
  ln -sfn "$target" /opt/kafka
}

# $1: SHA-512, $2: where to put the archive. A mirror that sends something else is passed over.
fetch() {
  local name=kafka_2.13-$KAFKA_VERSION.tgz mirror mirrors
  if [[ -n ${KAFKA_TGZ:-} ]]; then
    [[ -f $KAFKA_TGZ ]] || fail "KAFKA_TGZ is \"$KAFKA_TGZ\": expected the path of $name" 2
    cp "$KAFKA_TGZ" "$2"
    is_it "$1" "$2" || fail "$KAFKA_TGZ has not the SHA-512 of $name that KAFKA_SHA512 says: nothing was installed"
    return
  fi
  IFS=, read -r -a mirrors <<<"$KAFKA_MIRRORS"
  for mirror in "${mirrors[@]}"; do
    echo "Fetching $mirror/$KAFKA_VERSION/$name"
    curl -fsSL --retry 2 --connect-timeout 10 -o "$2" "$mirror/$KAFKA_VERSION/$name" || continue
    ! is_it "$1" "$2" || return 0
    echo "It has another SHA-512 than KAFKA_SHA512 says: not taken" >&2
  done
  fail "No mirror had $name: bring the file here by other means and say make build KAFKA_TGZ=/path/of/$name"
}

is_it() {
  echo "$1  $2" | sha512sum --check --status
}

config() {
  check_values
  refuse_other_mode
  install -d -m 0755 /etc/kafka
  cat "config/server.$KAFKA_MODE.properties" config/server.common.properties | render >/etc/kafka/server.properties
  install -m 0644 config/zookeeper.properties config/log4j.properties /etc/kafka/
  printf 'KAFKA_HEAP=%s\nZOOKEEPER_HEAP=%s\n' "$KAFKA_HEAP" "$ZOOKEEPER_HEAP" >/etc/kafka/jvm.env
  install -m 0644 units/kafka.service units/zookeeper.service /etc/systemd/system/
  install -d -o kafka -g kafka -m 0750 /var/lib/kafka "$DATA"
  if [[ $KAFKA_MODE == zookeeper ]]; then
    install -d -m 0755 /etc/systemd/system/kafka.service.d
    install -m 0644 units/with-zookeeper.conf /etc/systemd/system/kafka.service.d/
    systemctl daemon-reload
    systemctl -q enable zookeeper.service
  else
    rm -f /etc/systemd/system/kafka.service.d/with-zookeeper.conf
    systemctl daemon-reload
    systemctl -q disable --now zookeeper.service
    [[ -f $DATA/meta.properties ]] || format
  fi
  systemctl -q enable kafka.service
  echo "Kafka is set up in mode $KAFKA_MODE for clients at $KAFKA_ADDRESS, port $KAFKA_PORT"
}

check_values() {
  local problems=() name own
  [[ $KAFKA_MODE == kraft || $KAFKA_MODE == zookeeper ]] || problems+=("KAFKA_MODE is \"$KAFKA_MODE\": expected kraft or zookeeper")
  for name in KAFKA_HEAP ZOOKEEPER_HEAP; do
    [[ ${!name} =~ ^[0-9]+[mg]$ ]] || problems+=("$name is \"${!name}\": expected a size like 1536m or 2g")
  done
  for name in KAFKA_PORT KAFKA_RETENTION_HOURS KAFKA_RETENTION_GB KAFKA_PARTITIONS; do
    [[ ${!name} =~ ^[1-9][0-9]{0,6}$ ]] || problems+=("$name is \"${!name}\": expected a whole number, 1 or more")
  done
  # The classic: clients reach the broker, are sent to an address that is not this machine's, and wait there for ever.
  own=" $(hostname -I)"
  if ! [[ $own == *" $(address_of "$KAFKA_ADDRESS") "* ]]; then
    problems+=("KAFKA_ADDRESS is \"$KAFKA_ADDRESS\", which is not an address of this machine: expected the one that VM3 and VM4 reach, of:$own")
  fi
  [[ ${#problems[@]} == 0 ]] || fail "$(printf '%s\n' "${problems[@]}")" 2
}

address_of() {
  getent ahosts "$1" | awk 'NR == 1 { print $1 }'
}

# Data of the one mode are unreadable for the other; kraft writes version=1 into meta.properties, zookeeper version=0.
refuse_other_mode() {
  [[ -f $DATA/meta.properties ]] || return 0
  local other=zookeeper
  [[ $KAFKA_MODE == kraft ]] || other=kraft
  grep -qx "version=$([[ $KAFKA_MODE == kraft ]] && echo 1 || echo 0)" "$DATA/meta.properties" ||
    fail "$DATA has data of mode $other, KAFKA_MODE is \"$KAFKA_MODE\": set it back, or lose the records by make wipe CONFIRM=yes" 2
}

render() {
  local text name
  text=$(cat)
  RETENTION_BYTES_PER_PARTITION=$((KAFKA_RETENTION_GB * (1 << 30) / KAFKA_PARTITIONS))
  [[ $RETENTION_BYTES_PER_PARTITION -ge $SEGMENT_BYTES ]] || RETENTION_BYTES_PER_PARTITION=$SEGMENT_BYTES
  # shellcheck disable=SC2034 # Used by its name, below.
  CONTROLLER_PORT=$((KAFKA_PORT + 1))
  # In a URL an IPv6 address stands in brackets.
  [[ $KAFKA_ADDRESS != *:* ]] || KAFKA_ADDRESS=[$KAFKA_ADDRESS]
  for name in KAFKA_ADDRESS KAFKA_PORT KAFKA_PARTITIONS KAFKA_RETENTION_HOURS RETENTION_BYTES_PER_PARTITION CONTROLLER_PORT; do
    text=${text//@$name@/"${!name}"}
  done
  printf '%s\n' "$text"
}

format() {
  local id
  # A leading minus would be read as an option.
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=' | sed 's/^-/A/')
  runuser -u kafka -- java -Xmx256m -Dlog4j.configuration=file:/etc/kafka/log4j.properties \
    -cp '/opt/kafka/libs/*' kafka.tools.StorageTool format -t "$id" -c /etc/kafka/server.properties
}

wipe() {
  systemctl stop kafka.service zookeeper.service
  rm -rf "$DATA" "$ZOOKEEPER_DATA/version-2"
  config
}

case ${1:-} in
  all | kafka | config | wipe) "$1" ;;
  *) fail "setup.sh: expected all, kafka, config or wipe" 2 ;;
esac
