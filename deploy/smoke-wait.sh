#!/usr/bin/env bash
# The part of smoke.sh that runs on VM3, which it is sent to: smoke-wait.sh ID SECONDS URL. Says "ready" and its time once
# the processor answers at URL, then each collection when the document with that event_id is in it. Standard input: lines
# for curl (a token, which is to stand in no list of processes), an empty one, and then, once the events are sent, any
# other line, from which on it waits so many seconds. At the end of input it ends.
id=$1 seconds=$2 url=$3 curl_lines=''
while IFS= read -r line && [[ -n $line ]]; do curl_lines+=$line$'\n'; done

ask() {
  curl -sS -k --max-time 5 -K - "$url$1" <<<"$curl_lines" 2>&1
}

from=$(date -u +%FT%TZ) deadline='' missing='gpu_metrics token_usage'
answer=$(ask /livez) || { echo "no $answer" && exit; }
echo "ready $from"
while [[ -n $missing ]] && ((SECONDS < ${deadline:-300})); do
  left=''
  for collection in $missing; do
    answer=$(ask "/api/v1/events?collection=$collection&host=smoke&from=$from&limit=1000")
    if [[ $answer == *"\"event_id\":\"$id\""* ]]; then echo "$collection"; else left+=" $collection"; fi
  done
  missing=$left
  if [[ -n $deadline ]]; then
    sleep 0.1
  elif read -r -t 0.1; then
    deadline=$((SECONDS + seconds))
  elif (($? <= 128)); then
    exit # The end of input: nobody listens any more.
  fi
done
[[ -n $missing ]] || exit 0
echo "VM3 answered last: $(head -c 300 <<<"$answer" | tr '\n' ' ')"
echo "VM3 /health: $(ask /health | head -c 1000 | tr '\n' ' ')"
