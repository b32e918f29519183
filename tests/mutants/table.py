"""The result as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.mutants.operators import OPERATORS, Mutant
from tests.mutants.survivors import entry
from tests.mutants.verdicts import AIM, Comparison, Judged, Tally, Verdict

_COLUMNS = tuple(Verdict)


def render(mutants: Sequence[Mutant], judged: Mapping[str, Judged]) -> str:
    """A row an operator, a row a file, and the sum."""
    files = list(dict.fromkeys(mutant.file for mutant in mutants))
    used = [name for name in OPERATORS if any(m.operator == name for m in mutants)]
    rows = [_row(name, [m for m in mutants if m.operator == name], judged) for name in used]
    rows += [()]
    rows += [_row(name, [m for m in mutants if m.file == name], judged) for name in files]
    rows += [(), _row("all", mutants, judged)]
    head = ("", "made", *(verdict.value for verdict in _COLUMNS), "score")
    widths = [max(len(line[i]) for line in [head, *rows] if line) for i in range(len(head))]
    return "\n".join(_line(line, widths) for line in [head, (), *rows])


def _row(name: str, mutants: Sequence[Mutant], judged: Mapping[str, Judged]) -> tuple[str, ...]:
    tally = Tally.of(judged[mutant.id] for mutant in mutants if mutant.id in judged)
    counts = (str(tally.counts.get(verdict, 0) or "") for verdict in _COLUMNS)
    return (name, str(tally.made), *counts, f"{tally.score:.1%}" if tally.counted else "")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    if not cells:
        return ""
    name, *rest = cells
    numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
    return f" {name.ljust(widths[0])}  {'  '.join(numbers)}".rstrip()


def remarks(judged: Mapping[str, Judged], comparison: Comparison) -> str:
    """What is to be done, and the verdict on the suites."""
    lines = []
    if comparison.unlisted:
        lines += ["", "Survivors that survivors.toml does not list; add a test, or the reason:", ""]
        lines += [entry(mutant) for mutant in comparison.unlisted]
    for known in comparison.killed:
        verdict = judged[known.id].verdict
        lines.append(f"survivors.toml: {known.id} is {verdict} now, take it out: {known.mutant}")
    for known in comparison.absent:
        lines.append(f"survivors.toml: {known.id} does not exist any more: {known.mutant}")
    tally = Tally.of(judged.values())
    killed = tally.counts.get(Verdict.KILLED, 0)
    lines += [
        "",
        f"{killed} of {tally.counted} killed: {tally.score:.1%} (aim {AIM:.0%}); "
        f"{len(comparison.unlisted)} survivors not listed",
    ]
    return "\n".join(lines)
