"""``vmtest bisect --source tree PATH``: the commit that breaks a test or rejects a program."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vmtest.bisect import commits as gitbisect
from vmtest.bisect.commits import History
from vmtest.bisect.journal import Journal, Recorded, begin, find_interrupted
from vmtest.bisect.probes import Builds, Matrices, Twice
from vmtest.bisect.question import Conclusion, Question, Work
from vmtest.bisect.render import opening, render_commits
from vmtest.bisect.rounds import Watch
from vmtest.cli.bisect.shared import (
    Display,
    check_kconfig,
    results_before,
    save,
    without_resume,
)
from vmtest.cli.common import say
from vmtest.cli.run import facts_of
from vmtest.errors import InfrastructureError, UsageError
from vmtest.host.cache import sha256_file
from vmtest.kernels import Store, default_cache
from vmtest.kernels.tree.repository import GitTree
from vmtest.kernels.tree.source import trees_folder
from vmtest.matrix.plan import Plan
from vmtest.model.kernels import Kernel, TreeSpec
from vmtest.model.project import Config
from vmtest.report.text import counted
from vmtest.runs import folder as runs
from vmtest.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Ends:
    """Between which revisions of the tree at ``path``; ``kconfig`` goes on top of our config."""

    path: Path
    good: str
    bad: str
    find_fixed: bool
    kconfig: Path | None


def search(
    settings: Config,
    work_of: Callable[[], Work],
    ends: Ends,
    repeat: int,
    resume: bool,
    accelerator: str,
    config: Path | None,
) -> None:
    """Bisect, and say what it came to; ``work_of`` is asked for once the ends are known.

    Raises UsageError, InfrastructureError, and KeyboardInterrupt when it can be gone on with.
    """
    check_kconfig(ends.kconfig)
    store = Store(default_cache())
    tree = tree_at(ends.path)
    history = History(tree, tree.repository(trees_folder(store)))
    old_rev, new_rev = (ends.bad, ends.good) if ends.find_fixed else (ends.good, ends.bad)
    names = ("--bad", "--good") if ends.find_fixed else ("--good", "--bad")
    written = (f"{names[0]} {old_rev}", f"{names[1]} {new_rev}")
    old, new = (_commit(tree, rev) for rev in (old_rev, new_rev))
    span = history.span(old, new, written, "broken" if ends.find_fixed else "fixed")
    work = work_of()
    asked = _asked(tree, ends, span, repeat, work)
    if resume:
        path, recorded = find_interrupted(settings.directory / runs.STATE / "runs", asked)
        folder = RunFolder(path)
    else:
        both = (span.old.point, span.new.point)
        question = Question(asked, both, find_fixed=ends.find_fixed, repeat=repeat)
        recorded, folder = Recorded(question), runs.create(settings.directory)

    def kernels() -> tuple[Kernel, ...]:
        """All commits that were asked for until now, by place."""
        return tuple(
            replace(
                settings.defaults,
                name=point.name,
                spec=TreeSpec(tree.path, point.version, ends.kconfig),
            )
            for point in recorded.question.points
        )

    plan = Plan(
        config=settings,
        kernels=kernels(),
        task=work.task,
        files=work.files,
        cache=store.root,
        folder=folder,
        suites=work.suites,
        command=work.ran,
        jobs=1,
        accelerator=accelerator,
    )
    with closing(Journal.open(folder.path)) as journal:
        if not resume:
            folder.describe(facts_of(settings, plan))
            begin(journal, recorded.question)
        many = counted(span.count + 1, "commit")
        ends_of = (span.old.point.label, span.new.point.label)
        say(opening(*ends_of, many, os.path.relpath(folder.path), len(recorded.seen)))
        for note in span.notes:
            say(f"note: {note}")
        display = Display(recorded, 1, many)
        before = results_before(folder, resume)
        asking = Matrices(plan, work.judge, display.handle, save, before, kernels)
        probe = Builds(kernels, store, Twice(asking), display.handle)
        watch = Watch(display.begins, display.told)
        try:
            outcome = gitbisect.bisect(
                recorded, history, partial(display.during, probe), journal, watch
            )
        except (KeyboardInterrupt, InfrastructureError):
            again = shlex.join(["vmtest", *without_resume(sys.argv[1:]), "--resume"])
            say(f"to go on: {again}")
            raise
    say("")
    points = outcome.question.points
    culprits = [history.commit(points[n].version) for n in outcome.answer.places]
    commands = _commands(outcome, tree, work, ends.kconfig, config)
    say(render_commits(outcome, span, tree.path, culprits, commands, _logs(outcome, folder)))


def tree_at(path: Path) -> GitTree:
    """The kernel's tree that ``path`` is in; raises UsageError."""
    try:
        return GitTree(
            path.absolute(),
            "vmtest bisect",
            path_from="the tree's path",
            rev_from="--good or --bad",
        ).top()
    except InfrastructureError as error:
        raise UsageError(str(error)) from error


def _commit(tree: GitTree, rev: str) -> str:
    try:
        return tree.commit(rev)[0]
    except InfrastructureError as error:
        raise UsageError(str(error)) from error


def _asked(
    tree: GitTree, ends: Ends, span: gitbisect.CommitRange, repeat: int, work: Work
) -> dict[str, Any]:
    return {
        "tree": str(tree.path),
        "good": ends.good,
        "bad": ends.bad,
        "commits": [span.old.id, span.new.id],
        "kconfig": None if ends.kconfig is None else sha256_file(ends.kconfig),
        "find": "fixed" if ends.find_fixed else "broken",
        "repeat": repeat,
        **work.asked,
    }


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
        verdict = outcome.verdicts[place]
        one = next(one for one in outcome.seen[place] if one.verdict is verdict)
        logs = sorted((folder.path / one.folder).rglob("*.log"))
        found[place] = [os.path.relpath(log) for log in logs]
    return found
