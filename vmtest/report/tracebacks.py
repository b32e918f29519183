"""A traceback of pytest's in few lines: frames outside of the project go first.  Pure.

A helper that fails deep in the standard library must not hide the line of the project that called
it: that is the one to look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from vmtest.report.text import counted, last_lines

_UNLIMITED = 1_000_000
_BETWEEN = re.compile(r"^_( _)+ *$|^(During handling of|The above exception was) .*:$")
_SHORT = re.compile(r"^(\S[^:\n]*):\d+: in ")
_PLACE = re.compile(r"^(\S[^:\n]*):\d+:(?: \w*)?$")
_ERROR = re.compile(r"^E( |$)")


def last_of_traceback(text: str, lines: int, columns: int = 1000) -> tuple[list[str], int]:
    """The last ``lines`` lines of ``text`` as ``last_lines`` gives them.

    Where there is no room for all, frames outside of the project are a line each, with the error
    and its place.  The innermost frame of the project stays.  A text without a frame of the project
    is only cut.
    """
    shown, left_out = last_lines(text, lines, columns)
    if not left_out or "\n/" not in f"\n{text}":
        return shown, left_out
    frames = list(_frames(last_lines(text, _UNLIMITED, columns)[0]))
    if all(_is_outside(frame) is not False for frame in frames):
        return shown, left_out
    kept = [line for frame in _without_others(frames, max(1, lines // 3)) for line in frame]
    left_out = max(0, len(kept) - lines)
    return kept[left_out:], left_out


def _without_others(frames: Iterable[list[str]], errors: int) -> Iterator[list[str]]:
    for frame in frames:
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
    begun = False  # whether there is more in it than separators
    for row in rows:
        separates = _BETWEEN.match(row)
        if begun and (separates or _SHORT.match(row)):
            yield frame
            frame, begun = [], False
        frame.append(row)
        begun = begun or bool(row and not separates)
    if frame:
        yield frame


def _is_outside(frame: Sequence[str]) -> bool | None:
    """Whether its file is not one of the project, whose files have relative paths.

    None: it has no place, and need not be a frame at all.
    """
    places = [found[1] for line in frame if (found := _PLACE.match(line) or _SHORT.match(line))]
    return all(place.startswith("/") for place in places) if places else None
