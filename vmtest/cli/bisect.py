"""``vmtest bisect``: the first packaged kernel that breaks a test or rejects a program."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from vmtest import bisection, loadables, objectfile, objects, observations, runs
from vmtest import config as configuration
from vmtest.bisection import Outcome, Point, Question, Recorded, Standing, Watch
from vmtest.cache import sha256_file
from vmtest.cli import common
from vmtest.cli.exec import parse_format
from vmtest.cli.report import read_matrix
from vmtest.cli.run import facts_of
from vmtest.commands import check_program, members, parse_copy, suite_of
from vmtest.config import Config, suggestion
from vmtest.errors import UsageError
from vmtest.events import Event
from vmtest.kernels import Store, default_cache
from vmtest.kernels.apt import AptSource, OutOfOrder
from vmtest.kernels.candidates import check_version
from vmtest.loadables import Given
from vmtest.loader import Order
from vmtest.matrix import Plan, memory_available_mib
from vmtest.matrix import slots as slots_of
from vmtest.model import AptArchive, AptSpec, Kernel, KernelResult, Matrix, Status
from vmtest.observations import Observation
from vmtest.probes import Judge, Matrices
from vmtest.report import bisection as words
from vmtest.report import live, matrix_json
from vmtest.runs import RunFolder
from vmtest.suites import pack
from vmtest.tasks.command import command_tasks
from vmtest.tasks.suites import SuitesTasks
from vmtest.tasks.verify import verify_tasks
from vmtest.verifier import FailOn, Rules

EXAMPLE = """Find the first packaged kernel that breaks a test or a command, or refuses a program.

With --find fixed, the first that mends it.  A and B are versions (6.12.117, a package version,
6.12 for its newest) or kernels of kernels.toml.

Example: [bold]vmtest bisect --good 6.1 --bad 6.12 --suite sendmsg -k ipv4[/bold]
"""

_SERIES = re.compile(r"\d+\.\d+")


class Find(StrEnum):
    """What the change is."""

    BROKEN = "broken"
    FIXED = "fixed"


def bisect(
    good: Annotated[str, typer.Option(metavar="A", help="A kernel that is good.")],
    bad: Annotated[str, typer.Option(metavar="B", help="A kernel that is bad.")],
    suite: Annotated[list[str] | None, typer.Option(help="Which suites; default all.")] = None,
    expression: Annotated[str | None, typer.Option("-k", help="As in pytest.")] = None,
    verify: Annotated[
        str | None,
        typer.Option(metavar="OBJECT[:PROGRAM]", help="Does this load? Instead of suites."),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option("--exec", metavar="CMD", help="Does this end with status 0? As vmtest exec."),
    ] = None,
    copy: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|DIR[:GUESTPATH]", help="With --exec: into its working folder."),
    ] = None,
    results: Annotated[
        str | None,
        typer.Option(metavar="gotest|tap|junit:PATH", help="With --exec: tests in its output."),
    ] = None,
    find: Annotated[Find, typer.Option(help="What broke it, or what fixed it.")] = Find.BROKEN,
    repeat: Annotated[
        int, typer.Option(min=1, help="Ask each kernel so often; one that disagrees is flaky.")
    ] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Kernels asked at once; default what CPUs and memory allow."),
    ] = None,
    cached: Annotated[
        bool, typer.Option("--cached", help="Only kernels in the cache: no downloads.")
    ] = False,
    archive: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which [apt.NAME], where there are several.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last interrupted one that asked this.")
    ] = False,
    accel: common.AccelOption = "auto",
    config: common.ConfigOption = None,
) -> None:
    """Search; the module's EXAMPLE is its help."""
    with common.reported():
        common.clean_up_on_signals()
        common.check_accelerator(accel)
        tests = bool(suite) or expression is not None
        _check_one_question(tests, verify, command, bool(copy) or results is not None)
        bare = verify is None and command is None
        read = common.load_config if bare else common.load_config_or_builtin
        # What is expected to fail somewhere is what a bisect is about: only outcomes count.
        settings = replace(read(config), known_failures=())
        apt = _archive(settings, archive)
        if verify is not None:
            work = _load(settings, verify)
        elif command is not None:
            work = _command(settings, command, copy or [], results)
        else:
            work = _suites(settings, suite or [], expression)
        asked: dict[str, Any] = {
            "good": good,
            "bad": bad,
            "archive": apt.name,
            "find": find.value,
            "repeat": repeat,
            "cached": cached,
            **work.asked,
        }
        cache = default_cache()
        if resume:
            path, recorded = bisection.find_interrupted(
                settings.directory / runs.STATE / "runs", asked
            )
            folder = RunFolder(path)
        else:
            question = _question(settings, apt, Store(cache), asked)
            recorded, folder = Recorded(question), runs.create(settings.directory)
        kernels = tuple(_pinned(settings, apt, point) for point in recorded.question.points)
        slots = jobs or slots_of(kernels, len(os.sched_getaffinity(0)), memory_available_mib())
        plan = Plan(
            config=settings,
            kernels=kernels,
            task=work.task,
            cache=cache,
            folder=folder,
            suites=work.suites,
            command=work.ran,
            build=False,
            jobs=slots,
            accelerator=accel,
        )
        with closing(bisection.Journal.open(folder.path)) as journal:
            if not resume:
                folder.describe(facts_of(settings, plan))
                bisection.begin(journal, recorded.question)
            names, place = recorded.question.names, os.path.relpath(folder.path)
            _say(words.opening(names, slots, place, len(recorded.seen)))
            display = _Display(recorded.question, slots)
            probe = Matrices(plan, work.judge, display.handle, _save, _before(folder, resume))
            watch = Watch(display.begins, display.told)
            try:
                outcome = bisection.bisect(
                    recorded, slots, partial(display.during, probe), journal, watch
                )
            except KeyboardInterrupt:
                again = shlex.join(["vmtest", *_without_resume(sys.argv[1:]), "--resume"])
                _say(f"to go on: {again}")
                raise
        _say("")
        commands = _commands(outcome, apt, work, config)
        _say(words.render(outcome, commands, os.path.relpath(folder.path)))


@dataclass(frozen=True, slots=True)
class _Work:
    """What each kernel is asked: ``asked`` is it as JSON, ``command`` reproduces it."""

    asked: dict[str, Any]
    task: Callable[[Any], Any]
    judge: Judge
    command: tuple[str, ...]
    suites: tuple[str, ...] = ()
    ran: tuple[str, ...] = ()


def _check_one_question(
    tests: bool, verify: str | None, command: str | None, exec_options: bool
) -> None:
    if verify is not None and tests:
        raise UsageError("--verify: loads an object; leave --suite and -k out")
    if command is not None and (tests or verify is not None):
        raise UsageError("--exec: runs a command; leave --suite, -k and --verify out")
    if command is None and exec_options:
        raise UsageError("--copy, --results: are for a command; name it with --exec CMD")


def _suites(settings: Config, names: Sequence[str], expression: str | None) -> _Work:
    suites = configuration.select_suites(settings.suites, names)
    if not suites:
        raise UsageError(f"{settings.file}: there is no [[suite]]; add one, or give --verify")
    needed = {name for suite in suites for name in suite.objects}
    if needed and settings.build is not None:
        objects.run_build(settings.build, settings.directory)  # once, not in every round
    for build in settings.objects:
        if build.name in needed:
            objects.check_object(build.name, build.path)
    options = () if expression is None else ("-k", expression)
    bare = tuple(replace(suite, objects=()) for suite in suites)
    tasks = SuitesTasks(settings, suites, settings.objects, options, narrowed=True)
    asked = {
        "suites": [suite.name for suite in suites],
        "tests": expression,
        "payload": hashlib.sha256(pack(settings.suites, bare, {}).archive).hexdigest(),
        "objects": sorted(
            [b.name, sha256_file(b.path)] for b in settings.objects if b.name in needed
        ),
    }
    words_of = [word for name in names for word in ("--suite", name)]
    return _Work(
        asked,
        tasks.task,
        observations.of_suites,
        ("run", *words_of, *options),
        tuple(suite.name for suite in suites),
    )


def _load(settings: Config, wanted: str) -> _Work:
    given, program = _given(settings, wanted)
    path = given.build.path
    order = Order(objects=(), programs=(program or "*",))
    asked = {"object": given.build.name, "program": program, "sha256": sha256_file(path)}
    return _Work(
        asked,
        verify_tasks([given], (), order, Rules(FailOn(rejected=True))),
        partial(observations.of_load, object_=given.build.name, program=program),
        ("verify", given.build.name, *(("--program", program) if program else ())),
    )


def _command(settings: Config, line: str, copy: Sequence[str], results: str | None) -> _Work:
    try:
        argv = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"--exec {line}: {error}; quote it as for a shell") from error
    copies, format = [parse_copy(text) for text in copy], parse_format(results)
    if settings.build is not None:
        objects.run_build(settings.build, settings.directory)  # once, not in every round
    there = members(copies)
    check_program(argv, there)
    for build in settings.objects:
        objects.check_object(build.name, build.path)
    files = {str(place): path for place, path in sorted(there.items())}
    asked = {
        "command": argv,
        "results": results,
        "copied": [
            [place, path.lstat().st_mode, sha256_file(path) if path.is_file() else ""]
            for place, path in files.items()
        ],
        "objects": sorted([b.name, sha256_file(b.path)] for b in settings.objects),
    }
    options = [word for text in copy for word in ("--copy", text)]
    options += [] if results is None else ["--results", results]
    return _Work(
        asked,
        command_tasks(argv, copies, settings.objects, format),
        observations.of_command,
        ("exec", *options),
        (suite_of(argv),),
        tuple(argv),
    )


def _given(settings: Config, wanted: str) -> tuple[Given, str]:
    """The object, and the program or ""; the path itself may have a colon."""
    path, _, program = (wanted, "", "") if Path(wanted).exists() else wanted.rpartition(":")
    if not path:
        path, program = program, ""
    found = loadables.expand([path], settings.objects, Path.cwd())
    if len(found) != 1:
        raise UsageError(f"--verify {wanted}: means {len(found)} objects; name one")
    if program:
        names = {info.name for info in objectfile.inspect(found[0].build.path).programs}
        if program not in names:
            raise UsageError(
                f'--verify {wanted}: {path} has no program "{program}"{suggestion(program, names)}'
            )
    return found[0], program


def _archive(settings: Config, name: str | None) -> AptArchive:
    archives = settings.archives
    if not archives:
        raise UsageError(
            f"{settings.file}: there is no [apt.NAME], so there are no packages to go through; "
            f'add one, for example [apt.debian] with suites = ["trixie-security"]'
        )
    if name is None and len(archives) > 1:
        raise UsageError(f"{settings.file}: has several [apt.NAME]; choose one with --archive NAME")
    chosen = next(iter(archives)) if name is None else name
    if chosen not in archives:
        raise UsageError(
            f"--archive {name}: there is no [apt.{name}]{suggestion(chosen, archives)}"
        )
    return archives[chosen]


def _question(
    settings: Config, archive: AptArchive, store: Store, asked: dict[str, Any]
) -> Question:
    source, fixed = AptSource(archive), asked["find"] == Find.FIXED
    good, bad = asked["good"], asked["bad"]
    older, newer = (bad, good) if fixed else (good, bad)
    words_of = ("--bad", "--good") if fixed else ("--good", "--bad")
    first, last = (
        _version(settings, archive, store, word, end)
        for word, end in zip(words_of, (older, newer), strict=True)
    )
    try:
        span = source.between(first, last, settings.defaults, store, cached=asked["cached"])
    except OutOfOrder as error:
        other = Find.BROKEN if fixed else Find.FIXED
        raise UsageError(
            f"{error}: with --find {asked['find']}, --{'bad' if fixed else 'good'} is the older "
            f"end; swap them, or did you mean --find {other.value}?"
        ) from error
    if len(span.kernels) < 2:
        raise UsageError(
            f"--good {good} --bad {bad}: both are {span.kernels[0].name}; choose another end"
        )
    return Question(
        asked,
        tuple(map(_point, span.kernels)),
        find_fixed=fixed,
        repeat=asked["repeat"],
        gone=tuple(map(_point, span.gone)),
        left_out=tuple(map(_point, span.left_out)),
    )


def _version(settings: Config, archive: AptArchive, store: Store, word: str, written: str) -> str:
    """What an end as it was written asks the archive for: a version or a pattern."""
    named = [kernel for kernel in settings.kernels if kernel.name == written]
    if not named:
        version = f"{written}.*" if _SERIES.fullmatch(written) else written
        try:
            check_version(version)
        except UsageError:
            names = {kernel.name for kernel in settings.kernels}
            raise UsageError(
                f"{word} {written}: is no version (6.12.117, 6.12.117-1, 6.12 for its newest), "
                f"and no kernel of {settings.file.name}{suggestion(written, names)}"
            ) from None
        return version
    spec = named[0].spec
    if not isinstance(spec, AptSpec) or spec.archive != archive.name:
        raise UsageError(
            f'{settings.file.name}: kernel "{written}" is no package of [apt.{archive.name}]; '
            f"a bisect goes through its packages: write a version"
        )
    return AptSource(archive).resolve(named[0], store).version.text


def _point(kernel: Kernel) -> Point:
    assert isinstance(kernel.spec, AptSpec)
    return Point(kernel.name, kernel.spec.version, kernel.spec.suites[0])


def _pinned(settings: Config, archive: AptArchive, point: Point) -> Kernel:
    spec = AptSpec(archive.name, point.version, (point.suite,))
    return replace(settings.defaults, name=point.name, spec=spec)


class _Display:
    """Prints where a bisect stands, and each round's VMs live."""

    def __init__(self, question: Question, slots: int) -> None:
        self._question = question
        self._slots = slots
        self._view: live.View | None = None
        self._told: list[str] = []
        self._took: list[float] = []

    def begins(self, standing: Standing) -> None:
        """Say what a round asks."""
        question, took = self._question, self._took
        per_round = question.repeat * sum(took) / len(took) if took else 0.0
        _say(words.standing(standing, question.names, question.find_fixed, per_round))

    def told(self, place: int, attempt: int, one: Observation) -> None:
        """Keep what a point said until the live view is gone."""
        question = self._question
        self._told.append(words.observed(question.names[place], attempt, question.repeat, one))

    def handle(self, event: Event) -> None:
        """Show an event of the round that runs."""
        assert self._view is not None
        self._view.handle(event)

    def during(
        self, probe: Matrices, points: tuple[int, ...], attempt: int, told: bisection.Told
    ) -> None:
        """Ask ``points`` by ``probe`` with a live view of its own."""
        began = time.monotonic()
        self._view = live.view(sys.stdout)
        try:
            with self._view:
                probe(points, attempt, told)
        finally:
            for line in self._told:
                _say(f"  {line}")
            self._told.clear()
        # The ends may have had to wait for each other.
        self._took.append((time.monotonic() - began) / math.ceil(len(points) / self._slots))


def _save(folder: RunFolder, matrix: Matrix) -> None:
    folder.write("matrix.json", matrix_json.render(matrix))


def _before(folder: RunFolder, resume: bool) -> tuple[KernelResult, ...]:
    """The results that an interrupted bisect left; one that it was busy with is none."""
    if not resume or not (folder.path / "matrix.json").exists():
        return ()
    found = read_matrix(folder).kernels
    return tuple(result for result in found if result.status is not Status.CANCELLED)


def _without_resume(arguments: Sequence[str]) -> list[str]:
    return [word for word in arguments if word != "--resume"]


def _commands(
    outcome: Outcome, archive: AptArchive, work: _Work, config: Path | None
) -> dict[int, str]:
    """The command that asks each of the two kernels again, by place."""
    more = [] if config is None else ["--config", str(config)]
    found = {}
    for place in (outcome.answer.last, outcome.answer.first):
        version = outcome.question.points[place].version
        words_of = ["vmtest", *work.command, "--kernel", f"{archive.name}/{version}", *more]
        words_of += ["--", *work.ran] if work.ran else []
        found[place] = shlex.join(words_of)
    return found


def _say(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)
