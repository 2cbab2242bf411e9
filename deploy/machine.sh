#!/usr/bin/env bash
# Does one thing on one machine, over ssh: machine.sh MACHINE ACTION [NAME=VALUE…]. The actions of its own are below; any
# other is a target of that machine's Makefile (deploy/vm1-kafka and so on), which gets the values, and the inventory's
# addresses as VM1 to VM4. INVENTORY, SSH and DIR (where pertoken lies on the machines, from the login's home) come from the environment.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/inventory.sh
source "$here/inventory.sh"
readonly DIR=${DIR:-pertoken}
declare -rA FOLDER=([vm1]=vm1-kafka [vm2]=vm2-mongodb [vm3]=vm3-processor [vm4]=vm4-producers)

main() {
  local machine=$1 action=$2
  shift 2
  read_inventory "${INVENTORY:-$here/inventory}" || exit 2
  case $action in
    ping) ping_machine "$machine" ;;
    copy) copy "$machine" ;;
    harden)
      local replace=''
      [[ " $* " != *' REPLACE=yes '* ]] || replace=--replace
      on "$machine" "cd '$DIR/deploy/hardening' && sudo ./firewall.sh --machine $machine $replace && sudo ./ssh.sh"
      ;;
    status) status "$machine" "$@" ;;
    setup)
      copy "$machine"
      remote_make "$machine" setup "$@"
      ;;
    *) remote_make "$machine" "$action" "$@" ;;
  esac
}

ping_machine() {
  local started=${EPOCHREALTIME/[.,]/}
  if ! on "$1" true </dev/null; then
    echo "$1 ${NAME[$1]}: NOT REACHED as ${LOGIN[$1]}: is it up, is its port 22 open to you, is your key there?" >&2
    exit 1
  fi
  echo "$1 ${NAME[$1]}: reached as ${LOGIN[$1]} in $(((${EPOCHREALTIME/[.,]/} - started) / 1000)) ms"
}

# The project as it lies here, and the inventory. What git ignores stays here: .env files are each machine's own. Folders of
# sources are replaced as a whole: a file that the newer version has moved would be built there once more.
copy() {
  local root=$here/.. file
  git -C "$root" ls-files -z --cached --others --exclude-standard |
    while IFS= read -rd '' file; do [[ ! -f $root/$file ]] || printf '%s\0' "$file"; done |
    tar -C "$root" --null --files-from=- -cz |
    on "$1" "mkdir -p '$DIR' && cd '$DIR' && rm -rf bench bin docs examples schemas seeds src test && tar -xz"
  on "$1" "cat >'$DIR/deploy/inventory'" <"${INVENTORY:-$here/inventory}"
  echo "$1 ${NAME[$1]}: copied to $DIR"
}

# For each thing that it does: what runs, and whether it is well.
status() {
  local role roles wrong=0
  roles=$(roles_at "${ADDRESS[$1]}")
  shift
  for role in $roles; do
    echo "## $role ${NAME[$role]}"
    remote_make "$role" ps "$@" </dev/null || wrong=1
    if remote_make "$role" health "$@" </dev/null; then echo "$role: well"; else echo "$role: NOT WELL" && wrong=1; fi
  done
  exit "$wrong"
}

remote_make() {
  local machine=$1 role words=()
  shift
  for role in "${ROLES[@]}"; do words+=("${role^^}=${ADDRESS[$role]}"); done
  # make over there would take a dollar for the start of a variable.
  words+=("${@//\$/\$\$}")
  on "$machine" "make -s --no-print-directory -C '$DIR/deploy/${FOLDER[$machine]}' ${words[*]@Q}"
}

main "$@"
