"""``vmtest bisect`` over packaged kernels as a call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vmtest.api.page import leave_page
from vmtest.api.record import facts_of
from vmtest.api.run import Emit, noted, unheard
from vmtest.api.work import WorkRequest, work_of
from vmtest.bisect import rounds
from vmtest.bisect.journal import Journal, Recorded, begin, find_interrupted
from vmtest.bisect.observe import Observation, observation
from vmtest.bisect.packages import archive_of, pinned, question_of
from vmtest.bisect.probes import Matrices, Twice
from vmtest.bisect.question import Conclusion, Find, Question, Work
from vmtest.bisect.rounds import Ask, Told, Watch
from vmtest.bisect.search import Verdict
from vmtest.errors import UsageError
from vmtest.kernels import Store, default_cache
from vmtest.matrix.engine import Engine
from vmtest.matrix.plan import Plan
from vmtest.matrix.slots import memory_available_mib
from vmtest.matrix.slots import slots as slots_of
from vmtest.model.kernels import Archive
from vmtest.model.project import Config
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.runs import folder as runs
from vmtest.runs import matrix_json
from vmtest.runs.folder import RunFolder
from vmtest.runs.read import read_matrix

Judge = Callable[[KernelResult], Verdict]
"""What a kernel's result says; SKIP where it says neither."""
During = Callable[[Ask, tuple[int, ...], int, Told], None]
"""Asks a round's points: calls its first with the rest."""


@dataclass(frozen=True, slots=True)
class BisectRequest:
    """Between which kernels the change is, and how it is looked for.

    ``good`` and ``bad`` are versions (``6.12.117``, ``6.12`` for its newest) or kernels of
    kernels.toml; ``find`` says whether the change broke or fixed it.  Each kernel is asked
    ``repeat`` times, ``jobs`` of them at once (None: as many as there is room for).  ``cached``
    leaves out what would have to be downloaded, ``archive`` chooses one of several ``[apt.NAME]``,
    ``resume`` goes on with the last interrupted bisect that asked the same.  Only what fails as
    the bad end does is bad; ``any_failure`` counts whatever fails.
    """

    good: str
    bad: str
    find: Find = Find.BROKEN
    repeat: int = 1
    jobs: int | None = None
    cached: bool = False
    archive: str | None = None
    resume: bool = False
    accelerator: str = "auto"
    warm: bool | None = None
    any_failure: bool = False


@dataclass(frozen=True, slots=True)
class PlannedBisect:
    """The kernels between the ends as a plan of ``jobs`` at once, and what is known of them."""

    plan: Plan
    jobs: int
    work: Work
    archive: Archive
    recorded: Recorded
    resume: bool


def without_known(settings: Config) -> Config:
    """``settings`` without known failures and flaky tests: a bisect is about what fails."""
    return replace(settings, known_failures=(), flaky=())


def plan_bisect(
    settings: Config, request: BisectRequest, asking: Callable[[], Work]
) -> PlannedBisect:
    """Find the kernels, and make the run's folder or find the interrupted one.

    ``settings`` are without known failures; ``asking`` builds and reads what is asked, once the
    archive is known.  Raises UsageError and InfrastructureError.
    """
    apt = archive_of(settings, request.archive)
    work = asking()
    asked: dict[str, Any] = {
        "good": request.good,
        "bad": request.bad,
        "archive": apt.name,
        "find": request.find.value,
        "repeat": request.repeat,
        "cached": request.cached,
        **counting(request.any_failure),
        **work.asked,
    }
    cache = default_cache()
    recorded, folder = found_or_new(
        settings, asked, request.resume, lambda: question_of(settings, apt, Store(cache), asked)
    )
    kernels = tuple(pinned(settings, apt, point) for point in recorded.question.points)
    cpus = len(os.sched_getaffinity(0))
    slots = request.jobs or slots_of(kernels, cpus, memory_available_mib())
    plan = Plan(
        config=settings,
        kernels=kernels,
        task=work.task,
        files=work.files,
        cache=cache,
        folder=folder,
        suites=work.suites,
        command=work.ran,
        wheels=work.wheels,
        jobs=slots,
        accelerator=request.accelerator,
        warm=request.warm,
    )
    return PlannedBisect(plan, slots, work, apt, recorded, request.resume)


def counting(any_failure: bool) -> dict[str, Any]:
    """What a question says of the failures that count; journals of older versions say nothing."""
    return {"any_failure": True} if any_failure else {}


def found_or_new(
    settings: Config, asked: dict[str, Any], resume: bool, question: Callable[[], Question]
) -> tuple[Recorded, RunFolder]:
    """The interrupted bisect that asked ``asked``, or a new one of ``question``, and its folder."""
    if resume:
        path, recorded = find_interrupted(settings.directory / runs.STATE / "runs", asked)
        return recorded, RunFolder(path)
    return Recorded(question()), runs.create(settings.directory)


def carry_out_bisect(
    planned: PlannedBisect,
    emit: Emit,
    watch: Watch,
    during: During,
    arguments: Sequence[str] = (),
    engine: Engine | None = None,
) -> Conclusion:
    """Ask rounds of kernels until the answer is known.

    Every step is in the folder's ``bisect.jsonl`` before the next begins.  ``emit`` hears the
    events of each round, ``watch`` what is asked and told, ``during`` asks a round, ``engine`` says
    where (None: on this machine).  Raises
    UsageError when the ends do not differ, InfrastructureError when one could not be asked, and
    KeyboardInterrupt when it can be gone on with.
    """
    plan, recorded = planned.plan, planned.recorded
    with closing(Journal.open(plan.folder.path)) as journal, leaving_page(plan.folder, emit):
        if not planned.resume:
            plan.folder.describe(facts_of(plan, arguments))
            begin(journal, recorded.question)
        before = results_before(plan.folder, planned.resume)
        probe = Twice(Matrices(plan, planned.work.judge, emit, save, before, engine=engine))
        asks = partial(during, probe)
        return rounds.bisect(recorded, planned.jobs, asks, journal, watch)


def bisect_packages(
    settings: Config,
    work: WorkRequest,
    request: BisectRequest,
    judge: Judge | None = None,
    emit: Emit = unheard,
) -> Conclusion:
    """Find the first packaged kernel that breaks (or fixes) something.

    ``judge`` says what a kernel's result means, in place of what ``vmtest bisect`` says.  Raises
    as ``carry_out_bisect``.
    """
    settings = without_known(settings)

    def asking() -> Work:
        asked = work_of(settings, work, noted(emit))
        return asked if judge is None else _judged_by(asked, judge)

    planned = plan_bisect(settings, request, asking)
    nobody = Watch(lambda standing: None, lambda place, attempt, one: None)
    return carry_out_bisect(planned, emit, nobody, _asks)


def _asks(probe: Ask, points: tuple[int, ...], attempt: int, told: Told) -> None:
    probe(points, attempt, told)


def _judged_by(work: Work, judge: Judge) -> Work:
    def observed(result: KernelResult, folder: str) -> Observation:
        verdict = judge(result)
        own = work.judge(result, folder)
        return observation(result, folder, verdict, own.why, own.facts)

    name = f"{judge.__module__}.{judge.__qualname__}"
    return replace(work, judge=observed, asked={**work.asked, "judge": name})


def save(folder: RunFolder, matrix: Matrix) -> None:
    """Write the matrix of all that was asked."""
    folder.write("matrix.json", matrix_json.pieces(matrix))


@contextmanager
def leaving_page(folder: RunFolder, emit: Emit) -> Iterator[None]:
    """Leave the page of a bisect when it ends, whether it has an answer or not."""
    try:
        yield
    finally:
        with suppress(UsageError, OSError):  # nothing was asked yet
            leave_page(read_matrix(folder), folder.path, emit)


def results_before(folder: RunFolder, resume: bool) -> tuple[KernelResult, ...]:
    """The results that an interrupted bisect left, without those it was busy with."""
    if not resume or not (folder.path / "matrix.json").exists():
        return ()
    found = read_matrix(folder).kernels
    return tuple(result for result in found if result.status is not Status.CANCELLED)
