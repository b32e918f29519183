"""Asking kernels for a bisect: a round of points is a matrix of pinned kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from vmtest.bisection import Told
from vmtest.events import Event, KernelFinished
from vmtest.matrix import Plan, run_matrix
from vmtest.model import KernelResult, Matrix, Status
from vmtest.observations import Observation
from vmtest.runs import RunFolder

Judge = Callable[[KernelResult, str], Observation]
"""What a result says; the second is the folder with its logs, relative to the run's."""
Emit = Callable[[Event], None]


class Matrices:
    """A ``vmtest.bisection.Probe`` whose points are the kernels of ``plan``, in their order.

    A first attempt keeps its logs in the plan's folder, a repetition in ``repeat-N`` below
    it.  ``emit`` hears the events of every round; ``save`` is given a folder and the matrix of
    all that was asked there, in version order.  ``before`` are results of first attempts that
    an interrupted bisect left.
    """

    def __init__(
        self,
        plan: Plan,
        judge: Judge,
        emit: Emit,
        save: Callable[[RunFolder, Matrix], None],
        before: Iterable[KernelResult] = (),
    ) -> None:
        self._plan = plan
        self._judge = judge
        self._emit = emit
        self._save = save
        self._results = {result.kernel: result for result in before}

    def __call__(self, points: tuple[int, ...], attempt: int, told: Told) -> None:
        """Run ``points`` once; raises what run_matrix does, and KeyboardInterrupt."""
        plan, folder = self._plan, self._plan.folder
        below = ""
        if attempt > 1:
            below = f"repeat-{attempt}/"
            folder = RunFolder(folder.kernel(f"repeat-{attempt}"))
        kernels = tuple(plan.kernels[n] for n in points)
        places = {kernel.name: n for kernel, n in zip(kernels, points, strict=True)}

        def emit(event: Event) -> None:
            self._emit(event)
            if isinstance(event, KernelFinished) and event.result.status is not Status.CANCELLED:
                one = self._judge(event.result, f"{below}{event.result.directory}")
                told(places[event.kernel], one)

        def save(matrix: Matrix) -> None:
            self._save(folder, self._merged(matrix) if attempt == 1 else matrix)

        matrix = run_matrix(replace(plan, kernels=kernels, folder=folder), emit, save)
        if matrix.interrupted:
            raise KeyboardInterrupt

    def _merged(self, matrix: Matrix) -> Matrix:
        """``matrix`` with what earlier rounds found, in version order."""
        self._results |= {result.kernel: result for result in matrix.kernels}
        order = [kernel.name for kernel in self._plan.kernels]
        found = tuple(self._results[name] for name in order if name in self._results)
        return replace(matrix, kernels=found)
