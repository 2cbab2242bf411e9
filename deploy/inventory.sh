#!/usr/bin/env bash
# Which machines there are and who may reach whom: reads the inventory (its format: inventory.example) and holds the one
# table of open ports. Sourced by the scripts beside it. By itself it checks a
# file: inventory.sh FILE; or prints a role for each machine in it: inventory.sh --machines FILE.

((BASH_VERSINFO[0] >= 5)) || {
  echo "Cannot run with bash $BASH_VERSION: expected 5 or later, which every machine of the deployment has" >&2
  exit 2
}

declare -gA NAME=() ADDRESS=() LOGIN=()
declare -ga ADMINS=()
HTTP=closed
readonly ROLES=(vm1 vm2 vm3 vm4)

# THE TABLE, beside 22 from the admin to every machine. Prints the port of a role that others may reach, and which others.
open_to() {
  case $1 in
    vm1) echo 9092 vm3 vm4 ;;
    vm2) echo 27017 vm3 ;;
    vm3) [[ $HTTP == closed ]] || echo 8080 admin ;;
  esac
}

# Prints what a machine lets in, a line for each rule: PORT SOURCE. The admin's 22 comes first. A machine with two roles
# has the rules of both; what it sends to itself passes no firewall.
rules_of() {
  local role port source sources one
  for one in "${ADMINS[@]}"; do echo "22 $one"; done
  for role in $(roles_at "${ADDRESS[$1]}"); do
    read -r port sources <<<"$(open_to "$role")"
    for source in $sources; do
      if [[ $source == admin ]]; then
        for one in "${ADMINS[@]}"; do echo "$port $one"; done
      elif [[ ${ADDRESS[$source]} != "${ADDRESS[$1]}" ]]; then
        echo "$port ${ADDRESS[$source]}"
      fi
    done
  done | awk '!seen[$0]++'
}

# lets_in RULES ADDRESS PORT: whether rules (as rules_of prints them) let an address in at a port.
lets_in() {
  local port source
  while read -r port source; do
    if [[ $port == "$3" ]] && is_within "$2" "$source"; then return 0; fi
  done <<<"$1"
  return 1
}

# The roles that a machine has, by its address.
roles_at() {
  local role
  for role in "${ROLES[@]}"; do [[ ${ADDRESS[$role]} != "$1" ]] || echo "$role"; done
}

# One role for each machine: vm1 to vm4, or to vm3 where that is vm4 too.
machines() {
  local role
  for role in "${ROLES[@]}"; do
    [[ $role == vm4 && ${ADDRESS[vm3]} == "${ADDRESS[vm4]}" ]] || echo "$role"
  done
}

# on MACHINE COMMAND…: runs a command there, over ssh (SSH: another ssh, or one with options). The words go through the
# shell over there, as ssh has it.
on() {
  local role=$1 terminal=()
  shift
  # Whoever asks on the other side (sudo, setup) gets an answer where there is somebody to give one.
  [[ ! -t 0 || ! -t 1 ]] || terminal=(-t)
  # shellcheck disable=SC2086 # SSH holds options.
  ${SSH:-ssh} -o ConnectTimeout=10 "${terminal[@]}" "${LOGIN[$role]}" "$@"
}

# Reads and checks an inventory; every mistake is said, each with its line, and then it fails.
read_inventory() {
  local file=$1 line words number=0 wrong=0 role seen=' ' family=''
  [[ -r $file ]] || {
    echo "Cannot read the inventory \"$file\": copy deploy/inventory.example to it and put your addresses in" >&2
    return 1
  }
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    line=${line%$'\r'}
    read -ra words <<<"${line%%#*}"
    seen+="${words[0]-} "
    case ${words[0]-} in
      '') ;;
      vm[1-4]) read_machine "${words[@]}" ;;
      admin) read_admin "${words[@]}" ;;
      http) read_http "${words[@]}" ;;
      *) mistake "\"${words[0]}\" is not known: expected vm1, vm2, vm3, vm4, admin or http" ;;
    esac
  done <"$file"
  number=$((number + 1))
  for role in "${ROLES[@]}"; do
    [[ $seen == *" $role "* ]] || mistake "$role is missing: expected a line $role NAME ADDRESS"
  done
  [[ $seen == *' admin '* ]] || mistake 'admin is missing: expected a line admin ADDRESS, or nobody could log in'
  ((wrong == 0))
}

# Part of read_inventory, whose variables these use.
mistake() {
  echo "$file:$number: $1" >&2
  wrong=$((wrong + 1))
}

read_machine() {
  local role=$1 name=${2-} address=${3-} other own_family=IPv6
  if (($# < 3 || $# > 4)); then
    mistake "$role has $(($# - 1)) values: expected $role NAME ADDRESS [LOGIN]"
    return
  fi
  [[ ! -v ADDRESS[$role] ]] || mistake "$role is there twice: expected one line for it"
  [[ $name =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
    mistake "$role has the name \"$name\": expected a host name of small letters, digits and dashes"
  if ! address_bits "$address"; then
    mistake "$role has the address \"$address\": expected an IPv4 or IPv6 address"
    address=''
  elif [[ $address =~ ^(0\.|127\.|22[4-9]\.|2[3-5][0-9]\.|::1?$|[fF][eE][89abAB][0-9a-fA-F]:|[fF][fF][0-9a-fA-F]{2}:) ]]; then
    mistake "$role has the address \"$address\": expected one by which other machines reach it"
  else
    for other in "${ROLES[@]}"; do
      if [[ -n ${ADDRESS[$other]-} && $other != "$role" ]]; then check_pair; fi
    done
    [[ $address == *:* ]] || own_family=IPv4
    [[ ${family:=$own_family} == "$own_family" ]] ||
      mistake "$role has an $own_family address, and a machine before it an $family one: expected all IPv4 or all IPv6"
  fi
  [[ ${4-x} =~ ^[A-Za-z0-9_\[][]A-Za-z0-9._@:%[-]*$ ]] ||
    mistake "$role has the login \"$4\": expected an address, user@address or a name of your ssh configuration"
  NAME[$role]=$name ADDRESS[$role]=$address LOGIN[$role]=${4:-$address}
}

# Part of read_machine: what two machines must not have in common, and what they must.
check_pair() {
  local same_name=no same_address=no pair
  pair=$(printf '%s\n' "$role" "$other" | sort | tr '\n' ' ')
  [[ ${NAME[$other]} != "$name" ]] || same_name=yes
  [[ ${ADDRESS[$other]} != "$address" ]] || same_address=yes
  if [[ $pair == 'vm3 vm4 ' ]]; then
    [[ $same_name == "$same_address" ]] ||
      mistake "$role and $other have either the name or the address in common: expected both (one machine) or none"
  else
    [[ $same_name == no ]] || mistake "$role has the name of $other: expected another, only vm3 and vm4 may be one machine"
    [[ $same_address == no ]] ||
      mistake "$role has the address of $other: expected another, only vm3 and vm4 may be one machine"
  fi
}

read_admin() {
  local network=${2-} address prefix bits one
  if (($# != 2)); then
    mistake "admin has $(($# - 1)) values: expected admin ADDRESS or admin NETWORK/BITS, one a line"
    return
  fi
  address=${network%%/*}
  if ! address_bits "$address"; then
    mistake "admin is \"$network\": expected an IPv4 or IPv6 address or network"
    return
  fi
  bits=$REPLY prefix=${#REPLY}
  if [[ $network == */* ]]; then
    prefix=${network#*/}
    if [[ ! $prefix =~ ^(0|[1-9][0-9]{0,2})$ ]] || ((prefix > ${#bits})); then
      mistake "admin is \"$network\": expected at most ${#bits} bits behind the /"
      return
    fi
    ((prefix > 0)) || mistake "admin is \"$network\", which is everybody: expected where you log in from"
    [[ ${bits:prefix} != *1* ]] ||
      mistake "admin is \"$network\", whose address goes on after $prefix bits: expected the network's first address"
  fi
  for one in "${ADMINS[@]}"; do
    [[ $one != "$network" ]] || mistake "admin \"$network\" is there twice: expected one line for it"
  done
  ADMINS+=("$network")
}

read_http() {
  [[ $# == 2 && $2 =~ ^(open|closed)$ ]] || mistake "http is \"${*:2}\": expected open or closed"
  HTTP=${2-closed}
}

# is_within ADDRESS NETWORK: whether an address is in a network (or is the address).
is_within() {
  local bits prefix
  address_bits "$1" || return 1
  bits=$REPLY
  address_bits "${2%%/*}" || return 1
  prefix=${#REPLY}
  [[ $2 != */* ]] || prefix=${2#*/}
  [[ ${#bits} == "${#REPLY}" && ${bits:0:prefix} == "${REPLY:0:prefix}" ]]
}

# Puts an address into REPLY as text of 32 or 128 zeros and ones: an address is inside a network when the first of them
# are equal, and two ways of writing one IPv6 address are the same. Fails for what is no address.
address_bits() {
  local number numbers head tail
  REPLY=''
  if [[ $1 =~ ^[0-9]{1,3}(\.[0-9]{1,3}){3}$ ]]; then
    IFS=. read -ra numbers <<<"$1"
    for number in "${numbers[@]}"; do
      # A leading zero means octal to some programs.
      [[ $number == 0 || $number != 0* ]] && ((number <= 255)) || return 1
      append_bits "$number" 8
    done
    return 0
  fi
  # Hex digits in groups; no colon alone at an end, no three in a row, and not two gaps.
  [[ $1 =~ ^(::)?([0-9a-fA-F]{1,4}(::?[0-9a-fA-F]{1,4})*)?(::)?$ && $1 != *::*::* && -n $1 ]] || return 1
  IFS=: read -ra head <<<"${1%%::*}"
  numbers=("${head[@]}")
  if [[ $1 == *::* ]]; then
    IFS=: read -ra tail <<<"${1#*::}"
    ((${#head[@]} + ${#tail[@]} < 8)) || return 1
    while ((${#numbers[@]} + ${#tail[@]} < 8)); do numbers+=(0); done
    numbers+=("${tail[@]}")
  fi
  ((${#numbers[@]} == 8)) || return 1
  for number in "${numbers[@]}"; do append_bits "$((16#$number))" 16; done
}

append_bits() {
  local value=$1 width=$2 bits=''
  for (( ; width > 0; width--, value >>= 1)); do bits=$((value & 1))$bits; done
  REPLY+=$bits
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  set -euo pipefail
  if [[ ${1-} == --machines ]]; then
    read_inventory "${2-}" && machines
  else
    read_inventory "${1:?expected the path of an inventory}" || exit 2
    echo "$1 is right: $(machines | wc -l) machines"
  fi
fi
