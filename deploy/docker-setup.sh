#!/usr/bin/env bash
# Installs Docker with compose and buildx where they are missing (Debian and Ubuntu: Docker's own packages, signed with its
# key) and lets a user talk to it. Says first what it will change and asks; YES=1 does not ask. What is there already is
# left as it is: a second run changes nothing.
#
#   docker-setup.sh [USER]      USER: who called it, unless that is root
set -euo pipefail

# Of the key that signs Docker's packages, as docs.docker.com gives it.
readonly FINGERPRINT=9DC858229FC7DD38854AE2D88D81803C0EBFCD88
readonly KEYRING=/etc/apt/keyrings/docker.asc LIST=/etc/apt/sources.list.d/docker.list

fail() {
  echo "$1" >&2
  exit "${2:-1}"
}

user=${1:-${SUDO_USER:-$(id -un)}}
id -u "$user" >/dev/null 2>&1 || fail "There is no user $user on this machine" 2

packages=()
command -v docker >/dev/null || packages+=(docker-ce docker-ce-cli containerd.io)
docker compose version >/dev/null 2>&1 || packages+=(docker-compose-plugin)
docker buildx version >/dev/null 2>&1 || packages+=(docker-buildx-plugin)
changes=()
[[ ${#packages[@]} == 0 ]] || changes+=("installs ${packages[*]} from Docker's package repository")
joins=no
if [[ $user != root && " $(id -nG "$user") " != *" docker "* ]]; then
  joins=yes
  changes+=("adds $user to the group docker, whose members are as good as root on this machine")
fi
if [[ ${#changes[@]} == 0 ]]; then
  echo "Docker and compose are there, and $user may use them: nothing to change"
  exit 0
fi

echo "On $(hostname) this"
printf '  %s\n' "${changes[@]}"
if [[ ${YES:-} != 1 ]]; then
  [[ -t 0 ]] || fail "Nobody is here to ask: say YES=1 to go on" 2
  read -r -p "Go on? [y/N] " answer
  [[ $answer == [yY]* ]] || fail "Nothing was changed" 2
fi

as_root=()
if [[ $(id -u) != 0 ]]; then
  command -v sudo >/dev/null || fail "This needs root, and there is no sudo: run it as root, with $user as its argument"
  as_root=(sudo)
fi

add_repository() {
  # shellcheck source=/dev/null
  source /etc/os-release
  case ${ID:-} in
  debian | ubuntu) ;;
  *) fail "Docker's packages are installed here on Debian and Ubuntu only: see https://docs.docker.com/engine/install/, then come back" ;;
  esac
  "${as_root[@]}" apt-get -q update
  "${as_root[@]}" apt-get -q -y install --no-install-recommends ca-certificates curl gpg
  local key
  key=$(mktemp)
  # shellcheck disable=SC2064 # The path of now, not of later.
  trap "rm -f '$key'" RETURN
  curl -fsSL --retry 3 -o "$key" "https://download.docker.com/linux/$ID/gpg"
  gpg --show-keys --with-colons "$key" | grep "^fpr:.*:$FINGERPRINT:" >/dev/null ||
    fail "The key at download.docker.com/linux/$ID/gpg is not $FINGERPRINT: nothing was installed"
  "${as_root[@]}" install -D -m 0644 "$key" "$KEYRING"
  echo "deb [arch=$(dpkg --print-architecture) signed-by=$KEYRING] https://download.docker.com/linux/$ID ${VERSION_CODENAME:?} stable" |
    "${as_root[@]}" tee "$LIST" >/dev/null
}

if [[ ${#packages[@]} -gt 0 ]]; then
  add_repository
  "${as_root[@]}" apt-get -q update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${packages[@]}"
fi
if [[ $joins == yes ]]; then
  "${as_root[@]}" usermod -aG docker "$user"
  echo "$user is in the group docker from the next login on (or: newgrp docker)"
fi
