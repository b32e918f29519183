"""What a bisect asks when it asks the suites of kernels.toml."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from vmtest.bisect.observe import of_tests
from vmtest.bisect.question import Work
from vmtest.config import select
from vmtest.errors import UsageError
from vmtest.kernels import default_cache
from vmtest.model.project import Config
from vmtest.objects import builds as objects
from vmtest.rootfs.prepare import wheels_asked
from vmtest.suites.payload import pack_suites
from vmtest.suites.task import SuitesTaskFactory


def work_of_suites(
    settings: Config, names: Sequence[str], expression: str | None, log: Callable[[str], None]
) -> Work:
    """Whether the suites ``names`` (all without any) pass; ``expression`` as for ``-k``.

    ``log`` is told of a guest image that is built for them.
    Raises UsageError.
    """
    suites = select.select_suites(settings.suites, names)
    if not suites:
        raise UsageError(
            f"{settings.file}: there is no [[suite]]; add one, or name an object with `verify`"
        )
    needed = {name for suite in suites for name in suite.objects}
    options = () if expression is None else ("-k", expression)
    bare = tuple(replace(suite, objects=()) for suite in suites)
    tasks = SuitesTaskFactory(settings, suites, settings.objects, options, narrowed=True)
    tasks.read()
    files = tasks.files
    read = {
        (build.name, objects.read_object(build.name, build.path, files).sha256)
        for build in settings.objects
        if build.name in needed
    }
    payload = pack_suites(settings.suites, bare, {}, files=files)
    asked = {
        "suites": [suite.name for suite in suites],
        "tests": expression,
        "payload": hashlib.sha256(payload.archive).hexdigest(),
        "objects": sorted(map(list, read)),
        "wheels": wheels_asked(settings, default_cache(), log, files),
    }
    words_of = [word for name in names for word in ("--suite", name)]
    return Work(
        asked,
        tasks.task,
        of_tests,
        ("run", *words_of, *options),
        (*words_of, *options),
        files,
        tuple(suite.name for suite in suites),
    )
