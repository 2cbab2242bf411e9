#!/usr/bin/env bash
# Prints the cloud-init user data of one machine: cloud-init.sh MACHINE INVENTORY KEY.pub. From its first start the machine
# has its name, takes your key only (ssh.sh), and lets in what the inventory says (firewall.sh); both scripts are in the
# file. Beyond ufw, make, curl and git it installs nothing: that is `make MACHINE-setup`. Under EC2's limit of 16 KB.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/inventory.sh
source "$here/../inventory.sh"
# Where the scripts lie on the machine, in the same order as here.
readonly PLACE=/opt/pertoken/deploy

main() {
  [[ $# == 3 && $1 =~ ^vm[1-4]$ ]] || fail 'expected: cloud-init.sh vm1|vm2|vm3|vm4 INVENTORY KEY.pub'
  read_inventory "$2" || exit 2
  local type key
  # A private key, which must not get into user data, has more lines.
  if [[ $(grep -c . "$3") != 1 ]] || ! ssh-keygen -l -f "$3" >/dev/null; then
    fail "\"$3\" holds no public key: expected one line like ssh-ed25519 AAAA…"
  fi
  read -r type key _ <"$3"
  [[ $type =~ ^(ssh|ecdsa|sk)- ]] || fail "\"$3\" begins with options: expected a public key like ssh-ed25519 AAAA…"
  cat <<END
#cloud-config
# ${NAME[$1]} ($(roles_at "${ADDRESS[$1]}" | paste -sd, -)), made by pertoken (deploy/hardening/cloud-init.sh)
hostname: ${NAME[$1]}
ssh_authorized_keys:
  - $type $key
ssh_pwauth: false
disable_root: true
package_update: true
packages: [ufw, make, curl, git, sudo]
write_files:
$(file_entry "$2" inventory 0644)
$(file_entry "$here/../inventory.sh" inventory.sh 0755)
$(file_entry "$here/ssh.sh" hardening/ssh.sh 0755)
$(file_entry "$here/firewall.sh" hardening/firewall.sh 0755)
runcmd:
  - [$PLACE/hardening/ssh.sh]
  - [$PLACE/hardening/firewall.sh, --replace, --machine, $1]
END
}

file_entry() {
  printf '  - path: %s\n    permissions: "%s"\n    encoding: gz+b64\n    content: %s' "$PLACE/$2" "$3" "$(gzip -9nc "$1" | base64 | tr -d '\n')"
}

fail() {
  echo "Cannot make user data: $1" >&2
  exit 2
}

main "$@"
