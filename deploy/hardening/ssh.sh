#!/usr/bin/env bash
# Makes this machine's sshd take keys only: no passwords, and nobody logs in as root. It writes one file that sshd reads
# before all others, and keeps it only if `sshd -t` accepts the whole and `sshd -T` says that it is in force. A second run
# changes nothing. It refuses where nobody could come in afterwards: some user other than root must have a valid key
# that sshd would take, and be able to become root by sudo. No options; run it as root.
set -euo pipefail
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

# sshd takes the first value that it reads, and reads the files in the order of their names (cloud-init's is 50-…).
readonly DROP_IN=/etc/ssh/sshd_config.d/00-pertoken.conf
readonly WANTED='PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no'

main() {
  (($# == 0)) || fail "\"$1\" is not known: expected no words" 2
  ((EUID == 0)) || fail 'only root may change it: run it with sudo'
  command -v sshd >/dev/null || fail 'sshd is not installed: run apt-get install -y openssh-server'
  # Where nothing has started sshd yet, its own directory is not there, and it checks nothing without it.
  [[ -d /run/sshd ]] || mkdir -m 0755 /run/sshd
  local before
  before=$(sshd -t 2>&1) || fail "sshd -t finds its configuration wrong before any change: $before"
  ask_sshd
  check_matches
  check_way_in
  if [[ -f $DROP_IN && $(tail -n +2 "$DROP_IN") == "$WANTED" ]] && in_force; then
    echo "sshd takes keys only: nothing to change"
    return
  fi
  replace_drop_in
  reload
  echo "sshd takes keys only: set. Before you log out, see in another window that you can log in"
}

fail() {
  echo "Cannot harden sshd: $1" >&2
  exit "${2:-1}"
}

# What sshd takes its settings to be, all of them; asked again after each change.
ask_sshd() {
  effective=$(sshd -T 2>/dev/null) || effective=''
}

# setting NAME: its values, a line for each.
setting() {
  awk -v name="$1" '$1 == name { $1 = ""; print substr($0, 2) }' <<<"$effective"
}

in_force() {
  local line
  while read -r line; do
    line=${line,,}
    [[ $(setting "${line% *}") == "${line#* }" ]] || return 1
  done <<<"$WANTED"
}

# A Match block stands above what we write, for whoever it matches: it has to go by hand.
check_matches() {
  local file found
  found=$(for file in /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf; do
    [[ -r $file ]] || continue
    awk -v file="$file" '
      tolower($1) == "match" { inside = 1 }
      inside && tolower($2) != "no" &&
        tolower($1) ~ /^(passwordauthentication|kbdinteractiveauthentication|challengeresponseauthentication|permitrootlogin)$/ {
        print file ":" NR ": " $0
      }' "$file"
  done)
  [[ -z $found ]] || fail "a Match block allows it to some: delete these lines and run again"$'\n'"$found"
}

# Who could come in and become root once passwords are off? Nobody: then nothing is changed.
check_way_in() {
  local user home shell uid reason reasons=''
  [[ $(setting pubkeyauthentication) == yes ]] || fail 'it takes no keys: set "PubkeyAuthentication yes" first'
  while IFS=: read -r user _ uid _ _ home shell; do
    [[ $uid != 0 && $shell != */nologin && $shell != */false ]] || continue
    reason=''
    if has_key "$user" "$home" && is_allowed "$user" && may_become_root "$user"; then return; fi
    [[ -z $reason ]] || reasons+=$'\n'"  $user: $reason"
  done < <(getent passwd)
  fail "nobody could come in afterwards and become root: expected a user other than root with a key in
~/.ssh/authorized_keys and the right to sudo. Do: adduser NAME; adduser NAME sudo; then, from your machine:
ssh-copy-id NAME@HOST$reasons"
}

# The files that sshd would look at, a valid key in one of them, and permissions with which sshd believes it.
has_key() {
  local user=$1 home=$2 pattern file open
  for pattern in $(setting authorizedkeysfile); do
    file=${pattern//%h/$home}
    file=${file//%u/$user}
    file=${file//%%/%}
    [[ $file == /* ]] || file=$home/$file
    # A key with a forced command is no login.
    [[ -f $file ]] || continue
    grep -v 'command=' "$file" | ssh-keygen -l -f - >/dev/null 2>&1 || continue
    open=$(find "$home" "$(dirname "$file")" "$file" -maxdepth 0 \( -perm /022 -o ! \( -user "$user" -o -user root \) \))
    [[ -n $open ]] || return 0
    reason="has a key, and sshd does not believe it, for others may write to ${open//$'\n'/, }: chmod go-w, chown $user"
  done
  return 1
}

# Whether sshd is told to let in only some, and this user is not one of them.
is_allowed() {
  local pattern group users groups
  users=$(setting allowusers)
  groups=$(setting allowgroups)
  [[ -n $users$groups ]] || return 0
  reason='has a key, and is not among AllowUsers or AllowGroups'
  # shellcheck disable=SC2053 # They are patterns.
  for pattern in $users; do [[ $1 != ${pattern%@*} ]] || return 0; done
  for pattern in $groups; do
    # shellcheck disable=SC2053
    for group in $(id -nG "$1"); do [[ $group != $pattern ]] || return 0; done
  done
  return 1
}

# By sudo: without a password, or with one, if there is one to type.
may_become_root() {
  local rights
  rights=$(sudo -n -l -U "$1" 2>/dev/null </dev/null | grep -E '\((ALL|root)[^)]*\) ([A-Z_]+: )*ALL$' || true)
  reason='has a key, and may not sudo: adduser NAME sudo'
  [[ -n $rights ]] || return 1
  reason='has a key and may sudo, and has no password that sudo would ask for: passwd NAME'
  [[ $rights == *NOPASSWD:* || $(passwd -S "$1" | awk '{ print $2 }') == P ]]
}

# Writes the file; what sshd does not accept, or what has no effect, is taken back.
replace_drop_in() {
  local old='' problem=''
  mkdir -p "${DROP_IN%/*}"
  [[ ! -f $DROP_IN ]] || old=$(mktemp "$DROP_IN.XXXXXX")
  [[ -z $old ]] || cp -p "$DROP_IN" "$old"
  printf '# Keys only, written by pertoken (deploy/hardening/ssh.sh).\n%s\n' "$WANTED" >"$DROP_IN.new"
  mv "$DROP_IN.new" "$DROP_IN"
  ask_sshd
  if ! problem=$(sshd -t 2>&1); then
    problem="sshd -t does not accept it: $problem"
  elif ! in_force; then
    problem="$DROP_IN has no effect: expected \"Include /etc/ssh/sshd_config.d/*.conf\" as the first line of \
/etc/ssh/sshd_config, and no file before it that says otherwise"
  fi
  if [[ -n $problem ]]; then
    if [[ -n $old ]]; then mv "$old" "$DROP_IN"; else rm "$DROP_IN"; fi
    fail "$problem"
  fi
  [[ -z $old ]] || rm "$old"
}

# Sessions stay. sshd begins anew on SIGHUP and for a moment takes nobody: that is waited for, so that whoever comes next
# is let in. Where sshd is started for each connection, there is nothing to reload.
reload() {
  local ports before pid_file
  ports=$(setting port)
  before=$(listening)
  if [[ -d /run/systemd/system ]]; then
    systemctl try-reload-or-restart ssh.service
  else
    pid_file=$(setting pidfile)
    [[ -f $pid_file ]] || return 0
    kill -HUP "$(<"$pid_file")"
  fi
  for _ in {1..40}; do
    [[ $(listening) == "$before" || -z $(listening) ]] || return 0
    sleep 0.05
  done
}

# The sockets on which somebody waits at `ports`.
listening() {
  local port
  for port in $ports; do ss -Hltne "sport = :$port" | grep -o 'ino:[0-9]*' || true; done
}

main "$@"
