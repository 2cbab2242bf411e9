#!/usr/bin/env bash
# Runs a command with the values of ./.env in its environment: with-env.sh COMMAND [WORD…], in the folder of a machine.
# What ./.env may say is what ./.env.example says: a name there that is not a comment must have a value, any other name of
# it may have one. A value is written bare, without quotes, blanks and dollar signs, so that this script, make, docker
# compose and systemd all read the same. The environment wins. All that is wrong is said at once, by line; exit 2.
set -euo pipefail

file=.env example=.env.example problems=()

[[ $# -gt 0 ]] || { echo "with-env.sh: expected a command" >&2; exit 2; }
[[ -f $example ]] || { echo "with-env.sh: no $example in $PWD: expected the folder of a machine" >&2; exit 2; }
# The example's addresses become those of VM1 to VM4 where they are given, as ../Makefile does from the inventory.
make_file() {
  local text pair ours
  text=$(<"$example")
  for pair in 10.0.1.197=VM1 10.0.1.86=VM2 10.0.1.112=VM3 10.0.1.140=VM4; do
    ours=${pair#*=}
    ours=${!ours:-}
    [[ -n $ours ]] || continue
    # Before a port an IPv6 address stands in brackets.
    if [[ $ours == *:* ]]; then text=${text//"${pair%=*}:"/"[$ours]:"}; fi
    text=${text//"${pair%=*}"/"$ours"}
  done
  (umask 077 && printf '%s\n' "$text" >"$file")
  echo "Made $PWD/$file from $example: look whether its addresses are yours" >&2
}

[[ -e $file ]] || make_file

declare -A known=() required=() seen=() wrong=()
while IFS= read -r line; do
  if [[ $line =~ ^('# ')?([A-Z][A-Z0-9_]*)=(.*)$ ]]; then
    known[${BASH_REMATCH[2]}]=${BASH_REMATCH[3]}
    [[ -n ${BASH_REMATCH[1]} ]] || required[${BASH_REMATCH[2]}]=1
  fi
done <"$example"

number=0
while IFS= read -r line || [[ -n $line ]]; do
  number=$((number + 1))
  at="$file:$number"
  if [[ $line == *$'\r' ]]; then
    problems+=("$at ends as on Windows: expected Unix line ends (sed -i 's/\\r\$//' $file)")
  elif [[ $line =~ ^[[:space:]]*(#.*)?$ ]]; then
    continue
  elif ! [[ $line =~ ^([A-Z][A-Z0-9_]*)=(.*)$ ]]; then
    # Not shown: it may be a password that lost its name.
    problems+=("$at is no NAME=value: expected capital letters, an equals sign without blanks around it, and the value")
  else
    name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    if [[ -z ${known[$name]+x} ]]; then
      problems+=("$at has $name, which this machine does not know: expected one of ${!known[*]}")
    elif [[ -n ${seen[$name]+x} ]]; then
      problems+=("$at has $name again: expected it once")
    elif ! [[ $value =~ ^[][A-Za-z0-9_./:@?=\&%,+~-]*$ ]]; then
      problems+=("$at: the value of $name holds a blank, a quote, a dollar sign or the like: expected it bare; in a URL write it as %XX")
      wrong[$name]=1
    elif [[ -z ${!name:-} ]]; then
      export "$name=$value"
    fi
    seen[$name]=1
  fi
done <"$file"

for name in "${!required[@]}"; do
  [[ -n ${!name:-} || -n ${wrong[$name]+x} ]] || problems+=("$file has no value for $name: expected one, for example $name=${known[$name]}")
done

if [[ ${#problems[@]} -gt 0 ]]; then
  printf '%s\n' "${problems[@]}" | sort -V >&2
  exit 2
fi

# For who has to hand them on through sudo.
ENV_NAMES=$(IFS=,; echo "${!known[*]}")
export ENV_NAMES
exec "$@"
