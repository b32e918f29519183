#!/usr/bin/env bash
# The main step of action.yml: its inputs, which are in the environment, as a vmtest command.
set -euo pipefail

words=("$COMMAND" --junit "$JUNIT")

# Each line of $2 that is not blank is a value of the option $1, or an argument where $1 is empty.
each() {
    local line
    while IFS= read -r line; do
        line=${line#"${line%%[![:space:]]*}"}
        line=${line%"${line##*[![:space:]]}"}
        [[ -z $line ]] || words+=(${1:+"$1"} "$line")
    done <<<"$2"
}

each --kernel "$KERNELS"
each --suite "$SUITES"
each --shard "$SHARD"
each --baseline "$BASELINE"
each --fail-on "$FAIL_ON"
if [[ $COMMAND = verify ]]; then
    each "" "$OBJECTS"
else
    each --object "$OBJECTS"
fi
# Quotes as in a shell, and nothing is expanded.
if [[ -n ${ARGUMENTS//[[:space:]]/} ]]; then
    while IFS= read -r -d "" word; do
        words+=("$word")
    done < <(xargs printf '%s\0' <<<"$ARGUMENTS")
fi
exec "$VMTEST" "${words[@]}"
