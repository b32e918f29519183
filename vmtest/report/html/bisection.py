"""A bisect as a line of kernels: what each said, and in which round.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from vmtest.report.text import counted

_LOOKS = {
    "good": ("✓", "good"),
    "bad": ("F", "bad"),
    "flaky": ("~", "warn"),
    "skip": ("?", "warn"),
    "other": ("≠", "warn"),
}
_WORDS = {"other": "failed another way"}
_MOST = 400


@dataclass(frozen=True, slots=True)
class Stop:
    """A kernel or commit on the line.

    ``verdict`` is good, bad, skip, flaky or other (it failed another way), and "" for one that was
    not asked; ``round`` is the first in which it was, 0 for none; ``why`` is one line, ``about`` a
    commit's subject.
    """

    name: str
    verdict: str = ""
    round: int = 0
    why: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Bisection:
    """The stops from the old end to the new one; of a git tree in the order they were asked.

    ``first`` and ``last`` are the names of those between which the change is, "" before that is
    known; ``find_fixed`` says that the change mended something.
    """

    stops: tuple[Stop, ...]
    first: str = ""
    last: str = ""
    find_fixed: bool = False

    @property
    def asked(self) -> tuple[Stop, ...]:
        """The stops that were asked, by round."""
        return tuple(sorted((s for s in self.stops if s.round), key=lambda s: s.round))[:_MOST]

    @property
    def words(self) -> str:
        """``first bad: 6.12.9, last good: 6.12.7``, or how far it got."""
        told = sum(bool(stop.verdict) for stop in self.stops)
        asked = f"{told} of {counted(len(self.stops), 'kernel')} asked"
        if not self.first:
            return f"{asked}, without an answer so far"
        old, new = ("bad", "good") if self.find_fixed else ("good", "bad")
        return f"first {new}: {self.first}, last {old}: {self.last}; {asked}"


@dataclass(frozen=True, slots=True)
class Cell:
    """What a kernel said in a round."""

    sign: str
    tone: str
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """The stops as columns, the rounds as rows; neighbours that were not asked share a column."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def line(found: Bisection) -> Line:
    """``found`` as a table that narrows from round to round."""
    asked = set(found.asked)
    columns: list[tuple[str, Stop | None]] = []
    for is_asked, group in groupby(found.stops, key=lambda stop: stop in asked):
        stops = list(group)
        if is_asked:
            columns += [(stop.name, stop) for stop in stops]
        else:
            columns.append((stops[0].name if len(stops) == 1 else f"{len(stops)} more", None))
    numbers = sorted({stop.round for stop in asked})
    rows = [
        (f"round {number}", tuple(_cell(stop, number) for _, stop in columns)) for number in numbers
    ]
    if found.first:
        rows.append(("answer", tuple(_answer(stop, found) for _, stop in columns)))
    return Line(tuple(name for name, _ in columns), tuple(rows))


_EMPTY = Cell("", "", "")


def _cell(stop: Stop | None, number: int) -> Cell:
    if stop is None or stop.round != number:
        return _EMPTY
    sign, tone = _LOOKS.get(stop.verdict, ("…", "quiet"))
    word = _WORDS.get(stop.verdict, stop.verdict)
    return Cell(sign, tone, f"{word}: {stop.why}" if word else "no answer yet")


def _answer(stop: Stop | None, found: Bisection) -> Cell:
    if stop is None or stop.name not in (found.first, found.last):
        return _EMPTY
    old, new = ("bad", "good") if found.find_fixed else ("good", "bad")
    word = f"first {new}" if stop.name == found.first else f"last {old}"
    return Cell("▲", new if stop.name == found.first else old, word)
