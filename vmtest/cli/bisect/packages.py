"""``vmtest bisect``: the first kernel, packaged or of a tree, that breaks a test."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from vmtest.api.bisect import BisectRequest, PlannedBisect, carry_out_bisect, plan_bisect
from vmtest.api.cluster import engine_on
from vmtest.api.commits import CommitsRequest
from vmtest.api.work import work_of
from vmtest.bisect import render as words
from vmtest.bisect.question import Conclusion, Find, Work
from vmtest.bisect.rounds import Watch
from vmtest.cli import common, options
from vmtest.cli.bisect import shared
from vmtest.cli.bisect import tree as gitbisect
from vmtest.cli.bisect.question import request_of, settings_for
from vmtest.cli.bisect.shared import Display, resumable
from vmtest.cli.common import say
from vmtest.errors import UsageError
from vmtest.matrix.engine import Engine
from vmtest.model.kernels import Archive
from vmtest.report.text import counted

EXAMPLE = """Find the first packaged kernel that fails a test or a command, or rejects an object.

--good and --bad name the two ends: versions (6.12.117, a package version,
or 6.12 for its newest) or kernels of kernels.toml.
With --find fixed it finds the first kernel that works again.

With --source tree PATH it finds the first commit of the kernel tree at PATH.
The ends are revisions then, and each kernel is built.

Example: [bold]vmtest bisect --good 6.1 --bad 6.12 --suite sendmsg -k ipv4[/bold]

Example: [bold]vmtest bisect --source tree ../linux --good v6.1 --bad HEAD --suite sendmsg[/bold]
"""


TREE = "--tree"
"""The option that the second word of ``--source tree PATH`` becomes."""


class Source(StrEnum):
    """Where the kernels come from."""

    APT = "apt"
    TREE = "tree"


class BisectGroup(TyperGroup):
    """``vmtest bisect`` itself takes options, and ``--source tree`` has a second word."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # typer's own class of context
        """Have the path after ``--source tree`` parsed as the option ``TREE``."""
        return super().parse_args(ctx, with_tree(args))


def with_tree(arguments: Sequence[str]) -> list[str]:
    """``--source tree PATH`` as ``--source tree --tree PATH``; without a path it is ``.``."""
    found = list(arguments)
    for n, word in enumerate(found):
        end = n + 1 if word == "--source=tree" else n + 2
        if word == "--source=tree" or found[n:end] == ["--source", "tree"]:
            if end < len(found) and not found[end].startswith("-"):
                found.insert(end, TREE)
            break
    return found


app = typer.Typer(
    cls=BisectGroup, help=EXAMPLE, invoke_without_command=True, rich_markup_mode="rich"
)


def bisect(
    context: typer.Context,
    good: shared.GoodOption = "",
    bad: shared.BadOption = "",
    suite: options.SuiteOption = None,
    expression: options.TestsOption = None,
    verify: shared.VerifyOption = None,
    type_: shared.TypeOption = None,
    loader: shared.LoaderOption = None,
    command: shared.ExecOption = None,
    copy: shared.CopyOption = None,
    results: shared.ResultsOption = None,
    source: Annotated[
        Source,
        typer.Option(
            metavar="apt|tree [PATH]",
            help="Search packaged kernels, or the commits of the kernel tree at PATH.",
        ),
    ] = Source.APT,
    tree: Annotated[Path | None, typer.Option(TREE, hidden=True)] = None,
    kconfig: shared.KconfigOption = None,
    find: shared.FindOption = Find.BROKEN,
    any_failure: shared.AnyFailureOption = False,
    repeat: shared.RepeatOption = 1,
    jobs: options.JobsOption = None,
    on: options.OnOption = None,
    cached: shared.CachedOption = False,
    archive: shared.ArchiveOption = None,
    resume: shared.ResumeOption = False,
    accel: options.AccelOption = "auto",
    warm: options.WarmOption = None,
    config: options.ConfigOption = None,
) -> None:
    """Search; the module's EXAMPLE is its help."""
    if context.invoked_subcommand is not None:
        return
    with common.reported():
        _check_ends(good, bad)
        common.check_accelerator(accel)
        work = request_of(suite, expression, verify, command, copy, results, type_, loader)
        settings = settings_for(work, config)
        asking = partial(work_of, settings, work, say)
        if source is Source.TREE:
            _check_tree_options(jobs, cached, archive, on)
            path = tree or Path()
            commits = CommitsRequest(
                path, good, bad, find, kconfig, repeat, resume, accel, any_failure
            )
            gitbisect.search(settings, commits, asking, config)
            return
        _check_apt_options(tree, kconfig)
        with engine_on(on, say, (settings.defaults,)) as engine:
            slots = jobs or (None if engine is None else engine.slots)
            given = (find, repeat, slots, cached, archive, resume, accel, warm, any_failure)
            request = BisectRequest(good, bad, *given)
            _search(plan_bisect(settings, request, asking), config, engine)


def _check_ends(good: str, bad: str) -> None:
    for name, end in (("--good", good), ("--bad", bad)):
        if not end:
            raise UsageError(f"Missing option '{name}': give both ends")


def _search(planned: PlannedBisect, config: Path | None, engine: Engine | None) -> None:
    recorded, slots = planned.recorded, planned.jobs
    names, place = recorded.question.names, os.path.relpath(planned.plan.folder.path)
    many = counted(len(names), "kernel")
    say(words.opening(names[0], names[-1], f"{many}, {slots} at a time", place, len(recorded.seen)))
    display = Display(recorded, slots, many)
    with resumable(KeyboardInterrupt):
        outcome = carry_out_bisect(
            planned,
            display.handle,
            Watch(display.begins, display.told),
            display.during,
            sys.argv[1:],
            engine,
        )
    say("")
    say(words.render(outcome, _commands(outcome, planned.archive, planned.work, config), place))


def _check_tree_options(
    jobs: int | None, cached: bool, archive: str | None, on: str | None
) -> None:
    given = {"--jobs": jobs, "--cached": cached or None, "--archive": archive, "--on": on}
    for name, there in ((name, value is not None) for name, value in given.items()):
        if there:
            raise UsageError(
                f"{name}: is for packages; git chooses one commit after the other, leave it out"
            )


def _check_apt_options(tree: Path | None, kconfig: Path | None) -> None:
    if tree is not None or kconfig is not None:
        raise UsageError("--kconfig: is for a tree that is built; add --source tree PATH")


def _commands(
    outcome: Conclusion, archive: Archive, work: Work, config: Path | None
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
