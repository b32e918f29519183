"""What each line of the source cost the verifiers, as reports show it.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vmtest.model.loads import LoadResult, SourceLine
from vmtest.model.results import KernelResult, Matrix
from vmtest.model.text import one_line

ROWS = 40
"""Lines of the source that are shown of a program."""
CELLS = 20_000
"""Cells of all tables together."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the source: how often each kernel's verifier read it, None where it is not told.

    ``shares`` are parts of what that verifier read of the program, in percent.
    """

    place: str
    text: str
    visits: tuple[int | None, ...]
    shares: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The largest share."""
        return max(self.shares)


@dataclass(frozen=True, slots=True)
class Program:
    """A program with the lines that cost most, the worst first.

    ``totals`` are what each of ``kernels`` read of it, ``cut`` the kernels whose log was cut,
    ``left_out`` how many lines are not shown.
    """

    label: str
    kernels: tuple[str, ...]
    totals: tuple[int, ...]
    rows: tuple[Row, ...]
    left_out: int
    cut: tuple[str, ...]


def programs(matrix: Matrix) -> tuple[Program, ...]:
    """Every program of which lines are known, those that cost most first."""
    of: dict[tuple[str, str], list[tuple[KernelResult, LoadResult]]] = {}
    for kernel in matrix.kernels:
        for load in kernel.loads:
            if load.visits is not None and load.visits.lines:
                of.setdefault((load.object, load.program), []).append((kernel, load))
    found = [_program(loads) for loads in of.values()]
    return tuple(sorted(found, key=lambda program: -max(program.totals)))


def shown(found: Sequence[Program]) -> tuple[Program, ...]:
    """As many of ``found``, from the first on, as a page has room for."""
    room, kept = CELLS, []
    for program in found:
        room -= len(program.rows) * len(program.kernels)
        if room < 0:
            break
        kept.append(program)
    return tuple(kept)


def worst(found: Iterable[Program], most: int) -> list[str]:
    """The lines that cost most of all, in words."""
    rows = [
        (max(v or 0 for v in row.visits), row, program) for program in found for row in program.rows
    ]
    rows.sort(key=lambda one: -one[0])
    return [_words(row, program) for _, row, program in rows[:most]]


def _words(row: Row, program: Program) -> str:
    times, kernel, share = max(
        (visits or 0, kernel, share)
        for visits, kernel, share in zip(row.visits, program.kernels, row.shares, strict=True)
    )
    where = f"{row.place}: {row.text}" if row.place and row.text else row.place or row.text
    whose = f"{program.label} on {kernel}"
    return one_line(f"{times:,} ({share:.0f}%) {where} ({whose})", 500)


def _program(loads: Sequence[tuple[KernelResult, LoadResult]]) -> Program:
    totals = tuple(load.visits.total if load.visits else 0 for _, load in loads)
    lines: dict[tuple[str, str], dict[int, int]] = {}
    placed = _placed(loads)
    for number, (_, load) in enumerate(loads):
        for line in load.visits.lines if load.visits else ():
            key = line.place or placed.get(line.text, ""), line.text
            cells = lines.setdefault(key, {})
            cells[number] = cells.get(number, 0) + line.visits
    rows = [_row(key, cells, totals) for key, cells in lines.items()]
    rows.sort(key=lambda row: (-row.worst, row.place, row.text))
    beyond = max(load.visits.left_out if load.visits else 0 for _, load in loads)
    return Program(
        loads[0][1].label,
        tuple(kernel.kernel for kernel, _ in loads),
        totals,
        tuple(rows[:ROWS]),
        max(0, len(rows) - ROWS) + beyond,
        tuple(kernel.kernel for kernel, load in loads if load.log_cut),
    )


def _placed(loads: Iterable[tuple[KernelResult, LoadResult]]) -> Mapping[str, str]:
    """The place of each text that has only one: kernels before 6.8 tell the text alone."""
    places: dict[str, set[str]] = {}
    for _, load in loads:
        lines: tuple[SourceLine, ...] = load.visits.lines if load.visits else ()
        for line in lines:
            if line.place:
                places.setdefault(line.text, set()).add(line.place)
    return {text: next(iter(of)) for text, of in places.items() if len(of) == 1}


def _row(key: tuple[str, str], cells: Mapping[int, int], totals: Sequence[int]) -> Row:
    visits = tuple(cells.get(number) for number in range(len(totals)))
    shares = tuple(
        100.0 * (count or 0) / total if total else 0.0
        for count, total in zip(visits, totals, strict=True)
    )
    return Row(*key, visits, shares)
