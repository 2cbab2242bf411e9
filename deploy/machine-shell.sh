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

# The user in the image; secrets are his.
# shellcheck disable=SC2034
readonly IMAGE_USER=10001

# Docker where `compose` is docker's, the image, and the folder of secrets.
set_up_for_containers() {
  echo "On $(hostname) this installs Docker (where there is none), builds the image of pertoken, and makes $PWD/secrets."
  ask_to_go_on
  as_root install -d -o "$IMAGE_USER" -g "$IMAGE_USER" -m 0700 secrets
  # shellcheck disable=SC2154
  if [[ ${compose[0]} == docker ]]; then YES=1 make -C ../.. setup; else make -C ../.. build; fi
}
