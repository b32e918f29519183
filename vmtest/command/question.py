"""What a bisect asks when it asks a command."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

from vmtest.bisect.observe import Observation, of_tests, short
from vmtest.bisect.question import Work
from vmtest.bisect.search import Verdict
from vmtest.command.files import check_program, parse_copy, read_copies, suite_of
from vmtest.command.formats.format import parse_format
from vmtest.command.task import command_tasks
from vmtest.errors import UsageError
from vmtest.host.files import Files
from vmtest.kernels import default_cache
from vmtest.matrix.follow import status_words
from vmtest.model.project import Config
from vmtest.model.results import KernelResult, Status
from vmtest.model.secrets import words_without_secrets
from vmtest.objects import builds as objects
from vmtest.rootfs.prepare import wheels_asked


def work_of_command(
    settings: Config,
    line: str,
    copy: Sequence[str],
    results: str | None,
    log: Callable[[str], None],
) -> Work:
    """Whether the command ``line``, words as for a shell, ends with status 0.

    ``copy`` and ``results`` as for ``vmtest exec``; ``log`` is told of a guest image that is built
    for it.  Raises UsageError.
    """
    try:
        argv = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"`command` {line}: {error}; quote it as for a shell") from error
    copies, format = [parse_copy(text) for text in copy], parse_format(results)
    copied, files = read_copies(copies), Files()
    check_program(argv, copied.places)
    read = {
        (build.name, objects.read_object(build.name, build.path, files).sha256)
        for build in settings.objects
    }
    asked = {
        "command": words_without_secrets(argv),
        "results": results,
        "copied": [[place, *fact] for place, fact in sorted(copied.facts.items())],
        "objects": sorted(map(list, read)),
        "wheels": wheels_asked(settings, default_cache(), log, files),
    }
    options = [word for text in copy for word in ("--copy", text)]
    options += [] if results is None else ["--results", results]
    return Work(
        asked,
        command_tasks(argv, copied, settings.objects, files, format),
        of_command,
        ("exec", *options),
        ("--exec", line, *options),
        files,
        (suite_of(argv),),
        tuple(words_without_secrets(argv)),
    )


_CANNOT_TELL = 125  # git-bisect(1)


def of_command(result: KernelResult, folder: str) -> Observation:
    """As ``of_tests``; a command that ends with 125 tells nothing, as under ``git bisect run``."""
    ended = "" if result.exit_status is None else status_words(result.exit_status)
    one = of_tests(result, folder, ended)
    if result.status is Status.FAILED and result.exit_status == _CANNOT_TELL:
        return replace(one, verdict=Verdict.SKIP)
    if one.verdict is Verdict.GOOD and len(result.tests) == 1:
        return replace(one, why=short(result.tests[0].message or one.why))
    return one
