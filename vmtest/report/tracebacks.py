"""A traceback of pytest's in few lines: frames outside of the project go first.  Pure.

A helper that fails deep in the standard library must not hide the line of the project that called
it: that is the one to look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vmtest.report.text import counted, last_lines

_UNLIMITED = 1_000_000
_BETWEEN = re.compile(r"^_( _)+ *$|^(During handling of|The above exception was) .*:$")
_SHORT = re.compile(r"^(\S[^:\n]*):\d+: in ")
_PLACE = re.compile(r"^(\S[^:\n]*):\d+:(?: \w*)?$")
_ERROR = re.compile(r"^E( |$)")


def last_of_traceback(text: str, lines: int, columns: int = 1000) -> tuple[list[str], int]:
    """The last ``lines`` lines of ``text`` as ``last_lines`` gives them.

    Where there is no room for all, frames outside of the project are a line each, with the error
    and its place.  The innermost frame of the project stays.
    """
    every, _ = last_lines(text, _UNLIMITED, columns)
    if len(every) <= lines:
        return every, 0
    kept = [line for frame in _without_others(every, max(1, lines // 3)) for line in frame]
    left_out = max(0, len(kept) - lines)
    return kept[left_out:], left_out


def _without_others(rows: Sequence[str], errors: int) -> Iterator[list[str]]:
    for frame in _frames(rows):
        if not _is_outside(frame):
            yield frame
            continue
        told = [line for line in frame if _ERROR.match(line)]
        told = [*told[-errors:], *(line for line in frame if _PLACE.match(line))]
        # A separator in front belongs to what follows it.
        head = frame[:1] if _BETWEEN.match(frame[0]) else []
        cut = len(frame) - len(told) - len(head)
        said = [f"... {counted(cut, 'line')} outside of the project left out"] if cut > 1 else []
        yield [*head, *said, *told] if said else frame


def _frames(rows: Sequence[str]) -> Iterator[list[str]]:
    """The frames in order; all lines are in one, and one begins with what separates it."""
    frame: list[str] = []
    for row in rows:
        if frame and (_BETWEEN.match(row) or _SHORT.match(row)) and not _only_begun(frame):
            yield frame
            frame = []
        frame.append(row)
    if frame:
        yield frame


def _only_begun(frame: Sequence[str]) -> bool:
    return all(_BETWEEN.match(line) or not line for line in frame)


def _is_outside(frame: Sequence[str]) -> bool:
    """Whether its file is not one of the project, whose files have relative paths."""
    places = [found[1] for line in frame if (found := _PLACE.match(line) or _SHORT.match(line))]
    return bool(places) and all(place.startswith(("/", "..")) for place in places)
