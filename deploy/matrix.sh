#!/usr/bin/env bash
# Who reaches whom on which port: tries each machine (and this one, as the admin) against each other, and compares what
# it sees with what the inventory's rules say. A line for each pair; exit 1 where anything is otherwise. `--as stranger`
# tries from here only and expects all to be closed: run it on a machine that is no admin's. INVENTORY and SSH come from
# the environment; on the machines it needs bash and timeout, and takes about four seconds.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/inventory.sh
source "$here/inventory.sh"

# What our machines serve: ssh, ZooKeeper, the processor, Kafka, its controller, MongoDB.
readonly PORTS=(22 2181 8080 9092 9093 27017)

# Runs on each machine. Lines "MACHINE ADDRESS PORT" in, lines "MACHINE PORT open|refused|blocked" out. Refused means that
# the firewall let it through and nothing listened.
# shellcheck disable=SC2016 # It is expanded over there.
readonly PROBE='
probe() {
  local answer seen=blocked
  if answer=$(LC_ALL=C timeout 3 bash -c "exec 3<>/dev/tcp/$2/$3" 2>&1); then seen=open
  elif [[ $answer == *refused* ]]; then seen=refused; fi
  echo "$1 $3 $seen"
}
while read -r machine address port; do probe "$machine" "$address" "$port" & done
wait'

main() {
  local self=admin from wrong=0
  if [[ ${1-} == --as && ${2-} =~ ^(admin|stranger)$ ]]; then
    self=$2
  elif (($# > 0)); then
    echo "\"$*\" is not known: expected --as admin or --as stranger" >&2
    exit 2
  fi
  read_inventory "${INVENTORY:-$here/inventory}" || exit 2
  mapfile -t all < <(machines)
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  local sources=("$self")
  [[ $self == stranger ]] || sources+=("${all[@]}")
  for from in "${sources[@]}"; do look_from "$from" >"$work/$from" 2>"$work/$from.error" & done
  wait
  for from in "${sources[@]}"; do compare "$from" || wrong=1; done
  if ((wrong)); then
    echo 'The network is NOT as the inventory says' >&2
    exit 1
  fi
  echo 'The network is as the inventory says'
}

look_from() {
  if [[ $1 == "$self" ]]; then
    targets_of "$1" | bash -c "$PROBE"
  else
    # Standard input is no terminal here, so that ssh takes none.
    targets_of "$1" | on "$1" "bash -c ${PROBE@Q}"
  fi
}

targets_of() {
  local to port address
  for to in "${all[@]}"; do
    [[ $to != "$1" ]] || continue
    address=${ADDRESS[$to]}
    # From here they may be reached by other addresses than from each other: ssh knows by which.
    # shellcheck disable=SC2086 # SSH holds options.
    [[ $1 != "$self" ]] || address=$(${SSH:-ssh} -G "${LOGIN[$to]}" | awk '$1 == "hostname" { print $2 }')
    for port in "${PORTS[@]}"; do echo "$to $address $port"; done
  done
}

# Prints a line for each target of one source; fails when one is not as expected.
compare() {
  local from=$1 address to port what expected wrong=0 open closed rules
  local -A seen=()
  while read -r to port what; do seen[$to $port]=$what; done <"$work/$from"
  # What is open to the first admin is open to all of them.
  address=${ADDRESS[$from]-${ADMINS[0]%%/*}}
  for to in "${all[@]}"; do
    [[ $to != "$from" ]] || continue
    rules=$(rules_of "$to") open='' closed=''
    for port in "${PORTS[@]}"; do
      what=${seen[$to $port]-nothing} expected=blocked
      if [[ $from != stranger ]] && lets_in "$rules" "$address" "$port"; then expected=open; fi
      if [[ $what == open ]]; then open+=" $port"; else closed+=" $port"; fi
      [[ $what != "$expected" ]] || continue
      wrong=1
      echo "$from → $to port $port: expected $expected, seen $what: $(advice "$expected" "$what" "$to")" >&2
    done
    printf '%-8s → %-4s %-15s open:%-12s closed:%s\n' "$from" "$to" "${NAME[$to]}" "$open" "$closed"
  done
  return "$wrong"
}

advice() {
  case "$1 $2" in
    *\ nothing) echo "could not be tried: $(tail -n 1 "$work/$from.error")" ;;
    open\ refused) echo "the way is open, and nothing listens there: make $3-up" ;;
    open\ *) echo "make $3-harden, and look at the cloud's own rules (security group)" ;;
    *) echo "more is open than should be: make $3-harden" ;;
  esac
}

main "$@"
