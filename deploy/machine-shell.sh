# What the scripts of the four machines have in common; they source it.
# shellcheck shell=bash

# Says what is wrong and what to do, and ends with a status, 1 unless another is given.
fail() {
  echo "$1" >&2
  exit "${2:-1}"
}

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

# Ends with 2 unless somebody agrees, or has agreed by YES=1.
ask_to_go_on() {
  local answer
  [[ ${YES:-} != 1 ]] || return 0
  [[ -t 0 ]] || fail "Nobody is here to ask: say YES=1 to go on" 2
  read -r -p "Go on? [y/N] " answer
  [[ $answer == [yY]* ]] || fail "Nothing was changed" 2
}
