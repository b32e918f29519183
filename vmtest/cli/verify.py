"""``vmtest verify``: what the verifier of every kernel says of BPF objects."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import typer

from vmtest.api import project
from vmtest.api.cluster import engine_on, vms_here
from vmtest.api.loads import VerifyRequest, plan_verify
from vmtest.api.record import Recording, carry_out
from vmtest.api.run import noted
from vmtest.api.shards import shard_of
from vmtest.cli import common, options
from vmtest.cli.again import again
from vmtest.cli.look import Look, show
from vmtest.cli.report import find_run
from vmtest.cli.reports import Reports
from vmtest.errors import UsageError
from vmtest.model.results import Matrix
from vmtest.model.text import size_of
from vmtest.model.versions import KernelVersion, VersionRange
from vmtest.runs.folder import RunFolder
from vmtest.runs.read import read_matrix
from vmtest.verify import baseline as verifier
from vmtest.verify import veristat
from vmtest.verify.baseline import Baseline, FailOn, Rules
from vmtest.verify.process import Order

EXAMPLE = """Load BPF objects on each kernel, and show each program's verdict and cost.

Without OBJECT it builds and loads the objects of kernels.toml.
With OBJECT it needs no kernels.toml.

Example: [bold]vmtest verify build/ --kernel '>=6.1' --baseline baseline.json[/bold]
"""

_JUDGING = ("--fail-on", "--baseline", "--program")
_LEVELS = (1, 2, 4)
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def verify(
    context: typer.Context,
    object_: options.ObjectArgument = None,
    kernel: options.KernelOption = None,
    program: options.ProgramOption = None,
    attach: options.AttachOption = False,
    type_: options.TypeOption = None,
    module: options.ModuleOption = None,
    libbpf: options.LibbpfOption = None,
    loader: options.LoaderOption = None,
    save: options.SaveOption = None,
    baseline: options.BaselineOption = None,
    against: options.AgainstOption = None,
    fail_on: options.FailOnOption = None,
    from_run: options.FromRunOption = None,
    json_file: options.JsonOption = None,
    junit_file: options.JunitOption = None,
    markdown_file: options.MarkdownOption = None,
    html_file: options.HtmlOption = None,
    csv: options.CsvOption = None,
    log_level: options.LogLevelOption = 4,
    log_limit: options.LogLimitOption = "16M",
    timeout: options.LoadTimeoutOption = 60.0,
    jobs: options.JobsOption = None,
    on: options.OnOption = None,
    shard: options.ShardOption = None,
    balance: options.BalanceOption = None,
    accel: options.AccelOption = "auto",
    warm: options.WarmOption = None,
    config: options.ConfigOption = None,
    color: options.ColorOption = "auto",
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    github: options.GithubOption = None,
) -> None:
    """Load and judge; the module's EXAMPLE is its help."""
    with common.reported():
        common.check_accelerator(accel)
        look = Look.asked(color, quiet, verbose, github)
        _check_level(log_level)
        rules = _rules(fail_on, baseline, against)
        output = Output.prepared(
            Reports(junit_file, markdown_file, json_file, html_file), csv, save, bool(object_), look
        )
        if from_run is not None:
            _no_objects(object_, against, attach, type_, [*(libbpf or ()), *(loader or ())])
            folder = find_run(from_run, config)
            old = _of_kernels(read_matrix(folder), kernel or [])
            matrix = _judged(old, rules, folder, tuple(program or ()))
            output.end(_as_if(matrix, again(context)), folder, page=False)
        if rules.fail_on.attach and not attach:
            raise UsageError(f"--fail-on {fail_on}: nothing is attached; add --attach")
        order = _order(program or ["*"], attach, log_level, log_limit, timeout, module or [])
        objects, kernels = tuple(object_ or ()), tuple(kernel or ())
        types, libbpfs = tuple(type_ or ()), tuple(libbpf or ())
        request = VerifyRequest(
            objects, kernels, order, rules, types, libbpfs, against, jobs, accel, warm
        )
        request = replace(request, shard=shard_of(shard, balance), loader=tuple(loader or ()))
        _boot(request, config, output, on, again(context))


def _check_level(level: int) -> None:
    if level not in _LEVELS:
        raise UsageError(f"--log-level {level}: write 1, 2 or 4")


def _order(
    programs: list[str],
    attach: bool,
    log_level: int,
    log_limit: str,
    timeout: float,
    modules: list[str],
) -> Order:
    return Order(
        objects=(),
        programs=tuple(programs),
        attach=attach,
        log_level=log_level,
        log_limit=_log_limit(log_limit),
        timeout=timeout,
        modules=_modules(modules),
        every_libbpf=True,
    )


def _rules(fail_on: str | None, baseline: Path | None, against: str | None) -> Rules:
    if baseline is not None and against is not None:
        raise UsageError("--baseline and --against: compare with one of them at a time")
    return Rules(
        _fail_on(fail_on, baseline is not None or against is not None),
        None if baseline is None else verifier.load(baseline),
    )


def _boot(
    request: VerifyRequest,
    config: Path | None,
    output: Output,
    on: str | None,
    words: tuple[tuple[str, ...], ...],
) -> NoReturn:
    view = output.look.view(sys.stdout)
    settings = project.load_config_or_builtin(config)
    recording = Recording(arguments=sys.argv[1:], write=output.reports.write, again=words)
    with ExitStack() as stack:
        say = noted(view.handle)
        engine = stack.enter_context(engine_on(on, say, settings.kernels))
        plan = plan_verify(settings, request, say, stack, here=vms_here(on))
        with view:
            matrix = carry_out(plan, view.handle, recording, engine=engine)
        output.end(matrix, plan.folder)


@dataclass(frozen=True, slots=True)
class Output:
    """What a verify leaves beside its table: ``csv`` is a folder, ``save`` the baseline's file.

    ``before`` is the baseline that was in ``save``.  ``partial`` says that objects were named: what
    that one has of others stays in it.
    """

    reports: Reports
    csv: Path | None
    save: Path | None
    before: Baseline | None
    partial: bool
    look: Look

    @classmethod
    def prepared(
        cls, reports: Reports, csv: Path | None, save: Path | None, partial: bool, look: Look
    ) -> Output:
        """Make room for all of it, and read what ``save`` has.

        Raises UsageError for a place that cannot be written to, and for a file that is not a
        baseline.
        """
        before = verifier.load(save) if save is not None and save.exists() else None
        reports.make_room(save, None if csv is None else csv / "kernel.csv")
        return cls(reports, csv, save, before, partial, look)

    def end(self, matrix: Matrix, folder: RunFolder, *, page: bool = True) -> NoReturn:
        """Show and write all of it, and exit; ``page``: the page in ``folder`` says the same."""
        show(matrix, folder, sys.stdout, self.look, page=page)
        self.reports.render(matrix, folder)
        if self.csv is not None:
            write_csv(matrix, self.csv, self.reports)
        if self.save is not None:
            kept = verifier.baseline_of(matrix, self.before, partial=self.partial)
            self.reports.write(self.save, verifier.dumps(kept))
        self.reports.end(matrix)


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
    loaders: Sequence[str],
) -> None:
    if given or against:
        raise UsageError("--from-run judges an old run: leave OBJECT and --against out")
    if attach or types or loaders:
        raise UsageError(
            "--from-run judges an old run: leave --attach, --type, --libbpf and --loader out"
        )


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


def _modules(names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if not _MODULE.fullmatch(name):
            raise UsageError(f"--module {name}: write a module's name, for example nf_conntrack")
    return tuple(names)


def _log_limit(text: str) -> int:
    size = size_of(text, ("", "K", "M"))
    # The verifier's own bounds: kernel/bpf/log.c, bpf_verifier_log_attr_valid().
    if size is None or not 1024 <= size <= 256 << 20:
        raise UsageError(f"--log-limit {text}: write a size from 1K to 256M, for example 16M")
    return size


def _judged(matrix: Matrix, rules: Rules, folder: RunFolder, programs: tuple[str, ...]) -> Matrix:
    if not any(kernel.loads for kernel in matrix.kernels):
        raise UsageError(f"{folder.path}: is not a run of vmtest verify; name one that is")
    kernels = matrix.kernels
    if programs and "*" not in programs:
        kernels = tuple(verifier.narrowed(kernel, programs) for kernel in kernels)
    return replace(matrix, kernels=tuple(verifier.judge(kernel, rules) for kernel in kernels))


def _as_if(matrix: Matrix, given: tuple[tuple[str, ...], ...]) -> Matrix:
    """``matrix`` with the command line that judges as this one, whose options were ``given``.

    What the old run compared with and which programs it loaded holds where none are given now.
    """
    if not matrix.again:
        return matrix
    now = [group for group in given[1:] if group[0] in _JUDGING]
    named = {group[0] for group in now}
    replaced = {*named, "--fail-on", "--baseline"}
    replaced |= {"--against"} if "--baseline" in named else set()
    kept = [group for group in matrix.again if group[0] not in replaced]
    return replace(matrix, again=(*kept, *now))


def write_csv(matrix: Matrix, folder: Path, reports: Reports) -> None:
    """A file a kernel that has loads, for veristat."""
    for kernel in matrix.kernels:
        if kernel.loads:
            reports.write(folder / f"{kernel.kernel}.csv", veristat.render(kernel))
