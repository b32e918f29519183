"""What to do about a failure, where a note of its matrix tells.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

LACKS = "the guest has no Python module"
"""How the note about modules begins."""
_LACKING = re.compile(r"\bModuleNotFoundError: No module named '([A-Za-z_]\w*)")


def lacking(message: str) -> Iterator[str]:
    """The Python modules that a failure with ``message`` did not find."""
    return iter(_LACKING.findall(message))


def cure_of(message: str, notes: Iterable[str]) -> str:
    """The one of a matrix's ``notes`` that is about a failure with ``message``; "" for none."""
    for module in lacking(message):
        named = re.compile(rf"{LACKS} [^:]*\b{module}\b")
        if found := next(filter(named.match, notes), ""):
            return found
    return ""
