"""What every bisect shows on the command line, be it over packages or over commits."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vmtest.bisect import render as words
from vmtest.bisect import rounds as bisection
from vmtest.bisect.journal import Recorded
from vmtest.bisect.observe import Observation
from vmtest.bisect.question import Standing
from vmtest.cli.common import say
from vmtest.errors import UsageError
from vmtest.model.events import Event
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.report import live
from vmtest.runs import matrix_json
from vmtest.runs.folder import RunFolder
from vmtest.runs.read import read_matrix
from vmtest.verify import types

SuiteOption = Annotated[list[str] | None, typer.Option(help="Which suites; default all.")]
TestsOption = Annotated[str | None, typer.Option("-k", help="As in pytest.")]
VerifyOption = Annotated[
    str | None,
    typer.Option(metavar="OBJECT[:PROGRAM]", help="Does this load? Instead of suites."),
]
TypeOption = Annotated[
    list[str] | None,
    typer.Option("--type", metavar=types.METAVAR, help="With --verify: what libbpf cannot guess."),
]
ExecOption = Annotated[
    str | None,
    typer.Option("--exec", metavar="CMD", help="Does this end with status 0? As vmtest exec."),
]
CopyOption = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE|DIR[:GUESTPATH]", help="With --exec: into its working folder."),
]
ResultsOption = Annotated[
    str | None,
    typer.Option(metavar="gotest|tap|junit:PATH", help="With --exec: tests in its output."),
]
RepeatOption = Annotated[
    int, typer.Option(min=1, help="Ask each kernel so often; one that disagrees is flaky.")
]
KconfigOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Of a tree: a config fragment on top of ours."),
]


def check_kconfig(file: Path | None) -> None:
    """Raise UsageError when the fragment is not there."""
    if file is not None and not file.is_file():
        raise UsageError(f"--kconfig {file}: there is no such file")


class Display:
    """Prints where a bisect stands, and each round's VMs live.

    ``slots`` points are asked at once, ``among`` is what the ends are ends of.
    """

    def __init__(self, recorded: Recorded, slots: int, among: str) -> None:
        self._recorded = recorded
        self._slots = slots
        self._among = among
        self._view: live.View | None = None
        self._told: list[str] = []
        self._took: list[float] = []

    def begins(self, standing: Standing) -> None:
        """Say what a round asks."""
        question = self._recorded.question
        # The first of a tree takes many times as long as the others.
        per_round = question.repeat * statistics.median(self._took) if self._took else 0.0
        labels = [point.label for point in question.points]
        say(words.standing(standing, labels, question.find_fixed, per_round, self._among))

    def told(self, place: int, attempt: int, one: Observation) -> None:
        """Keep what a point said until the live view is gone."""
        question = self._recorded.question
        self._told.append(
            words.observed(question.points[place].label, attempt, question.repeat, one)
        )

    def handle(self, event: Event) -> None:
        """Show an event of the round that runs."""
        assert self._view is not None
        self._view.handle(event)

    def during(
        self, probe: bisection.Ask, points: tuple[int, ...], attempt: int, told: bisection.Told
    ) -> None:
        """Ask ``points`` by ``probe`` with a live view of its own."""
        began = time.monotonic()
        self._view = live.view(sys.stdout)
        try:
            with self._view:
                probe(points, attempt, told)
        finally:
            for line in self._told:
                say(f"  {line}")
            self._told.clear()
        # The ends may have had to wait for each other.
        self._took.append((time.monotonic() - began) / math.ceil(len(points) / self._slots))


def save(folder: RunFolder, matrix: Matrix) -> None:
    """Write the matrix of all that was asked."""
    folder.write("matrix.json", matrix_json.render(matrix))


def results_before(folder: RunFolder, resume: bool) -> tuple[KernelResult, ...]:
    """The results that an interrupted bisect left; one that it was busy with is none."""
    if not resume or not (folder.path / "matrix.json").exists():
        return ()
    found = read_matrix(folder).kernels
    return tuple(result for result in found if result.status is not Status.CANCELLED)


def without_resume(arguments: Sequence[str]) -> list[str]:
    """The arguments of a bisect that is to be gone on with."""
    return [word for word in arguments if word != "--resume"]
