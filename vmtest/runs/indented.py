"""JSON as ``json.dumps(indent=1, ensure_ascii=False, allow_nan=False)`` has it, in pieces.  Pure.

Python indents without its C encoder, which takes seconds for hundreds of megabytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

_HOLDERS = (dict, list)


def pieces(value: Any, deep: int, line: str = "\n") -> Iterator[str]:
    """``value`` in pieces: of its first ``deep`` levels each member is one or more.

    What comes from an iterator is an array.  ``line`` begins a line of what ``value`` is in.
    """
    if not deep or not isinstance(value, dict | list | Iterator):
        yield _whole(value).replace("\n", line)  # in a string, it is escaped
        return
    members: Iterator[tuple[str, Any]]
    if isinstance(value, dict):
        (begin, end), members = "{}", ((f"{_whole(key)}: ", of) for key, of in value.items())
    else:
        (begin, end), members = "[]", (("", of) for of in value)
    inner = f"{line} "
    sign = begin
    for name, part in members:
        yield f"{sign}{inner}{name}"
        yield from pieces(part, deep - 1, inner)
        sign = ","
    yield begin + end if sign == begin else line + end


def _whole(value: Any) -> str:
    if _has_plain_numbers(value):
        with suppress(PydanticSerializationError):  # of lone surrogates
            return to_json(value, indent=1).decode()
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)


def _has_plain_numbers(value: Any) -> bool:
    """Whether nobody writes a number in it with an exponent, or as NaN."""
    parts = value.values() if isinstance(value, dict) else value
    for part in parts if isinstance(value, _HOLDERS) else (value,):
        if isinstance(part, float):
            if part and not 1e-4 <= abs(part) < 1e16:
                return False
        elif isinstance(part, _HOLDERS) and not _has_plain_numbers(part):
            return False
    return True
