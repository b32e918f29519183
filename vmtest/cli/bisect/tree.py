"""``vmtest bisect --source tree PATH``: the commit that breaks a test or rejects a program."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vmtest.api.commits import CommitsRequest, carry_out_commits, plan_commits
from vmtest.bisect.question import Conclusion, Work
from vmtest.bisect.render import opening, render_commits, telling
from vmtest.bisect.rounds import Watch
from vmtest.cli.bisect.shared import Display, resumable
from vmtest.cli.common import say
from vmtest.cli.options import spelled
from vmtest.errors import InfrastructureError
from vmtest.kernels.tree.repository import GitTree
from vmtest.model.project import Config
from vmtest.report.text import counted
from vmtest.runs.folder import RunFolder


def search(
    settings: Config, request: CommitsRequest, asking: Callable[[], Work], config: Path | None
) -> None:
    """Bisect, and say what it came to; ``asking`` is called once the ends are known.

    Raises UsageError, InfrastructureError, and KeyboardInterrupt when it can be gone on with.
    """
    planned = plan_commits(settings, request, asking)
    span, recorded, folder = planned.span, planned.recorded, planned.plan.folder
    many = counted(span.count + 1, "commit")
    ends = (span.old.point.label, span.new.point.label)
    say(opening(*ends, many, os.path.relpath(folder.path), len(recorded.seen)))
    for note in span.notes:
        say(f"note: {spelled(note)}")
    display = Display(recorded, 1, many)
    watch = Watch(display.begins, display.told)
    with resumable(KeyboardInterrupt, InfrastructureError):
        outcome = carry_out_commits(planned, display.handle, watch, display.during, sys.argv[1:])
    say("")
    points, history = outcome.question.points, planned.history
    culprits = [history.commit(points[n].version) for n in outcome.answer.places]
    commands = _commands(outcome, planned.tree, planned.work, request.kconfig, config)
    logs = _logs(outcome, folder)
    say(render_commits(outcome, span, planned.tree.path, culprits, commands, logs))


def _commands(
    outcome: Conclusion, tree: GitTree, work: Work, kconfig: Path | None, config: Path | None
) -> dict[int, str]:
    """The command that asks each of the two commits again, by place."""
    more: list[str] = []
    for name, value in (("--kconfig", kconfig), ("--config", config)):
        more += [] if value is None else [name, str(value)]
    found = {}
    for place in (outcome.answer.last, outcome.answer.first):
        point = outcome.question.points[place]
        step = ["vmtest", "bisect", "step", os.path.relpath(tree.path), "--rev", point.name]
        found[place] = shlex.join([*step, *work.options, *more])
    return found


def _logs(outcome: Conclusion, folder: RunFolder) -> dict[int, Sequence[str]]:
    """The logs of the runs that told of the two commits, by place."""
    found: dict[int, Sequence[str]] = {}
    for place in (outcome.answer.last, outcome.answer.first):
        one = telling(outcome.seen[place], outcome.verdicts[place], outcome.way)
        logs = sorted((folder.path / one.folder).rglob("*.log"))
        found[place] = [os.path.relpath(log) for log in logs]
    return found
