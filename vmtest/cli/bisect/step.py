"""``vmtest bisect step``: one answer for the user's own ``git bisect run``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vmtest.bisect import render as words
from vmtest.bisect.journal import Recorded
from vmtest.bisect.observe import Observation, combined
from vmtest.bisect.probes import Builds, Matrices, Twice
from vmtest.bisect.question import Point, Question, Work
from vmtest.bisect.search import Verdict
from vmtest.cli import common
from vmtest.cli.bisect.question import Written, settings_for, work_of
from vmtest.cli.bisect.shared import (
    CopyOption,
    Display,
    ExecOption,
    KconfigOption,
    RepeatOption,
    ResultsOption,
    SuiteOption,
    TestsOption,
    TypeOption,
    VerifyOption,
    check_kconfig,
    save,
)
from vmtest.cli.bisect.tree import tree_at
from vmtest.cli.common import say
from vmtest.cli.run import facts_of
from vmtest.kernels import Store, default_cache
from vmtest.matrix.plan import Plan
from vmtest.model.kernels import Kernel, TreeSpec
from vmtest.model.project import Config
from vmtest.runs import folder as runs
from vmtest.runs.folder import RunFolder

STOP = 128
"""From here on ``git bisect run`` gives up (git-bisect(1))."""
_STATUS = {Verdict.GOOD: 0, Verdict.BAD: 1, Verdict.SKIP: 125, Verdict.FLAKY: 125}

EXAMPLE = """Build the tree as it is now, boot it, judge: for git bisect run.

Ends with 0 (good), 1 (bad), 125 (cannot tell: git skips it), 128 (git stops: configuration, host).

Example: [bold]git bisect run vmtest bisect step --config ~/mesh/kernels.toml --suite sendmsg[/bold]
"""


def step(
    path: Annotated[
        Path, typer.Argument(metavar="[PATH]", help="The kernel's tree; else the current folder's.")
    ] = Path(),
    rev: Annotated[
        str | None, typer.Option(metavar="REV", help="This revision in place of what is there.")
    ] = None,
    suite: SuiteOption = None,
    expression: TestsOption = None,
    verify: VerifyOption = None,
    type_: TypeOption = None,
    command: ExecOption = None,
    copy: CopyOption = None,
    results: ResultsOption = None,
    kconfig: KconfigOption = None,
    repeat: RepeatOption = 1,
    accel: common.AccelOption = "auto",
    config: common.ConfigOption = None,
) -> None:
    """Answer; the module's EXAMPLE is its help."""
    with common.reported(own=STOP):
        common.clean_up_on_signals()
        common.check_accelerator(accel)
        written = Written.of(suite, expression, verify, command, copy, results, type_)
        settings = settings_for(written, config)
        check_kconfig(kconfig)
        tree = tree_at(path)
        work = work_of(settings, written)
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
        jobs=1,
        accelerator=accelerator,
    )
    folder.describe(facts_of(settings, plan))
    recorded = Recorded(Question(work.asked, (Point(kernel.name, ""),), repeat=repeat))
    display = Display(recorded, 1, kernel.name)
    asking = Matrices(plan, work.judge, display.handle, save)
    probe = Builds(lambda: plan.kernels, Store(plan.cache), Twice(asking), display.handle)
    seen: list[Observation] = []
    for attempt in range(1, repeat + 1):
        if combined(seen) is not Verdict.FLAKY:
            display.during(probe, (0,), attempt, lambda place, one: seen.append(one))
    return seen
