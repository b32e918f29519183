"""What each kernel of a bisect is asked: suites, a command, or whether an object loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmtest.api.inputs import build_first
from vmtest.api.loads import check_loader, loader_of
from vmtest.bisect.question import Work
from vmtest.command.question import work_of_command
from vmtest.kernels import default_cache
from vmtest.model.project import Config
from vmtest.suites.question import work_of_suites
from vmtest.verify.question import is_configured, work_of_load


@dataclass(frozen=True, slots=True)
class WorkRequest:
    """What a kernel is asked, in the words of the command line.

    Without ``verify`` and ``command`` it is the ``suites`` (none: all), of which ``expression``
    chooses tests as ``-k`` does.  ``verify`` is ``OBJECT[:PROGRAM]`` with ``types`` and one
    ``loader`` ("": libbpf) as for ``vmtest verify``; ``command`` is a line as for a shell, with
    ``copy`` and ``results`` as for ``vmtest exec``.
    """

    suites: tuple[str, ...] = ()
    expression: str | None = None
    verify: str | None = None
    command: str | None = None
    copy: tuple[str, ...] = ()
    results: str | None = None
    types: tuple[str, ...] = ()
    loader: str = ""

    @property
    def asks_suites(self) -> bool:
        """Whether it is the suites of kernels.toml."""
        return self.verify is None and self.command is None


def work_of(settings: Config, request: WorkRequest, say: Callable[[str], None]) -> Work:
    """What each kernel is asked, built and read; ``say`` is told what is built.

    Raises UsageError, and InfrastructureError for a build that could not be run.
    """
    if request.loader:
        check_loader(request.loader)
    # Once, not in every round.  A file that is named is the one that lies there.
    file = request.verify is not None and not is_configured(settings, request.verify)
    build_first(settings, say, () if file else None)
    if request.verify is not None:
        cache, wanted = default_cache(), request.loader
        loader = loader_of(settings, wanted, cache, say) if wanted else None
        by = None if loader is None else (wanted, loader)
        return work_of_load(settings, request.verify, request.types, by)
    if request.command is not None:
        return work_of_command(settings, request.command, request.copy, request.results, say)
    return work_of_suites(settings, request.suites, request.expression, say)
