"""``vmtest verify``: what the verifier of every kernel says of BPF objects."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vmtest.cli import common
from vmtest.cli.inputs import build_first
from vmtest.cli.report import find_run
from vmtest.cli.reports import Reports
from vmtest.cli.run import carry_out, check_patterns, make_room_for_reports, noted, show
from vmtest.config import file as configuration
from vmtest.errors import UsageError
from vmtest.host.files import Files
from vmtest.kernels import default_cache
from vmtest.kernels.resolve import choose_kernels
from vmtest.matrix.plan import Plan
from vmtest.model.project import Config
from vmtest.model.results import Matrix
from vmtest.model.versions import KernelVersion, VersionRange
from vmtest.objects import compile
from vmtest.objects import inspect as objectfile
from vmtest.report import live
from vmtest.runs import folder as runs
from vmtest.runs.folder import RunFolder
from vmtest.runs.read import read_matrix
from vmtest.verify import baseline as verifier
from vmtest.verify import objects as loadables
from vmtest.verify import types, veristat
from vmtest.verify.baseline import FailOn, Rules
from vmtest.verify.columns import compared
from vmtest.verify.objects import Given
from vmtest.verify.process import Order
from vmtest.verify.revision import checked_out
from vmtest.verify.task import verify_tasks

EXAMPLE = """Load BPF objects on every kernel: verdict and cost of each program, and is that worse?

Without OBJECT, the objects of kernels.toml, built first.  Works without a kernels.toml.

Example: [bold]vmtest verify build/ --kernel '>=6.1' --baseline baseline.json[/bold]
"""

_LEVELS = (1, 2, 4)
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SIZE = re.compile(r"^(\d+)\s*(K|M|KiB|MiB)?$")


def verify(
    object_: Annotated[
        list[str] | None, typer.Argument(metavar="OBJECT|DIR|GLOB...", help="What to load.")
    ] = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|RANGE|tag:TAG|ARCHIVE/VERSION", help="Which kernels; default tag:default."
        ),
    ] = None,
    program: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only these programs.")
    ] = None,
    attach: Annotated[bool, typer.Option("--attach", help="Attach and detach too.")] = False,
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", metavar=types.METAVAR, help=types.HELP),
    ] = None,
    module: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Load this module of the kernel before."),
    ] = None,
    libbpf: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VERSION|newest|PATH", help="The libbpf that loads; several: side by side."
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the baseline of this run.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare with this baseline.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="DIR|REV", help="Compare with other builds in the same boot."),
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help="Of rejected, regressed, drift, limit, attach, +N%, nothing; "
            "default rejected, and regressed where there is something to compare with.",
        ),
    ] = None,
    from_run: Annotated[
        str | None, typer.Option(metavar="RUN", help="Judge an old run instead of booting.")
    ] = None,
    json_file: common.JsonOption = None,
    markdown_file: common.MarkdownOption = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A CSV a kernel, for veristat.")
    ] = None,
    log_level: Annotated[
        int, typer.Option(help="The verifier's: 1, 2 (every state), 4 (statistics and errors).")
    ] = 4,
    log_limit: Annotated[str, typer.Option(metavar="SIZE", help="Of one log.")] = "16M",
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for one load, under KVM.")
    ] = 60.0,
    jobs: common.JobsOption = None,
    accel: common.AccelOption = "auto",
    warm: common.WarmOption = False,
    config: common.ConfigOption = None,
) -> None:
    """Load and judge; the module's EXAMPLE is its help."""
    with common.reported(), ExitStack() as stack:
        common.clean_up_on_signals()
        common.check_accelerator(accel)
        if log_level not in _LEVELS:
            raise UsageError(f"--log-level {log_level}: is none of 1, 2, 4")
        if baseline is not None and against is not None:
            raise UsageError("--baseline and --against: compare with one of them at a time")
        rules = Rules(
            _fail_on(fail_on, baseline is not None or against is not None),
            None if baseline is None else verifier.load(baseline),
        )
        before = verifier.load(save) if save is not None and save.exists() else None
        make_room_for_reports(
            save, markdown_file, json_file, None if csv is None else csv / "kernel.csv"
        )
        reports = Reports()
        if from_run is not None:
            _no_objects(object_, against, attach, type_, libbpf)
            folder = find_run(from_run, config)
            old = _of_kernels(read_matrix(folder), kernel or [])
            matrix = _judged(old, rules, folder, tuple(program or ()))
        else:
            if rules.fail_on.attach and not attach:
                raise UsageError(f"--fail-on {fail_on}: nothing is attached; add --attach")
            told = types.parse(type_ or [])
            settings = common.load_config_or_builtin(config)
            if libbpf:
                settings = configuration.with_libbpf(settings, libbpf, Path.cwd())
            order = Order(
                objects=(),
                programs=tuple(program or ("*",)),
                attach=attach,
                log_level=log_level,
                log_limit=_size(log_limit),
                timeout=timeout,
                modules=_modules(module or []),
                every_libbpf=True,
            )
            if settings.build is not None:
                check_patterns(settings, kernel or [])  # before it is built for nothing
            view = live.view(sys.stdout)
            # Files that are named are those that lie there: nothing is built for them.
            configured = any(
                loadables.named(one, settings.objects, Path.cwd()) for one in object_ or []
            )
            build_first(settings, noted(view), () if object_ and not configured else None)
            given = types.told_to(_given(settings, object_ or []), told, Path.cwd())
            given = _having(given, order)
            others = _others(settings, given, bool(object_), against, stack)
            cache = default_cache()
            kernels, resolved = choose_kernels(settings, kernel or [], cache)
            files = Files()
            task = verify_tasks(given, others, order, rules, against or "", files)
            folder = runs.create(settings.directory)
            plan = Plan(
                config=settings,
                kernels=kernels,
                task=task,
                cache=cache,
                folder=folder,
                jobs=jobs,
                accelerator=accel,
                warm=warm,
                resolved=resolved,
                files=files,
                finish=partial(compared, rules=rules),
            )
            matrix = carry_out(plan, None, view, view.handle, reports)
        show(matrix, folder, sys.stdout)
        reports.render(matrix, None, markdown_file, json_file)
        if csv is not None:
            write_csv(matrix, csv, reports)
        if save is not None:
            kept = verifier.baseline_of(matrix, before, partial=bool(object_))
            reports.write(save, verifier.dumps(kept))
        reports.end(matrix)


def _fail_on(text: str | None, compared: bool) -> FailOn:
    if text is None:
        return FailOn(rejected=True, regressed=compared)
    found = FailOn.parse(text)
    if found.compares and not compared:
        raise UsageError(f"--fail-on {text}: needs --baseline FILE or --against DIR|REV")
    return found


def _no_objects(
    given: Sequence[str] | None,
    against: str | None,
    attach: bool,
    types: Sequence[str] | None,
    libbpf: Sequence[str] | None,
) -> None:
    if given or against:
        raise UsageError("--from-run judges an old run: leave OBJECT and --against out")
    if attach or types or libbpf:
        raise UsageError("--from-run judges an old run: leave --attach, --type and --libbpf out")


def _of_kernels(matrix: Matrix, patterns: Sequence[str]) -> Matrix:
    """``matrix`` with the kernels only that ``patterns`` name; raises UsageError."""
    if not patterns:
        return matrix
    names = [kernel.kernel for kernel in matrix.kernels]
    versions = {k.kernel: KernelVersion.parse(k.version) for k in matrix.kernels if k.version}
    chosen: set[str] = set()
    for pattern in patterns:
        found = {pattern} & set(names)
        if VersionRange.looks_like(pattern):
            try:
                wanted = VersionRange.parse(pattern)
            except ValueError as error:
                raise UsageError(f"--kernel {pattern}: {error}") from error
            found = {name for name in names if name not in versions or versions[name] in wanted}
        if not found:
            raise UsageError(
                f"--kernel {pattern}: the run {matrix.run} has no such kernel (it has: "
                f"{', '.join(names)}); with --from-run write a name or a range"
            )
        chosen |= found
    kernels = tuple(kernel for kernel in matrix.kernels if kernel.kernel in chosen)
    return replace(matrix, kernels=kernels)


def _having(given: Sequence[Given], order: Order) -> tuple[Given, ...]:
    """Those of ``given`` that have a program which ``order`` asks for, all when none has."""
    if order.whole:
        return tuple(given)
    having = []
    for one in given:
        try:
            programs = objectfile.inspect(one.build.path).programs
        except UsageError:
            having.append(one)  # nobody can say: a guest will
            continue
        if any(order.asks(info.name) for info in programs):
            having.append(one)
    return tuple(having or given)


def _modules(names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if not _MODULE.fullmatch(name):
            raise UsageError(f"--module {name}: write a module's name, for example nf_conntrack")
    return tuple(names)


def _size(text: str) -> int:
    match = _SIZE.match(text)
    factor = {"": 1, "K": 1 << 10, "M": 1 << 20}
    size = int(match.group(1)) * factor[(match.group(2) or "")[:1]] if match else 0
    # The verifier's own bounds: kernel/bpf/log.c, bpf_verifier_log_attr_valid().
    if not 1024 <= size <= 256 << 20:
        raise UsageError(f"--log-limit {text}: write a size from 1K to 256M, for example 16M")
    return size


def _given(settings: Config, arguments: Sequence[str]) -> tuple[Given, ...]:
    if arguments:
        return loadables.expand(arguments, settings.objects, Path.cwd())
    if not settings.objects:
        lacks = "has no [[object]]" if settings.file.exists() else "does not exist"
        raise UsageError(f"name objects, as in: vmtest verify build/*.o ({settings.file} {lacks})")
    return loadables.configured(settings.objects, settings.directory)


def _others(
    settings: Config,
    given: Sequence[Given],
    named: bool,
    against: str | None,
    stack: ExitStack,
) -> tuple[Given, ...]:
    """The builds to compare with: of another folder, or of a revision of this project, built."""
    if against is None:
        return ()
    if Path(against).is_dir():
        return loadables.in_folder(given, Path(against).absolute())
    folder = stack.enter_context(checked_out(settings.directory, against))
    theirs = configuration.load(folder / settings.file.name)
    if theirs.build is not None:
        compile.run_build(theirs.build, theirs.directory)
    if not named:
        # What that revision names and does not build, or not with this vmtest, is not there.
        built = [build for build in theirs.objects if build.path.exists()]
        if not built:
            raise UsageError(f"--against {against}: its [build] makes none of its objects")
        return types.of_other_builds(loadables.configured(built, theirs.directory), given)
    here = settings.directory
    moved = [
        replace(one, tail=one.build.path.relative_to(here))
        for one in given
        if one.build.path.is_relative_to(here)
    ]
    if not moved:
        raise UsageError(f"--against {against}: these objects are not below {here}")
    return loadables.in_folder(moved, theirs.directory)


def _judged(matrix: Matrix, rules: Rules, folder: RunFolder, programs: tuple[str, ...]) -> Matrix:
    if not any(kernel.loads for kernel in matrix.kernels):
        raise UsageError(f"{folder.path}: is not a run of vmtest verify; name one that is")
    kernels = matrix.kernels
    if programs and "*" not in programs:
        kernels = tuple(verifier.narrowed(kernel, programs) for kernel in kernels)
    return replace(matrix, kernels=tuple(verifier.judge(kernel, rules) for kernel in kernels))


def write_csv(matrix: Matrix, folder: Path, reports: Reports) -> None:
    """A file a kernel that has loads, for veristat."""
    for kernel in matrix.kernels:
        if kernel.loads:
            reports.write(folder / f"{kernel.kernel}.csv", veristat.render(kernel))
