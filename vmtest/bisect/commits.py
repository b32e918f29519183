"""A bisect over a git tree: ``git bisect`` itself chooses the commits and skips, we answer it.

It runs in a worktree of our own repository (``vmtest.kernels.tree.repository``) that holds no
files: its state is that worktree's alone, so that neither the user's own bisect nor another one
of ours is disturbed.  It chooses the same again when it is told the same, so the journal is all
that has to be kept of it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vmtest.bisect.journal import Journal, Recorded, ending, write_answer
from vmtest.bisect.question import Conclusion, Point, Standing
from vmtest.bisect.rounds import Ask, Asking, Watch
from vmtest.bisect.search import Answer, Verdict
from vmtest.errors import UsageError
from vmtest.host.cache import remove_tree
from vmtest.kernels.tree.repository import GitTree

_SHORT = 12  # of a commit's id, in names
_FIELDS = "%H%x00%an <%ae>%x00%aI%x00%s"
_STEPS = re.compile(r"^Bisecting: \d+ revisions? left .*roughly (\d+) step", re.MULTILINE)
_FIRST = re.compile(r"^# (?:possible )?first new commit: \[([0-9a-f]+)\]", re.MULTILINE)
# What git-bisect(1) ends with: found or go on, only skipped ones left, the merge base contradicts.
_GOES_ON, _ONLY_SKIPPED, _MERGE_BASE = 0, 2, 3


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: its full id, ``NAME <ADDRESS>``, the author's date (ISO 8601), its subject."""

    id: str
    author: str
    date: str
    subject: str

    @property
    def point(self) -> Point:
        """As a point of a bisect."""
        return Point(self.id[:_SHORT], self.id, subject=self.subject)


@dataclass(frozen=True, slots=True)
class CommitRange:
    """What is bisected: ``old`` and ``new`` are its ends, ``count`` commits come after ``old``.

    ``notes`` say what the user should know of it, a line each.
    """

    old: Commit
    new: Commit
    count: int
    notes: tuple[str, ...] = ()


class History:
    """The commits of ``tree``, seen from our ``repository`` for it."""

    def __init__(self, tree: GitTree, repository: Path) -> None:
        self.tree = tree
        self.repository = repository

    def git(self, *arguments: str, missing: str | None = None) -> str:
        """What git writes, without the last newline; raises KernelUnavailable, or ``missing``."""
        return self.tree.run("--git-dir", str(self.repository), *arguments, missing=missing).rstrip(
            "\n"
        )

    def commit(self, name: str) -> Commit:
        """The commit with the id ``name``."""
        fields = self.git("show", "--no-patch", "--no-color", f"--format={_FIELDS}", name)
        return Commit(*fields.split("\0"))

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether ``new`` is ``old`` or came after it."""
        merge_base = self.git("merge-base", old, new, missing="")
        return merge_base == old

    def count(self, old: str, new: str) -> int:
        """How many commits are in ``new`` and not in ``old``."""
        return int(self.git("rev-list", "--count", f"{old}..{new}"))

    def span(self, old: str, new: str, written: tuple[str, str], other_find: str) -> CommitRange:
        """The span between the commits ``old`` and ``new``, as the user has ``written`` them.

        ``other_find`` is what --find should be if they were meant the other way round.  Raises
        UsageError for two that nothing can be bisected between.
        """
        ends = self.commit(old), self.commit(new)
        names = [
            f'{text} ({end.point.name} "{end.subject}")'
            for text, end in zip(written, ends, strict=True)
        ]
        if old == new:
            raise UsageError(f"{names[0]} and {names[1]} are the same commit; choose another end")
        base = self.git("merge-base", old, new, missing="")
        if base == new:
            raise UsageError(
                f"{names[1]} came before {names[0]}: the ends are out of order; or did you mean "
                f"`find` {other_find}?"
            )
        if not base:
            raise UsageError(
                f"{names[0]} and {names[1]} have no common ancestor in {self.tree.path}"
                f"{self.tree.shallow()}: there is nothing between them to bisect"
            )
        notes = []
        if base != old:
            met = self.commit(base)
            notes.append(
                f"{names[0]} is not an ancestor of {names[1]}: where they parted, {met.point.name} "
                f'"{met.subject}", is asked first'
            )
        changed = self.tree.changed()
        if changed:
            notes.append(
                f"{self.tree.path} has {changed} changed files that are not committed: a bisect "
                f"goes by commits and leaves them out (vmtest bisect step builds them)"
            )
        return CommitRange(*ends, self.count(old, new), tuple(notes))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Git wants to know of ``commit``, and then of about ``steps`` more."""

    commit: str
    steps: int


@dataclass(frozen=True, slots=True)
class Found:
    """Git is done: the change came with one of ``commits``, which are several after skips."""

    commits: tuple[str, ...]


class GitBisect:
    """A ``git bisect`` in ``worktree``; ``find_fixed`` is what changed."""

    def __init__(self, history: History, worktree: Path, *, find_fixed: bool) -> None:
        self._history = history
        self._worktree = worktree
        # Not git's "good" and "bad": good may be what came later.
        old, new = (Verdict.BAD, Verdict.GOOD) if find_fixed else (Verdict.GOOD, Verdict.BAD)
        self._words = {old: "old", new: "new"}

    def start(self, old: str, new: str) -> Wanted | Found:
        """Begin; returns the first commit that git wants to know of."""
        terms = ("--term-old=old", "--term-new=new")
        return self._bisect("start", "--no-checkout", *terms, new, old)

    def tell(self, commit: str, verdict: Verdict) -> Wanted | Found:
        """Say what became of ``commit``, and hear what is next.

        Raises UsageError when what is known contradicts itself at the place where the ends part.
        """
        return self._bisect(self._words.get(verdict, "skip"), commit)

    def _bisect(self, *arguments: str) -> Wanted | Found:
        said = self._git(*arguments, accepted=(_GOES_ON, _ONLY_SKIPPED, _MERGE_BASE))
        log = self._git("log")
        found = _FIRST.findall(log)
        if found:
            return Found(tuple(found))
        wanted = self._history.tree.run(
            "-C", str(self._worktree), "rev-parse", "--verify", "--quiet", "BISECT_HEAD", missing=""
        ).strip()
        if not wanted or wanted == arguments[-1]:
            last = self._history.commit(arguments[-1])
            raise UsageError(
                f'{last.point.name} "{last.subject}", the common ancestor of both ends, has the '
                f"verdict of the newer end already: the change is on the older end's branch; "
                f"choose one of its ancestors as the older end"
            )
        steps = _STEPS.search(said)
        return Wanted(wanted, int(steps.group(1)) if steps else 0)

    def _git(self, *arguments: str, accepted: tuple[int, ...] = (0,)) -> str:
        return self._history.tree.run(
            "-C", str(self._worktree), "bisect", *arguments, accepted=accepted
        )


@contextmanager
def started(history: History, commit: str, *, find_fixed: bool) -> Iterator[GitBisect]:
    """A ``git bisect`` in a worktree that is there as long as it is used, without any files."""
    folder = Path(tempfile.mkdtemp(prefix="vmtest-bisect-"))
    worktree = folder / folder.name  # git calls it by its last part
    try:
        place = str(worktree)
        history.git("worktree", "add", "--quiet", "--no-checkout", "--detach", place, commit)
        yield GitBisect(history, worktree, find_fixed=find_fixed)
    finally:
        remove_tree(folder)
        history.git("worktree", "prune", missing="")


def bisect(
    recorded: Recorded,
    history: History,
    probe: Ask,
    journal: Journal,
    watch: Watch,
) -> Conclusion:
    """Answer ``recorded.question``, whose first two points are the ends.

    Every step is in ``journal`` before the next begins.  Raises as ``vmtest.bisect.rounds.bisect``,
    and UsageError when the place where the ends part contradicts them.
    """
    asking = Asking(recorded, probe, journal, watch)
    question = recorded.question
    new, find_fixed = question.points[1].version, question.find_fixed
    with ending(journal), started(history, new, find_fixed=find_fixed) as git:
        asking.ask_ends(1)
        found = _search(recorded, history, asking, journal, git)
    answer = _conclude(recorded, history, found, asking.settled())
    question = recorded.question  # with the commits that git asked for
    write_answer(journal, question, answer, commit=question.points[answer.first].version)
    return recorded.concluded(answer)


def _search(
    recorded: Recorded, history: History, asking: Asking, journal: Journal, git: GitBisect
) -> Found:
    """Answer ``git`` until it is done; what an interrupted bisect told it is told again."""
    points = recorded.question.points
    step = git.start(points[0].version, points[1].version)
    last, first = 0, 1
    beginning = asking.settled()[0]
    while isinstance(step, Wanted):
        place = _place(recorded, history, step.commit, journal)
        verdict = asking.settled().get(place)
        if verdict is None:
            ends = [recorded.question.points[n].version for n in (last, first)]
            between = history.count(*ends) - 1
            # git counts the steps after this one.
            now = Standing(recorded.rounds + 1, (place,), last, first, step.steps + 1, between)
            verdict = asking.ask(now)[place]
        if verdict is beginning:
            last = place
        elif verdict.tells:
            first = place
        step = git.tell(step.commit, verdict)
    return step


def _place(recorded: Recorded, history: History, commit: str, journal: Journal) -> int:
    versions = [point.version for point in recorded.question.points]
    if commit in versions:
        return versions.index(commit)
    point = history.commit(commit).point
    journal.write("commit", point={"name": point.name, "version": commit, "subject": point.subject})
    return recorded.add(point)


def _conclude(
    recorded: Recorded, history: History, found: Found, known: dict[int, Verdict]
) -> Answer:
    """The answer; of what had the older end's verdict before the culprit, the nearest."""
    points = recorded.question.points
    versions = [point.version for point in points]
    places = sorted(versions.index(commit) for commit in found.commits)
    first = next(n for n in places if known[n].tells)
    before = [n for n, verdict in known.items() if verdict is known[0]]
    ancestors = [n for n in before if history.is_ancestor(versions[n], versions[first])]
    last = min(ancestors or [0], key=lambda n: history.count(versions[n], versions[first]))
    return Answer(last, first, tuple(n for n in places if n != first))
