"""``vmtest run`` as a call: which suites on which kernels, and the plan that this comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from vmtest.api.inputs import build_first
from vmtest.api.preflight import check_files, check_host
from vmtest.api.shards import check_choice
from vmtest.config import select
from vmtest.errors import UsageError
from vmtest.kernels import Store, default_cache
from vmtest.kernels.resolve import choose_kernels, resolve_all
from vmtest.matrix.plan import Plan
from vmtest.matrix.shard import Shard
from vmtest.model.kernels import Kernel, Resolved
from vmtest.model.project import Config, ObjectFile, Suite
from vmtest.model.results import Matrix
from vmtest.objects import builds as objects
from vmtest.runs import folder as runs
from vmtest.runs import past
from vmtest.runs.read import read_facts, read_matrix
from vmtest.suites.collect import only_collects, stand_ins
from vmtest.suites.expression import check_expressions
from vmtest.suites.failed import Earlier, Failed, failed
from vmtest.suites.isolate import Isolation
from vmtest.suites.repeat import Repeat
from vmtest.suites.task import SuitesTaskFactory

_LAST = 10  # runs that are asked for what did not pass


@dataclass(frozen=True, slots=True)
class SuitesRequest:
    """What is to run, in the words of the command line.

    ``kernels`` are patterns (none: those tagged ``default``), ``suites`` names (none: all),
    ``objects`` builds as ``NAME=PATH[@RANGE]`` in place of those of kernels.toml, ``options``
    go to pytest; ``narrowed`` says that these leave tests out.  ``warm`` restores guests from
    snapshots, False boots them, None restores them where they are emulated.  ``keep_going`` takes
    a fresh guest for the tests behind one that ends its guest, ``isolate`` gives each suite, file
    or test a guest of its own.  ``retries`` is how often a test that failed runs again in a fresh
    guest; ``repeat`` is how often all run, each time in a fresh guest.  ``last_failed`` runs only
    what did not pass in the last runs, ``failed_first`` that first. ``tests`` has suite and node id
    of all that is to run, by kernel (None: everything). ``shard`` is the part of the kernels that
    runs here (None: all).  ``locked`` takes the kernels of kernels.lock. ``jobs`` VMs run at once
    (None: as many as there is room for).
    """

    kernels: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    narrowed: bool = False
    locked: bool = False
    jobs: int | None = None
    accelerator: str = "auto"
    warm: bool | None = None
    shard: Shard | None = None
    keep_going: bool = False
    last_failed: bool = False
    failed_first: bool = False
    isolate: Isolation | None = None
    retries: int = 0
    repeat: Repeat = field(default_factory=Repeat)
    tests: Mapping[str, frozenset[tuple[str, str]]] | None = None


@dataclass(frozen=True, slots=True)
class PlannedSuites:
    """The plan, the builds that the kernels' objects are chosen of, and whether it only lists."""

    plan: Plan
    builds: tuple[ObjectFile, ...]
    collects: bool


def plan_suites(
    settings: Config,
    request: SuitesRequest,
    say: Callable[[str], None],
    before_build: Callable[[], None] = lambda: None,
    *,
    here: bool = True,
) -> PlannedSuites:
    """Build, read what goes along, choose the kernels, and make the run's folder.

    ``say`` is told what is built; ``before_build`` runs when the words have been checked;
    ``here`` says whether this machine runs VMs.
    Raises UsageError and InfrastructureError.
    """
    given = [objects.parse_given(item) for item in request.objects]
    check_expressions(request.options)
    suites = select.select_suites(settings.suites, request.suites)
    if not suites:
        other = "run go test, cargo test or any command: vmtest docs run-any-command"
        raise UsageError(f"{settings.file}: there is no [[suite]]; add one for pytest, or {other}")
    again = _failed(settings, request)
    if again is not None:
        again = again.of(suites)
        suites = again.suites(suites)
    builds = objects.override(settings.objects, given)
    needed = {name for suite in suites for name in suite.objects}
    check_choice(settings, request.kernels, request.shard, request.locked)
    check_host(settings, default_cache(), here=here)
    before_build()
    whole = bool(needed) and needed <= {build.name for build in given}
    build_first(settings, say, [build.path for build in given] if whole else None)
    for build in given:
        objects.check_object(build.name, build.path)
    tasks = SuitesTaskFactory(
        settings,
        suites,
        builds,
        request.options,
        narrowed=request.narrowed or request.last_failed,
        keep_going=request.keep_going,
        failed=again,
        isolate=request.isolate,
        retries=request.retries,
        repeat=request.repeat,
    )
    tasks.read()
    return _planned(settings, request, suites, tasks, needed)


def _planned(
    settings: Config,
    request: SuitesRequest,
    suites: tuple[Suite, ...],
    tasks: SuitesTaskFactory,
    needed: set[str],
) -> PlannedSuites:
    cache, builds = default_cache(), tasks.objects
    kernels, resolved = choose_kernels(settings, request.kernels, cache, request.locked)
    kernels = kernels if request.shard is None else request.shard.part(kernels)
    kernels = _that_failed(kernels, tasks.failed)
    check_files(settings, kernels)
    default = {kernel.name for kernel in select.select_kernels(settings.kernels, [], {})}
    if not default <= {kernel.name for kernel in kernels}:
        tasks = replace(tasks, narrowed=True)
    collects = only_collects(tasks.options)
    ranged = any(build.kernels for build in builds if build.name in needed)
    if objects.depend_on_version(builds, needed) or (collects and ranged):
        # Before anything is booted: which kernel is too old is known once it is resolved.
        missing = [kernel for kernel in kernels if kernel.name not in resolved]
        resolved.update(resolve_all(settings, missing, Store(cache))[0])
        versions = {k.name: resolved[k.name].version for k in kernels if k.name in resolved}
        objects.check_builds(builds, needed, versions)
    told: tuple[str, ...] = ()
    if collects:
        kernels, others, told = _standing_in(kernels, tasks, needed, resolved)
        tasks = replace(tasks, narrowed=tasks.narrowed or others)

    folder = runs.create(settings.directory)

    def notes(matrix: Matrix) -> tuple[str, ...]:
        limited = any(entry.limit is not None for entry in settings.flaky)
        before = past.earlier(folder, past.past_of(matrix, {})) if limited else ()
        return (*told, *tasks.notes(matrix, before))

    plan = Plan(
        config=settings,
        kernels=kernels,
        task=tasks.task,
        cache=cache,
        folder=folder,
        suites=tuple(chosen.name for chosen in suites),
        narrowed=request.narrowed or request.last_failed or request.tests is not None,
        jobs=request.jobs,
        accelerator=request.accelerator,
        warm=request.warm,
        resolved=resolved,
        notes=notes,
        files=tasks.files,
    )
    return PlannedSuites(plan, builds, collects)


def _failed(settings: Config, request: SuitesRequest) -> Failed | None:
    if request.tests is not None:
        return Failed(request.tests, only=True, none_there="pytest found none of the chosen tests")
    if not (request.last_failed or request.failed_first):
        return None
    return failed(_last_runs(settings), only=request.last_failed)


def _last_runs(settings: Config) -> Iterator[Earlier]:
    """The last runs, the newest first; those that cannot be read left out."""
    for folder in reversed(runs.kept(settings.directory)[-_LAST:]):
        with suppress(UsageError, OSError):
            whole = read_facts(folder.path).get("narrowed") is False
            yield Earlier(read_matrix(folder), whole)


def _that_failed(kernels: tuple[Kernel, ...], again: Failed | None) -> tuple[Kernel, ...]:
    """The kernels that have something to run; raises UsageError where none has."""
    if again is None or not again.only:
        return kernels
    left = tuple(kernel for kernel in kernels if kernel.name in again.tests)
    if not left:
        raise UsageError(
            f"on {', '.join(kernel.name for kernel in kernels)} nothing failed in the last runs; "
            "leave --last-failed out"
        )
    return left


def _standing_in(
    kernels: tuple[Kernel, ...],
    tasks: SuitesTaskFactory,
    needed: set[str],
    resolved: dict[str, Resolved],
) -> tuple[tuple[Kernel, ...], bool, tuple[str, ...]]:
    """The kernels that are asked for their tests, whether for others too, and notes on that."""
    known = {name: found.version for name, found in resolved.items()}
    asked = stand_ins(kernels, tasks.objects, needed, known)
    notes = tuple(one.note for one in asked if one.note)
    return tuple(one.kernel for one in asked), any(one.others for one in asked), notes
