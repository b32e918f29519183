"""``vmtest bisect step``: one answer for the user's own ``git bisect run``."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vmtest.api.bisect import save
from vmtest.api.commits import check_kconfig, tree_at
from vmtest.api.record import facts_of
from vmtest.api.work import work_of
from vmtest.bisect import render as words
from vmtest.bisect.journal import Recorded
from vmtest.bisect.observe import Observation, combined
from vmtest.bisect.probes import Builds, Matrices, Twice
from vmtest.bisect.question import Point, Question, Work
from vmtest.bisect.search import Verdict
from vmtest.cli import common, options
from vmtest.cli.bisect import shared
from vmtest.cli.bisect.question import request_of, settings_for
from vmtest.cli.bisect.shared import Display
from vmtest.cli.common import say
from vmtest.kernels import Store, default_cache
from vmtest.matrix.plan import Plan
from vmtest.model.kernels import Kernel, TreeSpec
from vmtest.model.project import Config
from vmtest.runs import folder as runs
from vmtest.runs.folder import RunFolder

STOP = 128
"""From here on ``git bisect run`` gives up (git-bisect(1))."""
_STATUS = {Verdict.GOOD: 0, Verdict.BAD: 1, Verdict.SKIP: 125, Verdict.FLAKY: 125}

EXAMPLE = """Build the kernel tree as it is now, boot it, and test it: for git bisect run.

The exit status is 0 (good), 1 (bad), 125 (cannot tell: git skips the commit),
or 128 (git stops: wrong configuration, or a fault of the host).

Example: [bold]git bisect run vmtest bisect step --config ~/mesh/kernels.toml --suite sendmsg[/bold]
"""


def step(
    path: Annotated[
        Path,
        typer.Argument(metavar="[PATH]", help="The kernel tree; default: the current folder's."),
    ] = Path(),
    rev: Annotated[
        str | None,
        typer.Option(metavar="REV", help="Test this revision; default: the files as they are."),
    ] = None,
    suite: options.SuiteOption = None,
    expression: options.TestsOption = None,
    verify: shared.VerifyOption = None,
    type_: shared.TypeOption = None,
    loader: shared.LoaderOption = None,
    command: shared.ExecOption = None,
    copy: shared.CopyOption = None,
    results: shared.ResultsOption = None,
    kconfig: shared.KconfigOption = None,
    repeat: shared.RepeatOption = 1,
    accel: options.AccelOption = "auto",
    config: options.ConfigOption = None,
) -> None:
    """Answer; the module's EXAMPLE is its help."""
    with common.reported(own=STOP):
        common.check_accelerator(accel)
        request = request_of(suite, expression, verify, command, copy, results, type_, loader)
        settings = settings_for(request, config)
        check_kconfig(kconfig)
        tree = tree_at(path)
        work = work_of(settings, request, say)
        kernel = replace(
            settings.defaults, name=tree.path.name, spec=TreeSpec(tree.path, rev, kconfig)
        )
        folder = runs.create(settings.directory)
        seen = _asked(settings, work, kernel, repeat, accel, folder)
        verdict = combined(seen)
        one = seen[-1]
        logs = os.path.relpath(folder.path / one.folder)
        say(f"vmtest bisect step: {words.answered(seen)}; logs: {logs}")
    raise typer.Exit(_STATUS[verdict])


def _asked(
    settings: Config, work: Work, kernel: Kernel, repeat: int, accelerator: str, folder: RunFolder
) -> list[Observation]:
    """What the kernel said, each time that it was asked."""
    plan = Plan(
        config=settings,
        kernels=(kernel,),
        task=work.task,
        files=work.files,
        cache=default_cache(),
        folder=folder,
        suites=work.suites,
        command=work.ran,
        wheels=work.wheels,
        jobs=1,
        accelerator=accelerator,
    )
    folder.describe(facts_of(plan, sys.argv[1:]))
    recorded = Recorded(Question(work.asked, (Point(kernel.name, ""),), repeat=repeat))
    display = Display(recorded, 1, kernel.name)
    asking = Matrices(plan, work.judge, display.handle, save)
    probe = Builds(lambda: plan.kernels, Store(plan.cache), Twice(asking), display.handle)
    seen: list[Observation] = []
    for attempt in range(1, repeat + 1):
        if combined(seen) is not Verdict.FLAKY:
            display.during(probe, (0,), attempt, lambda place, one: seen.append(one))
    return seen
