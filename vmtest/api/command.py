"""``vmtest exec`` as a call: which command in which kernels, and the plan that this comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmtest.api.inputs import build_first
from vmtest.api.preflight import check_files, check_host
from vmtest.api.shards import check_choice
from vmtest.command.files import check_program, parse_copy, read_copies, suite_of
from vmtest.command.formats.format import parse_format
from vmtest.command.task import command_tasks
from vmtest.host.files import Files
from vmtest.kernels import default_cache
from vmtest.kernels.resolve import choose_kernels
from vmtest.matrix.plan import Plan
from vmtest.matrix.shard import Shard
from vmtest.model.project import Config, ObjectFile
from vmtest.model.secrets import words_without_secrets
from vmtest.objects import builds as objects
from vmtest.runs import folder as runs


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """What is to run, in the words of the command line.

    ``copy`` has ``FILE|DIR[:GUESTPATH]``, ``results`` is ``gotest``, ``tap`` or ``junit:PATH``;
    the others are as in a SuitesRequest.
    """

    command: tuple[str, ...]
    kernels: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()
    results: str | None = None
    objects: tuple[str, ...] = ()
    locked: bool = False
    jobs: int | None = None
    accelerator: str = "auto"
    warm: bool | None = None
    shard: Shard | None = None


@dataclass(frozen=True, slots=True)
class PlannedCommand:
    """The plan, the builds that the kernels' objects are chosen of, digests of what is copied.

    ``single`` says that one kernel runs it: its output is then the command's alone.
    """

    plan: Plan
    builds: tuple[ObjectFile, ...]
    copied: dict[str, str]
    single: bool


def plan_command(
    settings: Config,
    request: CommandRequest,
    say: Callable[[str], None],
    before_run: Callable[[bool], None] = lambda single: None,
    *,
    here: bool = True,
) -> PlannedCommand:
    """Build, read what is copied, choose the kernels, and make the run's folder.

    ``say`` is told what is built; ``before_run`` is called before there is a folder, and told
    whether it is a single kernel; ``here`` says whether this machine runs VMs.  Raises UsageError
    and InfrastructureError.
    """
    copies = [parse_copy(text) for text in request.copy]
    format = parse_format(request.results)
    given = [objects.parse_given(item) for item in request.objects]
    builds = objects.override(settings.objects, given)
    check_choice(settings, request.kernels, request.shard, request.locked)
    check_host(settings, default_cache(), here=here)
    build_first(settings, say)
    copied = read_copies(copies)
    check_program(request.command, copied.places)
    files, cache = Files(), default_cache()
    kernels, resolved = choose_kernels(settings, request.kernels, cache, request.locked)
    kernels = kernels if request.shard is None else request.shard.part(kernels)
    check_files(settings, kernels)
    # A part's output is not the whole command's, though it has one kernel only.
    single = len(kernels) == 1 and request.shard is None
    before_run(single)
    plan = Plan(
        config=settings,
        kernels=kernels,
        task=command_tasks(request.command, copied, builds, files, format, live=single),
        cache=cache,
        folder=runs.create(settings.directory),
        suites=(suite_of(request.command),),
        command=tuple(words_without_secrets(request.command)),
        jobs=request.jobs,
        accelerator=request.accelerator,
        warm=request.warm,
        resolved=resolved,
        files=files,
    )
    return PlannedCommand(plan, builds, copied.digests, single)
