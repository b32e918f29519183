"""One call a command: plan it, run it, and give the matrix with its folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vmtest.api.command import CommandRequest, plan_command
from vmtest.api.loads import VerifyRequest, plan_verify
from vmtest.api.record import Recording, carry_out
from vmtest.api.suites import SuitesRequest, plan_suites
from vmtest.host import attempts
from vmtest.matrix.engine import Engine
from vmtest.matrix.runner import Stop
from vmtest.model.events import Event, Note
from vmtest.model.project import Config
from vmtest.model.results import Matrix, exit_status
from vmtest.runs.folder import RunFolder
from vmtest.runs.read import read_matrix

Emit = Callable[[Event], None]
_CALLED = (("call",),)  # no command line does the same


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended: its matrix, and the folder with its logs."""

    matrix: Matrix
    folder: Path

    @property
    def status(self) -> int:
        """What the command would have ended with: 0 passed, 1 failed, 3 infrastructure, ..."""
        return exit_status(self.matrix)


def unheard(event: Event) -> None:
    """Hears an event and does nothing."""


def noted(emit: Emit) -> Callable[[str], None]:
    """Has ``emit`` hear a line as a Note."""
    return lambda line: emit(Note(line))


def run_suites(
    settings: Config,
    request: SuitesRequest | None = None,
    emit: Emit = unheard,
    stop: Stop | None = None,
    engine: Engine | None = None,
) -> Run:
    """Run suites of kernels.toml in each kernel, as ``vmtest run`` does.

    ``emit`` hears every event while it runs, on this thread.  Test failures are in the matrix.
    ``stop`` ends it before its time.  ``engine`` says where the kernels run (``engine_on``).
    Raises UsageError and InfrastructureError for what concerns every kernel.
    """
    with attempts.told(noted(emit)):
        planned = plan_suites(settings, request or SuitesRequest(), noted(emit))
    recording = Recording(planned.builds, again=_CALLED)
    matrix = carry_out(planned.plan, emit, recording, stop=stop, engine=engine)
    return Run(matrix, planned.plan.folder.path)


def run_command(
    settings: Config,
    request: CommandRequest,
    emit: Emit = unheard,
    engine: Engine | None = None,
) -> Run:
    """Run a command in each kernel, as ``vmtest exec`` does; raises as ``run_suites``."""
    with attempts.told(noted(emit)):
        planned = plan_command(settings, request, noted(emit))
    recording = Recording(planned.builds, {"copied": planned.copied}, again=_CALLED)
    matrix = carry_out(planned.plan, emit, recording, engine=engine)
    return Run(matrix, planned.plan.folder.path)


def verify_objects(
    settings: Config,
    request: VerifyRequest | None = None,
    emit: Emit = unheard,
    engine: Engine | None = None,
) -> Run:
    """Load BPF objects in each kernel, as ``vmtest verify`` does; raises as ``run_suites``."""
    with ExitStack() as stack:
        with attempts.told(noted(emit)):
            plan = plan_verify(settings, request or VerifyRequest(), noted(emit), stack)
        return Run(carry_out(plan, emit, Recording(again=_CALLED), engine=engine), plan.folder.path)


def read_run(folder: Path) -> Run:
    """The run in ``folder``, such as ``.vmtest/latest``, also one that was killed.

    Raises UsageError for a folder without a matrix.json.
    """
    return Run(read_matrix(RunFolder(folder)), folder)
