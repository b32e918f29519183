"""``vmtest bisect --source tree`` as a call: the commits of a kernel's tree, each built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vmtest.api.bisect import During, counting, found_or_new, leaving_page, results_before, save
from vmtest.api.record import facts_of
from vmtest.api.run import Emit
from vmtest.bisect import commits
from vmtest.bisect.commits import CommitRange, History
from vmtest.bisect.journal import Journal, Recorded, begin
from vmtest.bisect.probes import Builds, Matrices, Twice
from vmtest.bisect.question import Conclusion, Find, Question, Work
from vmtest.bisect.rounds import Watch
from vmtest.errors import InfrastructureError, UsageError
from vmtest.host.cache import sha256_file
from vmtest.kernels import Store, default_cache
from vmtest.kernels.tree.repository import GitTree
from vmtest.kernels.tree.source import trees_folder
from vmtest.matrix.plan import Plan
from vmtest.model.kernels import Kernel, TreeSpec
from vmtest.model.project import Config


@dataclass(frozen=True, slots=True)
class CommitsRequest:
    """Between which revisions of the tree at ``path``; ``kconfig`` goes on top of our config.

    The others are as in a BisectRequest.
    """

    path: Path
    good: str
    bad: str
    find: Find = Find.BROKEN
    kconfig: Path | None = None
    repeat: int = 1
    resume: bool = False
    accelerator: str = "auto"
    any_failure: bool = False


@dataclass(frozen=True, slots=True)
class PlannedCommits:
    """The ends as a plan that grows with what git asks for, and what is known of them."""

    plan: Plan
    work: Work
    tree: GitTree
    history: History
    span: CommitRange
    recorded: Recorded
    request: CommitsRequest

    def kernels(self) -> tuple[Kernel, ...]:
        """All commits that were asked for until now, by place."""
        return _kernels(self.plan.config, self.tree, self.request, self.recorded)


def plan_commits(
    settings: Config, request: CommitsRequest, asking: Callable[[], Work]
) -> PlannedCommits:
    """Find the ends in the tree, and make the run's folder or find the interrupted one.

    ``asking`` builds and reads what is asked, once the ends are known.  Raises UsageError and
    InfrastructureError.
    """
    check_kconfig(request.kconfig)
    store = Store(default_cache())
    tree = tree_at(request.path)
    history = History(tree, tree.repository(trees_folder(store)))
    span = _span(tree, history, request)
    work = asking()
    asked = _asked(tree, request, span, work)
    both = (span.old.point, span.new.point)
    question = Question(
        asked,
        both,
        find_fixed=request.find is Find.FIXED,
        repeat=request.repeat,
        any_failure=request.any_failure,
    )
    recorded, folder = found_or_new(settings, asked, request.resume, lambda: question)
    plan = Plan(
        config=settings,
        kernels=_kernels(settings, tree, request, recorded),
        task=work.task,
        files=work.files,
        cache=store.root,
        folder=folder,
        suites=work.suites,
        command=work.ran,
        wheels=work.wheels,
        jobs=1,
        accelerator=request.accelerator,
    )
    return PlannedCommits(plan, work, tree, history, span, recorded, request)


def carry_out_commits(
    planned: PlannedCommits,
    emit: Emit,
    watch: Watch,
    during: During,
    arguments: Sequence[str] = (),
) -> Conclusion:
    """Build and ask one commit after the other, as git chooses them; as ``carry_out_bisect``."""
    plan, recorded, resume = planned.plan, planned.recorded, planned.request.resume
    with closing(Journal.open(plan.folder.path)) as journal, leaving_page(plan.folder, emit):
        if not resume:
            plan.folder.describe(facts_of(plan, arguments))
            begin(journal, recorded.question)
        before, kernels = results_before(plan.folder, resume), planned.kernels
        asking = Matrices(plan, planned.work.judge, emit, save, before, kernels)
        probe = Builds(kernels, Store(plan.cache), Twice(asking), emit)
        return commits.bisect(recorded, planned.history, partial(during, probe), journal, watch)


def check_kconfig(file: Path | None) -> None:
    """Raise UsageError when the fragment is not there."""
    if file is not None and not file.is_file():
        raise UsageError(f"`kconfig` {file}: there is no such file")


def tree_at(path: Path) -> GitTree:
    """The kernel's tree that ``path`` is in; raises UsageError."""
    try:
        return GitTree(
            path.absolute(),
            "vmtest bisect",
            path_from="the tree's path",
            rev_from="`good` or `bad`",
        ).top()
    except InfrastructureError as error:
        raise UsageError(str(error)) from error


def _kernels(
    settings: Config, tree: GitTree, request: CommitsRequest, recorded: Recorded
) -> tuple[Kernel, ...]:
    return tuple(
        replace(
            settings.defaults,
            name=point.name,
            spec=TreeSpec(tree.path, point.version, request.kconfig),
        )
        for point in recorded.question.points
    )


def _span(tree: GitTree, history: History, request: CommitsRequest) -> CommitRange:
    fixed = request.find is Find.FIXED
    revisions = (request.bad, request.good) if fixed else (request.good, request.bad)
    names = ("`bad`", "`good`") if fixed else ("`good`", "`bad`")
    old, new = (_commit(tree, revision) for revision in revisions)
    written = (f"{names[0]} {revisions[0]}", f"{names[1]} {revisions[1]}")
    return history.span(old, new, written, Find.BROKEN if fixed else Find.FIXED)


def _commit(tree: GitTree, rev: str) -> str:
    try:
        return tree.commit(rev)[0]
    except InfrastructureError as error:
        raise UsageError(str(error)) from error


def _asked(tree: GitTree, request: CommitsRequest, span: CommitRange, work: Work) -> dict[str, Any]:
    return {
        "tree": str(tree.path),
        "good": request.good,
        "bad": request.bad,
        "commits": [span.old.id, span.new.id],
        "kconfig": None if request.kconfig is None else sha256_file(request.kconfig),
        "find": request.find.value,
        "repeat": request.repeat,
        **counting(request.any_failure),
        **work.asked,
    }
