"""A traceback of pytest's in few lines: frames outside of the project go first.  Pure.

A helper that fails deep in the standard library must not hide the line of the project that called
it: that is the one to look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from vmtest.model.results import TestResult
from vmtest.report.assertions import middle, squeezed
from vmtest.report.table import split_node_id
from vmtest.report.text import counted, last_lines

_UNLIMITED = 1_000_000
_BETWEEN = re.compile(r"^_( _)+ *$|^(During handling of|The above exception was) .*:$")
_SHORT = re.compile(r"^(\S[^:\n]*):\d+: in ")
_PLACE = re.compile(r"^(\S[^:\n]*):\d+:(?: \w*)?$")
_ERROR = re.compile(r"^E( |$)")
_CAME_FROM = re.compile(r"^(?:During handling of|The above exception was) .*:$", re.MULTILINE)
_ENTRY = re.compile(r"^(\S[^:\n]*):(\d+):(?: \w*| in .*)?$", re.MULTILINE)


def own_place(test: TestResult) -> str:
    """``FILE:LINE`` in the file of ``test`` itself that led to where it failed.

    "" where the traceback does not say so, as when a fixture of another file failed.
    """
    file = split_node_id(test.test)[0]
    for text in (*reversed(_CAME_FROM.split(test.details)), ""):
        for path, line in _ENTRY.findall(text) if file else ():
            if path == file or path.endswith(f"/{file}"):
                return f"{path}:{line}"
    return ""


def last_of_traceback(text: str, lines: int, columns: int = 1000) -> tuple[list[str], int]:
    """The last ``lines`` lines of ``text`` as ``last_lines`` gives them.

    Where there is no room for all, pytest's full diff of two values is left out, and frames outside
    of the project are a line each, with the error and its place.  The innermost frame of the
    project stays.  A line of more than ``columns`` characters loses its middle.
    """
    every = [_narrow(line, columns) for line in last_lines(text, _UNLIMITED, _UNLIMITED)[0]]
    if len(every) > lines:
        every = list(_without_diff(every))
    if len(every) > lines and "\n/" in f"\n{text}":
        frames = list(_frames(every))
        if any(_is_outside(frame) is False for frame in frames):
            told = _without_others(frames, max(1, lines // 3))
            every = [line for frame in told for line in frame]
    left_out = max(0, len(every) - lines)
    return every[left_out:], left_out


def _narrow(line: str, columns: int) -> str:
    return line if len(line) <= columns else middle(squeezed(line), columns)


def _without_diff(rows: Iterable[str]) -> Iterator[str]:
    """``rows`` without what pytest says below ``Full diff:``, which it has said in short before."""
    left_out = 0
    begun = False
    for row in rows:
        begun = bool(_ERROR.match(row)) and (begun or row[1:].strip() == "Full diff:")
        if begun:
            left_out += 1
            continue
        if left_out:
            yield f"... {counted(left_out, 'line')} of pytest's full diff left out"
            left_out = 0
        yield row
    if left_out:
        yield f"... {counted(left_out, 'line')} of pytest's full diff left out"


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
