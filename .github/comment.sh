#!/usr/bin/env bash
# Keeps one comment of ours on the pull request: FILE's words, or none where FILE is empty.
# The mark tells it from the comments of other jobs, which are the same user's.
set -euo pipefail

# vmtest did not come so far: what it said before stays.
[[ -n $FILE && -e $FILE ]] || exit 0

mark="<!-- vmtest: $NAME -->"
comments=repos/$GH_REPO/issues/$PR/comments
id=$(gh api --paginate "$comments" |
    jq -r --arg mark "$mark" '.[] | select(.body | startswith($mark)) | .id' | tail -n 1)
if [[ -s $FILE ]]; then
    body=$(printf '%s\n' "$mark" && cat "$FILE")
    if [[ -n $id ]]; then
        gh api --silent --method PATCH "repos/$GH_REPO/issues/comments/$id" --raw-field "body=$body"
    else
        gh api --silent --method POST "$comments" --raw-field "body=$body"
    fi
elif [[ -n $id ]]; then
    gh api --silent --method DELETE "repos/$GH_REPO/issues/comments/$id"
fi
