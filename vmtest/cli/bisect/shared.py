"""What every bisect shows on the command line, be it over packages or over commits."""

from __future__ import annotations

import math
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vmtest.bisect import render as words
from vmtest.bisect import rounds as bisection
from vmtest.bisect.journal import Recorded
from vmtest.bisect.observe import Observation
from vmtest.bisect.question import Find, Standing
from vmtest.cli import complete
from vmtest.cli.common import say
from vmtest.cli.look import PLAIN
from vmtest.model.events import Event
from vmtest.report import live
from vmtest.verify import types

GoodOption = Annotated[
    str,
    typer.Option(
        metavar="A",
        help="The good end: a kernel, or a revision of a tree.",
        autocompletion=complete.kernel_names,
    ),
]
BadOption = Annotated[
    str,
    typer.Option(
        metavar="B",
        help="The bad end: a kernel, or a revision of a tree.",
        autocompletion=complete.kernel_names,
    ),
]
FindOption = Annotated[
    Find,
    typer.Option(
        help="Find the first kernel that fails (broken), or the first that works again (fixed)."
    ),
]
CachedOption = Annotated[
    bool, typer.Option("--cached", help="Use only kernels in the cache; download nothing.")
]
ArchiveOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=r"The archive to search, if there are several: NAME of \[apt.NAME], \[dnf.NAME] or "
        r"\[oci.NAME], or mainline.",
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume", help="Continue the last interrupted bisect of the same question."),
]
VerifyOption = Annotated[
    str | None,
    typer.Option(
        metavar="OBJECT[:PROGRAM]",
        help="Instead of running suites, test whether this object (or program) loads.",
    ),
]
TypeOption = Annotated[
    list[str] | None,
    typer.Option("--type", metavar=types.METAVAR, help=f"With --verify: set {types.HELP}"),
]
LoaderOption = Annotated[
    str | None,
    typer.Option(
        metavar="libbpf|cilium[@VERSION]",
        help="With --verify: load with libbpf (the default) or with cilium/ebpf, as for verify.",
    ),
]
ExecOption = Annotated[
    str | None,
    typer.Option(
        "--exec",
        metavar="CMD",
        help="Instead of running suites, test whether this command ends with status 0.",
    ),
]
CopyOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE|DIR[:GUESTPATH]",
        help="With --exec: copy a file or folder into the guest; without GUESTPATH into the "
        "working folder.",
    ),
]
ResultsOption = Annotated[
    str | None,
    typer.Option(
        metavar="gotest|tap|junit:PATH",
        help="With --exec: read test results from the command's output, or from a JUnit file.",
    ),
]
RepeatOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="Test each kernel this many times. A kernel that is both good and bad is flaky.",
    ),
]
AnyFailureOption = Annotated[
    bool,
    typer.Option(
        "--any-failure",
        help="Count every failure as bad, not only those that the bad end has.",
    ),
]
KconfigOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Add this config fragment to vmtest's own config."),
]


class Display:
    """Prints where a bisect stands, and each round's VMs live.

    ``slots`` points are asked at once, ``among`` is what the ends are ends of.
    """

    def __init__(self, recorded: Recorded, slots: int, among: str) -> None:
        self._recorded = recorded
        self._slots = slots
        self._among = among
        self._view: live.View | None = None
        self._told: list[tuple[int, int, Observation]] = []
        self._meant = False
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
        self._told.append((place, attempt, one))

    def handle(self, event: Event) -> None:
        """Show an event of the round that runs."""
        assert self._view is not None
        self._view.handle(event)

    def during(
        self, probe: bisection.Ask, points: tuple[int, ...], attempt: int, told: bisection.Told
    ) -> None:
        """Ask ``points`` by ``probe`` with a live view of its own."""
        began = time.monotonic()
        self._view = PLAIN.view(sys.stdout)
        try:
            with self._view:
                probe(points, attempt, told)
        finally:
            self._say_told()
        # The ends may have had to wait for each other.
        self._took.append((time.monotonic() - began) / math.ceil(len(points) / self._slots))

    def _say_told(self) -> None:
        """Say what was told: only now it may be known how the bad end fails."""
        recorded = self._recorded
        question, way = recorded.question, recorded.way
        for place, attempt, one in self._told:
            label = question.points[place].label
            say(f"  {words.observed(label, attempt, question.repeat, one, way)}")
        self._told.clear()
        if way and not self._meant:
            self._meant = True
            say(words.meaning(way, question.points[recorded.bad].name))


@contextmanager
def resumable(*exceptions: type[BaseException]) -> Iterator[None]:
    """Say how to go on with a bisect that one of ``exceptions`` ends."""
    try:
        yield
    except exceptions:
        arguments = [word for word in sys.argv[1:] if word != "--resume"]
        say(f"to go on: {shlex.join(['vmtest', *arguments, '--resume'])}")
        raise
