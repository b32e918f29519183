"""Text of a guest, made safe and short enough to show: pure functions of strings."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len

from vmtest.model.text import printable

_BREAKS = re.compile(r"(?<=[_\-+~/,:])|(?=\[)")


def last_lines(text: str, lines: int, columns: int = 1000) -> tuple[list[str], int]:
    """The last ``lines`` lines of ``text`` made printable, and how many came before them.

    A line is cut to ``columns`` characters, saying how many are missing.
    """
    rows = printable(text).strip("\n").expandtabs(8).split("\n") if text.strip() else []
    left_out = max(0, len(rows) - lines)
    return [_cut(row.rstrip(), columns) for row in rows[left_out:]], left_out


def _cut(line: str, columns: int) -> str:
    if len(line) <= columns:
        return line
    return f"{line[:columns]}… ({len(line) - columns} more characters)"


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width``, broken after ``_ - + ~ /`` where it can be."""
    lines = [""]
    for piece in _BREAKS.split(text):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        while len(piece) > width:
            lines[-1] += piece[:width]
            piece = piece[width:]
            lines.append("")
        lines[-1] += piece
    return [line for line in lines if line] or [""]


def shortened(names: Sequence[str], width: int) -> list[str]:
    """``names`` in ``width`` columns: those that are longer lose their middle.

    What tells two of them apart stays: where that is in the middle, less of the beginning does.
    The last resort is to break a name into lines.
    """
    kept: list[str] = []
    for end in (0.5, 0.7, 0.3):
        tail = round((width - 1) * end)
        kept = [_without_middle(name, width, tail) for name in names]
        if len(set(kept)) == len(set(names)):
            return kept
    return ["\n  ".join(wrapped(name, width - 2)) for name in names]


def _without_middle(name: str, width: int, tail: int) -> str:
    if cell_len(name) <= width:
        return name
    head = name
    while head and cell_len(head) > width - 1 - tail:
        head = head[:-1]
    rest = name[len(head) :]
    while rest and cell_len(rest) > tail:
        rest = rest[1:]
    return f"{head}…{rest}"


def seconds(value: float) -> str:
    """``81.3 s``, ``12 min 05 s``."""
    if value < 599.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def clock(value: float) -> str:
    """``1:21``, ``1:02:05``: for a time that still runs."""
    minutes, rest = divmod(max(0, int(value)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def mebibytes(value: float) -> str:
    """``98.3 MiB``."""
    return f"{value / (1 << 20):.1f} MiB"


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 test``, ``2 tests``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
