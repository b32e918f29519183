"""What each kernel of a bisect is asked, from the options that ask it."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vmtest.bisect import observe as observations
from vmtest.bisect.probes import Judge
from vmtest.cli import common
from vmtest.cli.common import say
from vmtest.cli.inputs import build_first
from vmtest.command.files import check_program, parse_copy, read_copies, suite_of
from vmtest.command.formats.format import parse_format
from vmtest.command.task import command_tasks
from vmtest.config import select
from vmtest.config.suggest import suggestion
from vmtest.errors import UsageError
from vmtest.host.files import Files
from vmtest.model.project import Config
from vmtest.objects import builds as objects
from vmtest.objects import inspect as objectfile
from vmtest.rootfs.image import digest_wheel
from vmtest.suites.payload import pack
from vmtest.suites.task import SuitesTasks
from vmtest.verify import objects as loadables
from vmtest.verify import types
from vmtest.verify.baseline import FailOn, Rules
from vmtest.verify.objects import Given
from vmtest.verify.process import Order
from vmtest.verify.task import verify_tasks


@dataclass(frozen=True, slots=True)
class Written:
    """What each kernel is to be asked, as the options have it."""

    suite: tuple[str, ...]
    expression: str | None
    verify: str | None
    command: str | None
    copy: tuple[str, ...]
    results: str | None
    types: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        suite: Sequence[str] | None,
        expression: str | None,
        verify: str | None,
        command: str | None,
        copy: Sequence[str] | None,
        results: str | None,
        types: Sequence[str] | None,
    ) -> Written:
        """The options as typer has them: None for a list that nobody gave."""
        suites, copies, told = (tuple(given or ()) for given in (suite, copy, types))
        return cls(suites, expression, verify, command, copies, results, told)

    @property
    def suites_asked(self) -> bool:
        """Whether it is the suites of kernels.toml."""
        return self.verify is None and self.command is None

    def check(self) -> None:
        """Raise UsageError when they are options of two questions."""
        tests = bool(self.suite) or self.expression is not None
        if self.verify is not None and tests:
            raise UsageError("--verify: loads an object; leave --suite and -k out")
        if self.command is not None and (tests or self.verify is not None):
            raise UsageError("--exec: runs a command; leave --suite, -k and --verify out")
        if self.verify is None and self.types:
            raise UsageError("--type: is for an object; name it with --verify OBJECT[:PROGRAM]")
        types.parse(self.types)
        if self.command is None and (self.copy or self.results is not None):
            raise UsageError("--copy, --results: are for a command; name it with --exec CMD")


@dataclass(frozen=True, slots=True)
class Work:
    """What each kernel is asked: ``asked`` is it as JSON, ``command`` reproduces it.

    ``options`` are those of a bisect that ask it, ``files`` has read what is asked.
    """

    asked: dict[str, Any]
    task: Callable[[Any], Any]
    judge: Judge
    command: tuple[str, ...]
    options: tuple[str, ...]
    files: Files
    suites: tuple[str, ...] = ()
    ran: tuple[str, ...] = ()


def settings_for(written: Written, config: Path | None) -> Config:
    """The configuration, which only suites cannot do without; raises UsageError."""
    written.check()
    read = common.load_config if written.suites_asked else common.load_config_or_builtin
    # What is expected to fail somewhere is what a bisect is about: only outcomes count.
    return replace(read(config), known_failures=())


def work_of(settings: Config, written: Written) -> Work:
    """What each kernel is asked; raises UsageError."""
    # Once, not in every round.  A file that is named is the one that lies there.
    file = written.verify is not None and not _configured(settings, written.verify)
    build_first(settings, say, () if file else None)
    if written.verify is not None:
        return _load(settings, written.verify, written.types)
    if written.command is not None:
        return _command(settings, written.command, written.copy, written.results)
    return _suites(settings, written.suite, written.expression)


def _suites(settings: Config, names: Sequence[str], expression: str | None) -> Work:
    suites = select.select_suites(settings.suites, names)
    if not suites:
        raise UsageError(f"{settings.file}: there is no [[suite]]; add one, or give --verify")
    needed = {name for suite in suites for name in suite.objects}
    options = () if expression is None else ("-k", expression)
    bare = tuple(replace(suite, objects=()) for suite in suites)
    tasks = SuitesTasks(settings, suites, settings.objects, options, narrowed=True)
    tasks.read()
    files = tasks.files
    read = {
        (build.name, objects.read_object(build.name, build.path, files).sha256)
        for build in settings.objects
        if build.name in needed
    }
    asked = {
        "suites": [suite.name for suite in suites],
        "tests": expression,
        "payload": hashlib.sha256(pack(settings.suites, bare, {}, files=files).archive).hexdigest(),
        "objects": sorted(map(list, read)),
        "wheels": _wheels(settings, files),
    }
    words_of = [word for name in names for word in ("--suite", name)]
    return Work(
        asked,
        tasks.task,
        observations.of_suites,
        ("run", *words_of, *options),
        (*words_of, *options),
        files,
        tuple(suite.name for suite in suites),
    )


def _load(settings: Config, wanted: str, told: Sequence[str]) -> Work:
    found, program = _given(settings, wanted)
    given = types.told_to(found, types.parse(told), Path.cwd())
    name = given[0].build.name
    files = Files()
    order = Order(objects=(), programs=(program or "*",))
    asked = {
        "object": name,
        "program": program,
        "types": list(told),
        "sha256": sorted(files.read(one.build.path, "objects").sha256 for one in given),
        "wheels": _wheels(settings, files),
    }
    words_of = [word for text in told for word in ("--type", text)]
    return Work(
        asked,
        verify_tasks(given, (), order, Rules(FailOn(rejected=True)), files=files),
        partial(observations.of_load, object_=name, program=program),
        ("verify", name, *(("--program", program) if program else ()), *words_of),
        ("--verify", wanted, *words_of),
        files,
    )


def _command(settings: Config, line: str, copy: Sequence[str], results: str | None) -> Work:
    try:
        argv = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"--exec {line}: {error}; quote it as for a shell") from error
    copies, format = [parse_copy(text) for text in copy], parse_format(results)
    copied, files = read_copies(copies), Files()
    check_program(argv, copied.places)
    read = {
        (build.name, objects.read_object(build.name, build.path, files).sha256)
        for build in settings.objects
    }
    asked = {
        "command": argv,
        "results": results,
        "copied": [[place, *fact] for place, fact in sorted(copied.facts.items())],
        "objects": sorted(map(list, read)),
        "wheels": _wheels(settings, files),
    }
    options = [word for text in copy for word in ("--copy", text)]
    options += [] if results is None else ["--results", results]
    return Work(
        asked,
        command_tasks(argv, copied, settings.objects, files, format),
        observations.of_command,
        ("exec", *options),
        ("--exec", line, *options),
        files,
        (suite_of(argv),),
        tuple(argv),
    )


def _wheels(settings: Config, files: Files) -> list[str]:
    """What the guest image gets of the project, by digest; raises ImageError."""
    return sorted(digest_wheel(wheel, files) for wheel in settings.guest.wheels)


def _split(wanted: str) -> tuple[str, str]:
    """The object, and the program or ""; the path itself may have a colon."""
    path, _, program = (wanted, "", "") if Path(wanted).exists() else wanted.rpartition(":")
    return (path, program) if path else (program, "")


def _configured(settings: Config, wanted: str) -> bool:
    """Whether the object is named as an ``[[object]]`` of kernels.toml."""
    return bool(loadables.named(_split(wanted)[0], settings.objects, Path.cwd()))


def _given(settings: Config, wanted: str) -> tuple[tuple[Given, ...], str]:
    """The builds of the object, and the program or ""."""
    path, program = _split(wanted)
    found = loadables.expand([path], settings.objects, Path.cwd())
    if len({one.build.name for one in found}) != 1:
        raise UsageError(f"--verify {wanted}: means {len(found)} objects; name one")
    if program:
        names = {info.name for one in found for info in objectfile.inspect(one.build.path).programs}
        if program not in names:
            raise UsageError(
                f'--verify {wanted}: {path} has no program "{program}"{suggestion(program, names)}'
            )
    return found, program
