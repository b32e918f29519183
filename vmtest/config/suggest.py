"""What a misspelt word may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence


def suggestion(word: str, known: Sequence[str] | Mapping[str, object] | set[str]) -> str:
    """`` (did you mean "x"?)`` when ``known`` has something close, else what there is."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    if close:
        return f' (did you mean "{close[0]}"?)'
    return f" (there are: {', '.join(sorted(known))})" if known else ""
