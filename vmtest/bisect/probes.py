"""Asking kernels for a bisect: a round is a matrix of pinned kernels, built where need be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from vmtest.bisect.observe import Observation, unbuilt
from vmtest.bisect.question import Judge
from vmtest.bisect.rounds import Ask, Told
from vmtest.errors import InfrastructureError, KernelBuildFailed
from vmtest.kernels import Store, source_for
from vmtest.matrix.engine import Engine
from vmtest.matrix.plan import Plan
from vmtest.matrix.runner import run_matrix
from vmtest.model.events import Event, KernelFinished, KernelQueued, coming
from vmtest.model.kernels import Kernel
from vmtest.model.results import KernelResult, Matrix, Status
from vmtest.runs.folder import RunFolder
from vmtest.runs.latest import Latest

Emit = Callable[[Event], None]


class Matrices:
    """A ``vmtest.bisect.rounds.Ask`` whose points are the kernels of ``plan``, in their order.

    ``kernels`` gives them where they become more on the way.  A first attempt keeps its logs in
    the plan's folder, a repetition in ``repeat-N`` below it.  ``emit`` hears the events of every
    round; ``save`` is given a folder and the matrix of all that was asked there, in their order.
    ``before`` are results of first attempts that an interrupted bisect left.  ``engine`` says where
    the kernels run; None: on this machine.
    """

    def __init__(
        self,
        plan: Plan,
        judge: Judge,
        emit: Emit,
        save: Callable[[RunFolder, Matrix], None],
        before: Iterable[KernelResult] = (),
        kernels: Callable[[], tuple[Kernel, ...]] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._plan = plan
        self._judge = judge
        self._emit = emit
        self._save = save
        self._engine = engine
        self._kernels = kernels or (lambda: plan.kernels)
        self._results = {result.kernel: result for result in before}

    def __call__(self, points: tuple[int, ...], attempt: int, told: Told) -> None:
        """Run ``points`` once; raises what run_matrix does, and KeyboardInterrupt."""
        plan, folder = self._plan, self._plan.folder
        below = ""
        if attempt > 1:
            below = f"repeat-{attempt}/"
            folder = RunFolder(folder.kernel(f"repeat-{attempt}"))
        every = self._kernels()
        kernels = tuple(every[n] for n in points)
        places = {kernel.name: n for kernel, n in zip(kernels, points, strict=True)}

        latest = Latest(plan.folder)

        def emit(event: Event) -> None:
            latest.hear(event)
            self._emit(event)
            if isinstance(event, KernelFinished) and event.result.status is not Status.CANCELLED:
                one = self._judge(event.result, f"{below}{event.result.directory}")
                told(places[event.kernel], one)

        def save(matrix: Matrix) -> None:
            self._save(folder, self._merged(matrix) if attempt == 1 else matrix)

        asked = replace(plan, kernels=kernels, folder=folder)
        matrix = run_matrix(asked, emit, save, engine=self._engine)
        if matrix.interrupted:
            raise KeyboardInterrupt

    def _merged(self, matrix: Matrix) -> Matrix:
        """``matrix`` with what earlier rounds found, in version order."""
        self._results |= {result.kernel: result for result in matrix.kernels}
        order = [kernel.name for kernel in self._kernels()]
        found = tuple(self._results[name] for name in order if name in self._results)
        return replace(matrix, kernels=found)


class Twice:
    """A ``vmtest.bisect.rounds.Ask`` that has ``ask`` ask a point again that could not tell.

    On a busy machine a kernel does not always boot in time, and passing it over costs rounds and
    perhaps the answer.  A fault of the machine is told at once.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def __call__(self, points: tuple[int, ...], attempt: int, told: Told) -> None:
        """Ask ``points``, and once more those that could not tell."""
        silent: list[int] = []

        def heard(n: int, one: Observation) -> None:
            if one.verdict.tells or one.faulty:
                told(n, one)
            else:
                silent.append(n)

        self._ask(points, attempt, heard)
        if silent:
            self._ask(tuple(sorted(silent)), attempt, told)


class Builds:
    """A ``vmtest.bisect.rounds.Ask`` that builds each point's kernel, then has ``ask`` ask it.

    What does not build tells nothing.  A fault of the machine, while building or later, is
    raised as InfrastructureError and never told: it says nothing of a commit.
    """

    def __init__(
        self, kernels: Callable[[], tuple[Kernel, ...]], store: Store, ask: Ask, emit: Emit
    ) -> None:
        self._kernels = kernels
        self._store = store
        self._ask = ask
        self._emit = emit
        self._unbuilt: dict[int, Observation] = {}

    def __call__(self, points: tuple[int, ...], attempt: int, told: Told) -> None:
        """Build and ask ``points``, one after the other."""
        for n in points:
            if n not in self._unbuilt:
                try:
                    self._build(self._kernels()[n])
                except KernelBuildFailed as error:
                    self._unbuilt[n] = unbuilt(error)
            if n in self._unbuilt:
                told(n, self._unbuilt[n])
                continue
            self._ask((n,), attempt, partial(self._judged, told))

    def _judged(self, told: Told, n: int, one: Observation) -> None:
        if one.faulty:
            raise InfrastructureError(f"{self._kernels()[n].name}: {one.why}")
        told(n, one)

    def _build(self, kernel: Kernel) -> None:
        source = source_for(kernel, {})
        resolved = source.resolve(kernel, self._store)
        if not resolved.cached:
            self._emit(KernelQueued(kernel.name))
            source.fetch(resolved, self._store, lambda *far: self._emit(coming(kernel, *far)))
