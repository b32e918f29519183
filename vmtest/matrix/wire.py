"""What our own code in a guest says, line by line: validated here, once, and nowhere else.

The guest's side is ``vmtest/guest/wire.py``.  A suite runs in the very process that reports, as
root: nothing that comes is believed to be what we would send.  The first line is a ``hello`` with
a key that all others must have as well, so that what a test writes to a descriptor that it did not
open is not taken for a result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vmtest.errors import BadLine
from vmtest.model.text import one_line

_SHOWN = 120  # characters of a bad line
_LARGEST_PID = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h
_KEY = re.compile(r"[0-9a-f]{16}")

Text = Annotated[str, Field(max_length=1 << 20)]
"""Text of an event that has no larger bound of its own."""


class Event(BaseModel):
    """What every line has: no other type for a value, no other key, no infinite number."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    key: str = Field(min_length=16, max_length=16)


class Hello(Event):
    """The process that owns the wire from here on."""

    event: Literal["hello"]
    pid: int = Field(ge=1, le=_LARGEST_PID)


E = TypeVar("E", bound=Event)


class Lines:
    """Splits what comes into lines and makes events of them.

    ``number`` is that of the last line, from 1.  ``limit`` is the most bytes of one line.
    """

    def __init__(self, limit: int) -> None:
        self.number = 0
        self._limit = limit
        self._rest = bytearray()
        self._key = ""

    def feed(self, data: bytes, events: TypeAdapter[E]) -> Iterator[E]:
        """The events whose lines end in ``data``; raises BadLine, and nothing else."""
        start = 0
        # A line can be a log of many megabytes: only what is new is searched for its end.
        while (end := data.find(b"\n", start)) >= 0:
            self._rest += data[start:end]
            start = end + 1
            line, self._rest = bytes(self._rest), bytearray()
            self.number += 1
            yield self._event(line, events)
        self._rest += data[start:]
        if len(self._rest) > self._limit:
            self.number += 1
            line, self._rest = bytes(self._rest[: self._limit]), bytearray()
            raise self.bad(line, f"has more than {self._limit} bytes")

    def _event(self, line: bytes, events: TypeAdapter[E]) -> E:
        if len(line) > self._limit:
            raise self.bad(line, f"has more than {self._limit} bytes")
        try:
            event = events.validate_json(line)
        except ValidationError as error:
            raise self.bad(line, _why(error)) from None
        if isinstance(event, Hello):
            if self._key:
                raise self.bad(line, "is a second hello")
            if not _KEY.fullmatch(event.key):
                raise self.bad(line, "has a key that none of ours has")
            self._key = event.key
        elif not self._key:
            raise self.bad(line, "comes before hello")
        elif event.key != self._key:
            raise self.bad(line, "has another key: it was not written by the process that reports")
        return event

    def bad(self, line: bytes | str, why: str) -> BadLine:
        """The error that ``line``, the last one, is; not raised yet."""
        # Enough to fill what is shown, whatever is cut out of it.
        text = line[: 8 * _SHOWN]
        shown = text.decode(errors="backslashreplace") if isinstance(text, bytes) else text
        shown = one_line(shown, _SHOWN) or "(empty)"
        return BadLine(f"line {self.number} of what the guest sent {why}: {shown}")


def _why(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]
    if first["type"] == "json_invalid":
        return f"is not JSON ({one_line(first['msg'].removeprefix('Invalid JSON: '), 80)})"
    # Names of keys are the guest's where they are unknown to the schema.
    place = one_line(".".join(map(str, first["loc"])), 60)
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"is not an event ({f'{place}: ' if place else ''}{one_line(message, 100)})"
