"""``vmtest verify`` as a call: which objects on which kernels, and the plan that this comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vmtest.api.inputs import build_first
from vmtest.api.preflight import check_files, check_host
from vmtest.api.shards import check_choice
from vmtest.config import file as configuration
from vmtest.config.schema import is_path
from vmtest.errors import UsageError
from vmtest.host.files import Files
from vmtest.kernels import default_cache
from vmtest.kernels.resolve import choose_kernels
from vmtest.matrix.plan import Plan
from vmtest.matrix.shard import Shard
from vmtest.model.project import Config
from vmtest.model.versions import unique
from vmtest.objects import compile
from vmtest.objects import inspect as objectfile
from vmtest.rootfs import cilium
from vmtest.rootfs.cilium import OtherLoader
from vmtest.runs import folder as runs
from vmtest.verify import objects as loadables
from vmtest.verify import types
from vmtest.verify.baseline import FailOn, Rules
from vmtest.verify.columns import compared
from vmtest.verify.objects import Given
from vmtest.verify.process import Order
from vmtest.verify.revision import checked_out
from vmtest.verify.task import verify_tasks

_LIBBPF = "libbpf"  # of `loader`
_NAMES = 10  # of programs in a message
EVERY_PROGRAM = Order(objects=(), programs=("*",), every_libbpf=True)
NOTHING_REJECTED = Rules(FailOn(rejected=True))


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """What is to be loaded, in the words of the command line, and how it is judged.

    ``objects`` are files, folders, globs or names of kernels.toml (none: all of these), ``order``
    says how they are loaded, ``types`` are ``[OBJECT:]PROGRAM=TYPE[:ATTACH]``, ``libbpf``
    versions or paths, ``against`` is a folder or a revision; ``loader`` are ``libbpf``, ``cilium``
    or ``cilium@VERSION`` (none: libbpf); the others are as in a SuitesRequest.
    """

    objects: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    order: Order = EVERY_PROGRAM
    rules: Rules = NOTHING_REJECTED
    types: tuple[str, ...] = ()
    libbpf: tuple[str, ...] = ()
    against: str | None = None
    jobs: int | None = None
    accelerator: str = "auto"
    warm: bool | None = None
    shard: Shard | None = None
    loader: tuple[str, ...] = ()


def plan_verify(
    settings: Config,
    request: VerifyRequest,
    say: Callable[[str], None],
    stack: ExitStack,
    *,
    here: bool = True,
) -> Plan:
    """Build, read the objects, choose the kernels, and make the run's folder.

    ``say`` is told what is built; ``stack`` keeps another revision's builds for as long as the
    plan runs; ``here`` says whether this machine runs VMs.  Raises UsageError and
    InfrastructureError.
    """
    told, folder = types.parse(request.types), Path.cwd()
    _check_loaders(request)
    if request.libbpf:
        settings = configuration.with_libbpf(settings, request.libbpf, folder)
    if settings.build is not None:
        check_choice(settings, request.kernels, request.shard)  # before it is built for nothing
    named = [loadables.named(one, settings.objects, folder) for one in request.objects]
    check_host(settings, default_cache(), here=here)
    # Files that are named are those that lie there: nothing is built for them.
    build_first(settings, say, () if request.objects and not any(named) else None)
    given = types.told_to(_given(settings, request.objects), told, folder)
    having = _having(given, request.order)
    others = _others(settings, having or given, request, stack)
    if not having:  # nothing has to boot for that
        raise _nothing_to_load(given, request.order)
    cache, files = default_cache(), Files()
    kernels, resolved = choose_kernels(settings, request.kernels, cache)
    kernels = kernels if request.shard is None else request.shard.part(kernels)
    _check_libbpf(request, folder)
    check_files(settings, kernels)
    rules, against = request.rules, request.against or ""
    loaders = _loaders(settings, request, cache, say)
    order = replace(request.order, by_libbpf=not request.loader or _LIBBPF in request.loader)
    return Plan(
        config=settings,
        kernels=kernels,
        task=verify_tasks(having, others, order, rules, against, files, loaders),
        cache=cache,
        folder=runs.create(settings.directory),
        objects=unique(one.build.name for one in having),
        narrowed=not request.order.whole,
        jobs=request.jobs,
        accelerator=request.accelerator,
        warm=request.warm,
        wheels=False,
        resolved=resolved,
        files=files,
        finish=partial(compared, rules=rules),
    )


def _check_loaders(request: VerifyRequest) -> None:
    """Raise UsageError for a loader that there is not, or that cannot do what is asked of it."""
    for one in request.loader:
        check_loader(one)
    others = [one for one in request.loader if one != _LIBBPF]
    if others and request.order.attach:
        raise UsageError(f"`loader` {others[0]}: it attaches nothing; leave --attach out")


def check_loader(wanted: str) -> None:
    """Raise UsageError unless there is a loader that is called ``wanted``."""
    if wanted != _LIBBPF:
        cilium.check_word(wanted)


def loader_of(
    settings: Config, wanted: str, cache: Path, say: Callable[[str], None]
) -> OtherLoader | None:
    """The loader that ``wanted`` means, built where it is not; None for libbpf.

    ``say`` is told of a build.  Raises UsageError and InfrastructureError.
    """
    check_loader(wanted)
    here = settings.directory if settings.file.exists() else Path.cwd()
    return None if wanted == _LIBBPF else cilium.take(wanted, here, cache, say)


def _loaders(
    settings: Config, request: VerifyRequest, cache: Path, say: Callable[[str], None]
) -> tuple[OtherLoader, ...]:
    """The loaders beside libbpf, each once, built where they are not; raises UsageError."""
    found = [loader_of(settings, wanted, cache, say) for wanted in unique(request.loader)]
    return tuple({one.name: one for one in found if one is not None}.values())


def _check_libbpf(request: VerifyRequest, folder: Path) -> None:
    """Raise UsageError for a file of ``--libbpf`` that is not there, once all is built."""
    for one in request.libbpf:
        if is_path(one) and not (folder / one).exists():
            raise UsageError(f"`libbpf` {one}: does not exist; name a version, or another file")


def _having(given: Sequence[Given], order: Order) -> tuple[Given, ...]:
    """Those of ``given`` to load for ``order``; none when no program in them is asked for."""
    having = []
    for one in given:
        names = _programs(one)
        if names is None or any(map(order.asks, names)):
            having.append(one)
    return tuple(given if having and order.whole else having)


def _programs(one: Given) -> tuple[str, ...] | None:
    """The programs of an object; None where nobody can say: a guest will."""
    try:
        return tuple(info.name for info in objectfile.inspect(one.build.path).programs)
    except UsageError:
        return None


def _nothing_to_load(given: Sequence[Given], order: Order) -> UsageError:
    names = ", ".join(unique(one.build.name for one in given))
    known = unique(program for one in given for program in _programs(one) or ())
    if not known:
        return UsageError(f"{names}: has no BPF program, so there is nothing to load; name another")
    there = ", ".join([*known[:_NAMES], *(["..."] if len(known) > _NAMES else [])])
    asked = ", ".join(order.programs)
    return UsageError(f"`program` {asked}: matches no program of {names} (there are: {there})")


def _given(settings: Config, arguments: Sequence[str]) -> tuple[Given, ...]:
    if arguments:
        return loadables.expand(arguments, settings.objects, Path.cwd())
    if not settings.objects:
        lacks = "has no [[object]]" if settings.file.exists() else "does not exist"
        if settings.build is not None:
            lacks += "; vmtest init adds what is built now, if it wrote that file"
        raise UsageError(f"name objects, as in: vmtest verify build/*.o ({settings.file} {lacks})")
    return loadables.configured(settings.objects, settings.directory)


def _others(
    settings: Config, given: Sequence[Given], request: VerifyRequest, stack: ExitStack
) -> tuple[Given, ...]:
    """The builds to compare with: of another folder, or of a revision of this project, built."""
    against = request.against
    if against is None:
        return ()
    if Path(against).is_dir():
        return loadables.in_folder(given, Path(against).absolute())
    folder = stack.enter_context(checked_out(settings.directory, against))
    theirs = configuration.load(folder / settings.file.name)
    if theirs.build is not None:
        compile.run_build(theirs.build, theirs.directory, settings.directory / runs.BUILD_LOG)
    if not request.objects:
        # What that revision names and does not build, or not with this vmtest, is not there.
        built = [build for build in theirs.objects if build.path.exists()]
        if not built:
            raise UsageError(f"`against` {against}: its [build] makes none of its objects")
        return types.of_other_builds(loadables.configured(built, theirs.directory), given)
    here = settings.directory
    moved = [
        replace(one, tail=one.build.path.relative_to(here))
        for one in given
        if one.build.path.is_relative_to(here)
    ]
    if not moved:
        raise UsageError(f"`against` {against}: these objects are not below {here}")
    return loadables.in_folder(moved, theirs.directory)
