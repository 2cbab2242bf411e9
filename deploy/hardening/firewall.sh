#!/usr/bin/env bash
# Sets this machine's ufw to the table of the deployment, and to nothing else: what comes in is refused, but for the
# ports and sources that the inventory gives its role (inventory.sh, open_to), over IPv4 and IPv6. A second run changes
# nothing; rules of an earlier inventory go. The admin is never locked out: the rule for port 22 is there before
# anything is closed, and an inventory whose admin is not who is logged in is refused.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/inventory.sh
source "$here/../inventory.sh"

usage="Usage: firewall.sh [--dry-run] [--replace] [--machine vm1|vm2|vm3|vm4] [--inventory FILE]
  --dry-run    prints the commands that it would run, and runs none; without root: those of a fresh machine
  --replace    deletes rules that others made; without it they are an error, for nothing else may be open
  --machine    which machine this is; found by its address where it is not said
  --inventory  deploy/inventory where it is not said"
# What our rules are known by.
readonly MARK=pertoken

main() {
  read_words "$@"
  read_inventory "$inventory" || fail 'the inventory is wrong' 2
  [[ -n $machine ]] || machine=$(machine_of_here)
  read_state
  if [[ $dry_run == no ]]; then
    ((EUID == 0)) || fail 'only root may set it: run it with sudo'
    command -v ufw >/dev/null || fail 'ufw is not installed: run apt-get install -y ufw'
    check_sessions
  fi
  check_others
  changes=0
  turn_ipv6_on
  add_rules
  set_policies
  delete_rules
  [[ $active == yes ]] || change ufw --force enable
  # Also after the next boot.
  if [[ -d /run/systemd/system && $known == yes ]] && ! systemctl -q is-enabled ufw.service; then
    change systemctl -q enable ufw.service
  fi
  if ((changes == 0)); then
    echo "Firewall of $machine (${NAME[$machine]}): nothing to change"
  elif [[ $dry_run == no ]]; then
    LC_ALL=C ufw status | grep -q '^Status: active' || fail 'ufw is not active after all: see ufw status'
    echo "Firewall of $machine (${NAME[$machine]}): set"
  fi
}

read_words() {
  dry_run=no replace=no machine='' inventory=$here/../inventory
  while (($# > 0)); do
    case $1 in
      --dry-run) dry_run=yes ;;
      --replace) replace=yes ;;
      --machine | --inventory)
        [[ -n ${2-} ]] || fail "$1 needs a value" 2
        printf -v "${1#--}" %s "$2"
        shift
        ;;
      --help) echo "$usage" && exit 0 ;;
      *) fail "\"$1\" is not known; $usage" 2 ;;
    esac
    shift
  done
  [[ $machine =~ ^(vm[1-4])?$ ]] || fail "there is no machine \"$machine\": expected vm1, vm2, vm3 or vm4" 2
}

fail() {
  echo "Cannot set the firewall: $1" >&2
  exit "${2:-1}"
}

machine_of_here() {
  local role own
  for own in $(ip -o address show | awk '{ sub("/.*", "", $4); print $4 }'); do
    for role in "${ROLES[@]}"; do
      if is_within "$own" "${ADDRESS[$role]}"; then echo "$role" && return; fi
    done
  done
  fail 'no machine of the inventory has an address of this one: correct the inventory, or say --machine'
}

# What is in force: `added` (the rules, as ufw's own commands), `active`. Only root may see it; a fresh machine has none.
read_state() {
  added=() active=no known=no
  if ((EUID == 0)) && command -v ufw >/dev/null; then
    known=yes
    mapfile -t added < <(LC_ALL=C ufw show added | grep '^ufw ' || true)
    if LC_ALL=C ufw status | grep -q '^Status: active'; then active=yes; fi
  fi
}

# What ufw prints for one of our rules; groups: source, port.
readonly OURS="^ufw allow from ([^ ]+) to any port ([0-9]+) proto tcp comment '$MARK'\$"

# A rule's identity: ufw may write an IPv6 address in another way than the inventory.
key_of() {
  local port=$1 source=$2
  address_bits "${source%%/*}"
  if [[ $source == */* ]]; then echo "$port $REPLY/${source#*/}"; else echo "$port $REPLY/${#REPLY}"; fi
}

add_rules() {
  local port source rule
  local -A there=()
  for rule in "${added[@]}"; do
    [[ ! $rule =~ $OURS ]] || there[$(key_of "${BASH_REMATCH[2]}" "${BASH_REMATCH[1]}")]=yes
  done
  wanted=()
  while read -r port source; do
    wanted+=("$(key_of "$port" "$source")")
    [[ -n ${there[${wanted[-1]}]-} ]] ||
      change ufw allow from "$source" to any port "$port" proto tcp comment "$MARK"
  done < <(rules_of "$machine")
}

# Without it ufw lets all IPv6 through, and takes no rule for it.
turn_ipv6_on() {
  [[ -e /proc/net/if_inet6 ]] || return 0
  if ! is_set 'IPV6=yes'; then
    change sed -i 's/^IPV6=.*/IPV6=yes/' /etc/default/ufw
    [[ $active == no ]] || change ufw reload
  fi
}

# What no rule lets in is refused.
set_policies() {
  is_set 'DEFAULT_INPUT_POLICY="DROP"' || change ufw default deny incoming
  is_set 'DEFAULT_OUTPUT_POLICY="ACCEPT"' || change ufw default allow outgoing
}

is_set() {
  [[ $known == yes ]] && grep -qxF "$1" /etc/default/ufw
}

# Rules that are no longer wanted: ours of an earlier inventory, and with --replace those of others.
delete_rules() {
  local rule key words
  for rule in "${added[@]}"; do
    if [[ $rule =~ $OURS ]]; then
      key=$(key_of "${BASH_REMATCH[2]}" "${BASH_REMATCH[1]}")
      [[ " ${wanted[*]/#/|} " != *"|$key "* ]] || continue
    fi
    # As ufw shows it: words, quoted where they hold spaces; the comment is no part of a rule.
    mapfile -t words < <(xargs printf '%s\n' <<<"${rule% comment \'*}")
    if [[ ${words[1]} == route ]]; then
      change ufw route delete "${words[@]:2}"
    else
      change ufw delete "${words[@]:1}"
    fi
  done
}

check_others() {
  local rule others=()
  for rule in "${added[@]}"; do [[ $rule =~ $OURS ]] || others+=("$rule"); done
  if ((${#others[@]} == 0)) || [[ $replace == yes ]]; then return; fi
  printf '  %s\n' "${others[@]}" >&2
  fail 'these rules are not of the table, and nothing else may be open: delete them with --replace (make harden REPLACE=yes)'
}

# Somebody is logged in over ssh, and none of those who are is an admin: then it is the inventory that is wrong. Whom we
# serve is known where sudo kept SSH_CONNECTION; else all connections are asked.
check_sessions() {
  local peers peer one
  peers=${SSH_CONNECTION%% *}
  [[ -n $peers ]] || peers=$(ss -Htn state established '( sport = :22 )' | awk '{ print $NF }' | sed -E 's/:[0-9]+$//; s/[][]//g')
  [[ -n $peers ]] || return 0
  for peer in $peers; do
    peer=${peer#::ffff:}
    for one in "${ADMINS[@]}"; do
      if is_within "${peer%%\%*}" "$one"; then return 0; fi
    done
  done
  fail "you are logged in from ${peers//$'\n'/, }, and the inventory's admin is ${ADMINS[*]}: you would lock yourself out. \
Add a line \"admin ${peers%%$'\n'*}\""
}

# Prints one command that changes something, and runs it unless this is a dry run.
change() {
  changes=$((changes + 1))
  sed -E "s/'([A-Za-z0-9_.:\/=-]+)'/\1/g" <<<"${*@Q}"
  [[ $dry_run == yes ]] || "$@" >/dev/null || fail "\"$*\" failed"
}

SSH_CONNECTION=${SSH_CONNECTION-}
main "$@"
