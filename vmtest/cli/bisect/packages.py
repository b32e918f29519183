"""``vmtest bisect``: the first kernel, packaged or of a tree, that breaks a test."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vmtest.bisect import render as words
from vmtest.bisect import rounds as bisection
from vmtest.bisect.journal import Journal, Recorded, begin, find_interrupted
from vmtest.bisect.packages import archive_of, pinned, question_of
from vmtest.bisect.probes import Matrices, Twice
from vmtest.bisect.question import Conclusion, Find, Work
from vmtest.bisect.rounds import Watch
from vmtest.cli import common
from vmtest.cli.bisect import tree as gitbisect
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
    results_before,
    save,
    without_resume,
)
from vmtest.cli.common import say
from vmtest.cli.run import facts_of
from vmtest.errors import UsageError
from vmtest.kernels import Store, default_cache
from vmtest.matrix.plan import Plan
from vmtest.matrix.slots import memory_available_mib
from vmtest.matrix.slots import slots as slots_of
from vmtest.model.kernels import AptArchive
from vmtest.report.text import counted
from vmtest.runs import folder as runs
from vmtest.runs.folder import RunFolder

EXAMPLE = """Find the first packaged kernel that breaks a test or a command, or refuses a program.

With --find fixed, the first that mends it.  A and B are versions (6.12.117, a package version,
6.12 for its newest) or kernels of kernels.toml.

With --source tree it is the first commit, and A and B are revisions of the kernel's tree at PATH.

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
    good: Annotated[str, typer.Option(metavar="A", help="A kernel that is good.")] = "",
    bad: Annotated[str, typer.Option(metavar="B", help="A kernel that is bad.")] = "",
    suite: SuiteOption = None,
    expression: TestsOption = None,
    verify: VerifyOption = None,
    type_: TypeOption = None,
    command: ExecOption = None,
    copy: CopyOption = None,
    results: ResultsOption = None,
    source: Annotated[
        Source,
        typer.Option(metavar="apt|tree [PATH]", help="Packages, or commits of a kernel's tree."),
    ] = Source.APT,
    tree: Annotated[Path | None, typer.Option(TREE, hidden=True)] = None,
    kconfig: KconfigOption = None,
    find: Annotated[Find, typer.Option(help="What broke it, or what fixed it.")] = Find.BROKEN,
    repeat: RepeatOption = 1,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Kernels asked at once; default what CPUs and memory allow."),
    ] = None,
    cached: Annotated[
        bool, typer.Option("--cached", help="Only kernels in the cache: no downloads.")
    ] = False,
    archive: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=r"Which \[apt.NAME], where there are several."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last interrupted one that asked this.")
    ] = False,
    accel: common.AccelOption = "auto",
    warm: common.WarmOption = False,
    config: common.ConfigOption = None,
) -> None:
    """Search; the module's EXAMPLE is its help."""
    if context.invoked_subcommand is not None:
        return
    with common.reported():
        for name, end in (("--good", good), ("--bad", bad)):
            if not end:
                raise UsageError(f"Missing option '{name}': both ends have to be known")
        common.clean_up_on_signals()
        common.check_accelerator(accel)
        written = Written.of(suite, expression, verify, command, copy, results, type_)
        settings = settings_for(written, config)
        if source is Source.TREE:
            _check_tree_options(jobs, cached, archive)
            ends = gitbisect.Ends(tree or Path(), good, bad, find is Find.FIXED, kconfig)
            gitbisect.search(
                settings, lambda: work_of(settings, written), ends, repeat, resume, accel, config
            )
            return
        _check_apt_options(tree, kconfig)
        apt = archive_of(settings, archive)
        work = work_of(settings, written)
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
            path, recorded = find_interrupted(settings.directory / runs.STATE / "runs", asked)
            folder = RunFolder(path)
        else:
            question = question_of(settings, apt, Store(cache), asked)
            recorded, folder = Recorded(question), runs.create(settings.directory)
        kernels = tuple(pinned(settings, apt, point) for point in recorded.question.points)
        slots = jobs or slots_of(kernels, len(os.sched_getaffinity(0)), memory_available_mib())
        plan = Plan(
            config=settings,
            kernels=kernels,
            task=work.task,
            files=work.files,
            cache=cache,
            folder=folder,
            suites=work.suites,
            command=work.ran,
            jobs=slots,
            accelerator=accel,
            warm=warm,
        )
        with closing(Journal.open(folder.path)) as journal:
            if not resume:
                folder.describe(facts_of(settings, plan))
                begin(journal, recorded.question)
            many = counted(len(kernels), "kernel")
            names, place = recorded.question.names, os.path.relpath(folder.path)
            among = f"{many}, {slots} at a time"
            say(words.opening(names[0], names[-1], among, place, len(recorded.seen)))
            display = Display(recorded, slots, many)
            before = results_before(folder, resume)
            probe = Twice(Matrices(plan, work.judge, display.handle, save, before))
            watch = Watch(display.begins, display.told)
            try:
                outcome = bisection.bisect(
                    recorded, slots, partial(display.during, probe), journal, watch
                )
            except KeyboardInterrupt:
                again = shlex.join(["vmtest", *without_resume(sys.argv[1:]), "--resume"])
                say(f"to go on: {again}")
                raise
        say("")
        commands = _commands(outcome, apt, work, config)
        say(words.render(outcome, commands, os.path.relpath(folder.path)))


def _check_tree_options(jobs: int | None, cached: bool, archive: str | None) -> None:
    given = [("--jobs", jobs is not None), ("--cached", cached), ("--archive", archive is not None)]
    for name, there in given:
        if there:
            raise UsageError(
                f"{name}: is for packages; git chooses one commit after the other, leave it out"
            )


def _check_apt_options(tree: Path | None, kconfig: Path | None) -> None:
    if tree is not None or kconfig is not None:
        raise UsageError("--kconfig: is for a tree that is built; add --source tree PATH")


def _commands(
    outcome: Conclusion, archive: AptArchive, work: Work, config: Path | None
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
