"""A matrix before it runs: kernels, work, limits, and where its results go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vmtest.host.files import Files
from vmtest.matrix.bench import Task
from vmtest.matrix.kept import Kept
from vmtest.model.kernels import Kernel, KernelImage, Resolved
from vmtest.model.project import Config
from vmtest.model.results import Matrix
from vmtest.runs.folder import RunFolder


def _no_notes(matrix: Matrix) -> tuple[str, ...]:
    del matrix
    return ()


def _as_it_is(matrix: Matrix) -> Matrix:
    return matrix


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: what, on what.

    ``task`` makes the task of a kernel once it is in the store (UsageError ends the
    run); ``files`` reads what is the user's; ``suites`` is the order of the table's rows,
    ``objects`` are those that ``vmtest verify`` loads, ``narrowed`` says that not all tests or
    programs of these are meant to run;
    ``command`` is what ``vmtest exec`` runs, ``again`` the command line (``Matrix.again``);
    ``resolved`` has kernels whose index was already read; ``jobs`` of None means
    as many VMs as the machine has room for; ``warm`` restores guests from
    snapshots and saves them, None where that pays and can be; ``wheels`` says whether the guests
    get those of ``[guest]``; ``notes`` says what the user should
    know of a whole matrix, after ``finish`` has made of it what only all kernels together tell;
    ``kept`` is what a process that runs the same kernels again keeps.
    """

    config: Config
    kernels: tuple[Kernel, ...]
    task: Callable[[KernelImage], Task]
    cache: Path
    folder: RunFolder
    suites: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    narrowed: bool = False
    command: tuple[str, ...] = ()
    again: tuple[tuple[str, ...], ...] = ()
    jobs: int | None = None
    accelerator: str = "auto"
    warm: bool | None = False
    wheels: bool = True
    resolved: Mapping[str, Resolved] = field(default_factory=dict)
    notes: Callable[[Matrix], tuple[str, ...]] = _no_notes
    finish: Callable[[Matrix], Matrix] = _as_it_is
    files: Files = field(default_factory=Files)
    kept: Kept | None = None
