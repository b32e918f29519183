"""The history of a run: it and those before it, a square a test, a line a program.  Pure.

Only the kernels of the run itself are looked at: another run may have had others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from vmtest.model.results import Status
from vmtest.model.text import one_line
from vmtest.report.html.spark import Spark, spark
from vmtest.report.table import tone_of
from vmtest.runs.past import SIGNS, Past

_SIGNS = {
    "PASSED": "✓",
    "FAILED": "F",
    "COLLECTED": "c",
    "NO_TESTS": "-",
    "BOOT_FAILED": "B",
    "PANICKED": "P",
    "TIMED_OUT": "T",
    "LOST": "L",
    "SPLAT": "S",
    "INFRA_ERROR": "I",
    "CANCELLED": "C",
}
_BAD = frozenset("FEXL")
_PASSED, _FAILED = frozenset("PfX"), frozenset("FELx")  # what the test did, known failure or not
_DID = {ord(one): "1" if one in _PASSED else "0" if one in _FAILED else " " for one in SIGNS}
_MOST_FLAKY, _MOST_COSTS = 100, 300
_MOST_MIXED = 5000
_FLIPS = 2

_LEGEND = {  # of a test's squares, by the letter of ``_sign``
    "P": "✓: passed on at least one kernel, failed on none",
    "F": "F: failed on every kernel that ran it",
    "M": "±: failed on some kernels, not on others",
    "f": "f: passed only when repeated",
    "x": "x: failed, as known",
    "s": "s: skipped or not applicable",
    "c": "c: only listed",
    "-": "-: not run",
    " ": "empty: not in that run on these kernels",
}

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Column:
    """A run: ``when`` is short enough to head a column, ``href`` its page, "" where none is."""

    run: str
    when: str
    about: str
    good: bool
    href: str


@dataclass(frozen=True, slots=True)
class Square:
    """What became of a kernel or a test in a run."""

    sign: str
    tone: str
    title: str


@dataclass(frozen=True, slots=True)
class Flaky:
    """A test that changes its mind.

    ``flips`` is how often it went from passed to failed or back from one run on a branch to the
    next, on the kernel where that is most; ``same`` counts those between two runs of the same
    commit, ``repeated`` the runs in which it passed only when repeated.
    """

    test: Key
    kernels: tuple[str, ...]
    flips: int
    same: int
    repeated: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a program cost in each run, on the kernel where it costs most now."""

    object: str
    program: str
    kernel: str
    first: int
    now: int
    spark: Spark

    @property
    def percent(self) -> float:
        """The change from the first run to the last, in percent."""
        return 100.0 * (self.now - self.first) / self.first


@dataclass(frozen=True, slots=True)
class History:
    """Several runs side by side, the newest last."""

    columns: tuple[Column, ...]
    kernels: tuple[tuple[str, tuple[Square, ...]], ...]
    flaky: tuple[Flaky, ...]
    prices: tuple[Price, ...]
    tests: Mapping[Key, tuple[str, ...]]

    @property
    def legend(self) -> str:
        """``F: FAILED, P: PANICKED``: the signs of the kernels' squares that need a word."""
        told = {
            square.sign or "empty": square.title if square.sign else "not in that run"
            for _, squares in self.kernels
            for square in squares
            if square.sign != _SIGNS["PASSED"]
        }
        return ", ".join(f"{sign}: {title}" for sign, title in sorted(told.items()))

    @property
    def legend_of_tests(self) -> str:
        """``F: failed on every kernel that ran it. -: not run``: the signs that are there."""
        there = {_sign(cell) for cells in self.tests.values() for cell in cells}
        return ". ".join(words for letter, words in _LEGEND.items() if letter in there)

    def squares(self, keys: Iterable[Key]) -> dict[str, Any]:
        """What the page's script draws: a row for each of ``keys``, in their order.

        A row has a letter a run.  ``M`` is a run in which the test failed on some kernels only:
        then the row has the number of the text in ``mixed`` with a letter a kernel, by run.
        """
        mixed: dict[str, int] = {}
        rows = []
        for key in keys:
            cells = self.tests.get(key, ())
            signs = "".join(map(_sign, cells))
            told = {}
            for n, sign in enumerate(signs):
                if sign == "M" and (cells[n] in mixed or len(mixed) < _MOST_MIXED):
                    told[n] = mixed.setdefault(cells[n], len(mixed))
            rows.append([signs, told] if told else [signs])
        return {
            "runs": [[column.run, column.when, column.about] for column in self.columns],
            "kernels": [name for name, _ in self.kernels],
            "rows": rows,
            "mixed": list(mixed),
        }


def history(runs: Sequence[Past], pages: Mapping[str, str]) -> History | None:
    """The last of ``runs`` and those before it; None where it is the only one.

    ``pages`` has links to the pages of runs.
    """
    if len(runs) < 2:
        return None
    names = tuple(dict.fromkeys(name for name, _ in runs[-1].kernels))
    places = [{name: n for n, (name, _) in enumerate(run.kernels)} for run in runs]
    at = [[place.get(name, -1) for name in names] for place in places]
    tests = _tests(runs, at)
    return History(
        columns=tuple(_column(run, pages.get(run.run, "")) for run in runs),
        kernels=tuple(_kernels(runs, names)),
        flaky=tuple(_flaky(runs, names, tests)),
        prices=tuple(_prices(runs, names, places)),
        tests=tests,
    )


def _column(run: Past, href: str) -> Column:
    facts = (
        run.run,
        f"exit {run.status}",
        f"branch {run.branch}" if run.branch else "",
        f"commit {run.commit[:12]}{' and changed files' if run.dirty else ''}" * bool(run.commit),
    )
    when = run.started[5:16].replace("T", " ")
    return Column(
        run.run, one_line(when) or "-", ", ".join(filter(None, facts)), not run.status, href
    )


def _kernels(
    runs: Sequence[Past], names: Sequence[str]
) -> Iterable[tuple[str, tuple[Square, ...]]]:
    said = [dict(run.kernels) for run in runs]
    for name in names:
        yield name, tuple(_status(of.get(name, "")) for of in said)


def _status(status: str) -> Square:
    if status not in _SIGNS:
        return Square("", "quiet", "not in this run")
    return Square(_SIGNS[status], tone_of(Status(status)).value, status)


def _tests(runs: Sequence[Past], at: Sequence[Sequence[int]]) -> dict[Key, tuple[str, ...]]:
    """A letter a kernel for each run, by test of the last one."""
    found = []
    for run, places in zip(runs, at, strict=True):
        whole = places == list(range(len(run.kernels)))
        found.append(
            {
                (suite, test): letters if whole else _picked(letters, places)
                for suite, test, letters in run.tests
            }
        )
    nothing = " " * len(at[-1])
    return {key: tuple(of.get(key, nothing) for of in found) for key in found[-1]}


def _picked(letters: str, places: Sequence[int]) -> str:
    return "".join(letters[n] if n >= 0 else " " for n in places)


@lru_cache(maxsize=10_000)
def _sign(letters: str) -> str:
    """One letter for all kernels: ``F`` failed on each that ran it, ``M`` on some of them."""
    told = set(letters) - {" ", "-"}
    if not told:
        return "-" if "-" in letters else " "
    if told & _BAD:
        return "F" if told <= _BAD else "M"
    return next((one for one in "fPx" if one in told), "s" if told & {"s", "n"} else "c")


def _flaky(
    runs: Sequence[Past], names: Sequence[str], tests: Mapping[Key, tuple[str, ...]]
) -> list[Flaky]:
    """The tests that flip, those that flip most first."""
    branches = [
        [n for n, run in enumerate(runs) if run.branch == branch]
        for branch in dict.fromkeys(run.branch for run in runs)
    ]
    found = []
    for key, cells in tests.items():
        letters = set().union(*cells)
        if not ((letters & _PASSED and letters & _FAILED) or "f" in letters):
            continue
        lines = ["".join(of) for of in zip(*(cell.translate(_DID) for cell in cells), strict=True)]
        flips = [_flips(branches, line) for line in lines]
        most = max(flips, default=0)
        worst = [n for n, count in enumerate(flips) if count == most > 0]
        same = max((_same(runs, branches, lines[n]) for n in worst), default=0)
        again = sum("f" in cell for cell in cells)
        if most >= _FLIPS or same or again:
            where = worst if most else [n for n, _ in enumerate(names) if _repeated(cells, n)]
            found.append(Flaky(key, tuple(names[n] for n in where), most, same, again))
    found.sort(key=lambda one: (-one.flips, -one.same, -one.repeated))
    return found[:_MOST_FLAKY]


def _repeated(cells: Sequence[str], kernel: int) -> bool:
    return any(cell[kernel] == "f" for cell in cells)


def _flips(branches: Sequence[Sequence[int]], line: str) -> int:
    """How often a test flipped on one kernel; ``line`` has 1, 0 or a blank a run."""
    if "0" not in line or "1" not in line:
        return 0
    flips = 0
    for places in branches:
        told = "".join([line[n] for n in places]).replace(" ", "")
        flips += told.count("01") + told.count("10")
    return flips


def _same(runs: Sequence[Past], branches: Sequence[Sequence[int]], line: str) -> int:
    """How many of the flips were between two runs of the same commit, without other changes."""
    count = 0
    for places in branches:
        for old, new in pairwise(n for n in places if line[n] != " "):
            one, two = runs[old], runs[new]
            alike = one.commit and one.commit == two.commit and not (one.dirty or two.dirty)
            count += bool(alike) and line[old] != line[new]
    return count


def _prices(
    runs: Sequence[Past], names: Sequence[str], places: Sequence[Mapping[str, int]]
) -> list[Price]:
    """The programs whose cost is known now and was before, those that changed most first."""
    costs = [{(name, program): (signs, of) for name, program, signs, of in r.loads} for r in runs]
    found = []
    for (name, program), (signs, now) in costs[-1].items():
        paid = [cost if sign == "P" else 0 for sign, cost in zip(signs, now, strict=True)]
        if not program or not max(paid, default=0):
            continue
        kernel = runs[-1].kernels[paid.index(max(paid))][0]
        line: list[int | None] = []
        for of, place in zip(costs, places, strict=True):
            letters, numbers = of.get((name, program), ("", ()))
            n = place.get(kernel, -1)
            known = n >= 0 and bool(letters) and letters[n] == "P" and numbers[n] > 0
            line.append(numbers[n] if known else None)
        told = [cost for cost in line if cost is not None]
        if len(told) > 1:
            found.append(Price(name, program, kernel, told[0], told[-1], spark(line)))
    found.sort(key=lambda price: -abs(price.percent))
    return found[:_MOST_COSTS]
