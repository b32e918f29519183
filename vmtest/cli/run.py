"""``vmtest run``: the matrix."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, TextIO

import typer

from vmtest.cli import common
from vmtest.cli.inputs import build_first
from vmtest.cli.reports import Reports
from vmtest.cli.terminal import InteractiveHold
from vmtest.config import select
from vmtest.errors import UsageError
from vmtest.kernels import Store, default_cache
from vmtest.kernels.resolve import choose_kernels, resolve_all
from vmtest.matrix.bench import Hold
from vmtest.matrix.plan import Plan
from vmtest.matrix.runner import run_matrix
from vmtest.model.events import Event, Note
from vmtest.model.project import Config, ObjectFile
from vmtest.model.results import KernelResult, Matrix
from vmtest.model.versions import KernelVersion
from vmtest.objects import builds as objects
from vmtest.report import junit, live, terminal
from vmtest.report.live import View
from vmtest.runs import folder as runs
from vmtest.runs import matrix_json
from vmtest.runs.folder import RunFolder
from vmtest.suites.collect import StandIn, only_collects, stand_ins
from vmtest.suites.task import SuitesTaskFactory
from vmtest.vm.accel import qemu_version

EXAMPLE = """Boot kernels and run the suites in each.

Example: [bold]vmtest run --kernel '>=6.1,<6.13' --suite sendmsg -k ipv4 -x[/bold]
"""


def run(
    pytest_options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- OPTIONS OF PYTEST]", help="Passed on to the pytest in each kernel."
        ),
    ] = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|RANGE|tag:TAG|ARCHIVE/VERSION", help="Which kernels; default tag:default."
        ),
    ] = None,
    suite: Annotated[list[str] | None, typer.Option(help="Which suites; default all.")] = None,
    expression: Annotated[str | None, typer.Option("-k", help="As in pytest.")] = None,
    exitfirst: Annotated[bool, typer.Option("-x", help="As in pytest, in each kernel.")] = False,
    maxfail: Annotated[int | None, typer.Option(help="As in pytest, in each kernel.")] = None,
    durations: Annotated[int | None, typer.Option(help="As in pytest; see pytest.log.")] = None,
    collect_only: Annotated[bool, typer.Option("--collect-only", help="As in pytest.")] = False,
    jobs: common.JobsOption = None,
    object_: common.ObjectOption = None,
    config: common.ConfigOption = None,
    accel: common.AccelOption = "auto",
    warm: common.WarmOption = False,
    junit_file: common.JunitOption = None,
    markdown_file: common.MarkdownOption = None,
    json_file: common.JsonOption = None,
    shell_on_failure: Annotated[
        bool, typer.Option(help="Open a shell in a kernel that failed; one VM at a time.")
    ] = False,
    locked: common.LockedOption = False,
) -> None:
    """Run the matrix; the module's EXAMPLE is its help."""
    with common.reported():
        common.clean_up_on_signals()
        common.check_accelerator(accel)
        settings = common.load_config(config)
        passed_on = _passed_on(pytest_options or [])
        given = [objects.parse_given(item) for item in object_ or []]
        suites = select.select_suites(settings.suites, suite or [])
        if not suites:
            raise UsageError(f"{settings.file}: there is no [[suite]]; add one")
        builds = objects.override(settings.objects, given)
        needed = {name for s in suites for name in s.objects}
        check_patterns(settings, kernel or [])
        make_room_for_reports(junit_file, markdown_file, json_file)
        view = live.view(sys.stdout)
        whole = bool(needed) and needed <= {build.name for build in given}
        build_first(settings, noted(view), [build.path for build in given] if whole else None)
        for build in given:
            objects.check_object(build.name, build.path)
        tasks = SuitesTaskFactory(
            settings,
            suites,
            builds,
            (
                *_pytest_options(expression, exitfirst, maxfail, durations, collect_only),
                *passed_on,
            ),
            narrowed=expression is not None or bool(passed_on),
        )
        tasks.read()
        cache = default_cache()
        kernels, resolved = choose_kernels(settings, kernel or [], cache, locked)
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
        asked: tuple[StandIn, ...] = ()
        if collects:
            known = {name: found.version for name, found in resolved.items()}
            asked = stand_ins(kernels, builds, needed, known)
            kernels = tuple(one.kernel for one in asked)
            tasks = replace(tasks, narrowed=tasks.narrowed or any(one.others for one in asked))
        told = tuple(one.note for one in asked if one.note)
        hold = InteractiveHold(view) if shell_on_failure else None
        plan = Plan(
            config=settings,
            kernels=kernels,
            task=tasks.task,
            cache=cache,
            folder=runs.create(settings.directory),
            suites=tuple(chosen.name for chosen in suites),
            jobs=1 if shell_on_failure else jobs,
            accelerator=accel,
            warm=warm,
            resolved=resolved,
            notes=lambda matrix: (*told, *tasks.notes(matrix)),
            files=tasks.files,
        )
        reports = Reports()
        matrix = carry_out(plan, builds, view, view.handle, reports, hold)
        if collects:
            show_collected(matrix, settings, builds)
        show(matrix, plan.folder, sys.stdout)
        reports.render(matrix, junit_file, markdown_file, json_file)
        reports.end(matrix)


def carry_out(
    plan: Plan,
    builds: tuple[ObjectFile, ...] | None,
    view: View,
    emit: Callable[[Event], None],
    reports: Reports,
    hold: Hold | None = None,
    also: Mapping[str, Mapping[str, str]] | None = None,
) -> Matrix:
    """Run ``plan`` under ``view``; ``reports`` writes run.json and matrix.json in its folder.

    ``also`` has the sha256 of files that ``plan.files`` did not read, by kind and place.

    ``builds`` are those that the kernels' objects are chosen of; None for a plan without
    tests, else each kernel gets its junit.xml.
    """
    folder, settings = plan.folder, plan.config
    facts = facts_of(settings, plan)
    if builds is not None:
        facts |= _suite_facts(settings, builds)
    folder.describe(facts)

    def save(matrix: Matrix) -> None:
        reports.write(folder.path / "matrix.json", matrix_json.render(matrix))

    with view:
        matrix = run_matrix(plan, emit, save, hold=hold)
    inputs = {"inputs": {**plan.files.digests(settings.directory), **(also or {})}}
    described = runs.described({**facts, **inputs, **_what_ran(matrix, settings, builds or ())})
    reports.write(folder.path / "run.json", described)
    for result in matrix.kernels if builds is not None else ():
        with suppress(OSError):  # the next line says what is wrong
            folder.kernel(result.kernel)  # a kernel that could not be had has none yet
        reports.write(folder.path / result.kernel / "junit.xml", junit.render_kernel(result))
    return matrix


def noted(view: View) -> Callable[[str], None]:
    """Has ``view`` show a line as a note."""
    return lambda line: view.handle(Note(line))


def check_patterns(settings: Config, patterns: list[str]) -> None:
    """Raise UsageError for a ``--kernel`` that cannot mean anything, before anything is built."""
    own = [pattern for pattern in patterns if select.packaged(settings, pattern) is None]
    select.select_kernels(settings.kernels, own, {})


def _passed_on(options: list[str]) -> list[str]:
    """What followed ``--``; raises UsageError for a word that did not."""
    if options and not options[0].startswith("-"):
        raise UsageError(
            f"{options[0]}: vmtest run takes no such argument; name a kernel with --kernel, "
            "a suite with --suite; options of pytest come after --, as in: vmtest run -- --upstream"
        )
    return options


def _pytest_options(
    expression: str | None,
    exitfirst: bool,
    maxfail: int | None,
    durations: int | None,
    collect_only: bool,
) -> tuple[str, ...]:
    options = []
    if expression is not None:
        options += ["-k", expression]
    if exitfirst:
        options.append("-x")
    if maxfail is not None:
        options.append(f"--maxfail={maxfail}")
    if durations is not None:
        options.append(f"--durations={durations}")
    if collect_only:
        options.append("--collect-only")
    return tuple(options)


def facts_of(settings: Config, plan: Plan) -> dict[str, object]:
    """What run.json says: enough to know what ran, and to run it again."""
    return {
        "arguments": sys.argv[1:],
        "config": settings.file.name,
        "started": runs.utc_now(),
        "kernels": [kernel.name for kernel in plan.kernels],
        "suites": list(plan.suites),
        "gates": {kernel.name: kernel.gate for kernel in plan.kernels},
        "versions": {
            "vmtest": metadata.version("vmtest"),
            "virtme-ng": metadata.version("virtme-ng"),
            "paramiko": metadata.version("paramiko"),
            "qemu": qemu_version(),
            "python": platform.python_version(),
            "host kernel": platform.release(),
        },
        "host": {"cpus": os.cpu_count(), "root": os.geteuid() == 0},
    }


def _suite_facts(settings: Config, builds: tuple[ObjectFile, ...]) -> dict[str, object]:
    return {
        "objects": [_build(settings, build) for build in builds],
        "known failures": [
            {
                "test": entry.test,
                "kernels": entry.kernels.text if entry.kernels else None,
                "reason": entry.reason,
                "until": str(entry.until) if entry.until else None,
            }
            for entry in settings.known_failures
        ],
    }


def _build(settings: Config, build: ObjectFile) -> dict[str, str | None]:
    return {
        "name": build.name,
        "path": os.path.relpath(build.path, settings.directory),
        "kernels": build.kernels.text if build.kernels else None,
    }


def _builds_of(
    result: KernelResult, settings: Config, builds: tuple[ObjectFile, ...]
) -> dict[str, str]:
    """The path of each object that went to a kernel, by name, relative to the project's folder."""
    if not (result.objects and builds):
        return {}
    chosen = objects.choose(builds, KernelVersion.parse(result.version))
    return {name: os.path.relpath(chosen[name], settings.directory) for name, _ in result.objects}


def _what_ran(
    matrix: Matrix, settings: Config, builds: tuple[ObjectFile, ...]
) -> dict[str, object]:
    """The digests and the accelerator of what did run, by kernel."""
    return {
        "ran": {
            result.kernel: {
                "release": result.release,
                "accelerator": result.accelerator,
                "kernel sha256": result.digest,
                "guest": result.guest,
                "libbpf": result.libbpf,
                "objects": _builds_of(result, settings, builds),
                "objects sha256": dict(result.objects),
            }
            for result in matrix.kernels
        }
    }


def make_room_for_reports(*files: Path | None) -> None:
    """Make the reports' folders before anything is run; raises UsageError when that fails."""
    for file in files:
        if file is None:
            continue
        if file.is_dir():
            raise UsageError(f"{file}: is a folder; name a file to be written")
        try:
            file.absolute().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{file}: cannot make its folder: {error.strerror}; name another file"
            ) from error


def show_collected(matrix: Matrix, settings: Config, builds: tuple[ObjectFile, ...]) -> None:
    """Print the tests that would run and the builds they would get, kernels that agree together."""
    lists: dict[tuple[str, ...], list[str]] = {}
    given: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for result in matrix.kernels:
        lists.setdefault(tuple(test.test for test in result.tests), []).append(result.kernel)
        if result.objects:
            chosen = tuple(_builds_of(result, settings, builds).items())
            given.setdefault(chosen, []).append(result.kernel)
    for tests, kernels in lists.items():
        common.say("\n".join([*tests, f"{len(tests)} tests on {', '.join(kernels)}", ""]))
    for chosen, kernels in given.items():
        paths = (f"  {name}: {path}" for name, path in chosen)
        common.say("\n".join([f"objects on {', '.join(kernels)}:", *paths, ""]))


def show(matrix: Matrix, folder: RunFolder, stream: TextIO) -> None:
    """Print the table on ``stream``, as wide and as colourful as the terminal is."""
    tty = stream.isatty()
    width = shutil.get_terminal_size((120, 24)).columns
    text = terminal.render(matrix, width=width, color=tty and "NO_COLOR" not in os.environ)
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=stream)
    common.say(f"logs: {os.path.relpath(folder.path)}", stream)
