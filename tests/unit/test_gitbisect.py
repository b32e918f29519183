"""A bisect over a git tree: real git, commits that only answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from small_trees import commit, everything, git

from vmtest.bisect.commits import CommitRange, History, bisect
from vmtest.bisect.journal import JOURNAL, Journal, Recorded, begin, read
from vmtest.bisect.observe import Observation
from vmtest.bisect.question import Conclusion, Question, Standing
from vmtest.bisect.rounds import Told, Watch
from vmtest.bisect.search import Verdict
from vmtest.errors import UsageError
from vmtest.kernels.tree.repository import GitTree

GOOD, BAD, SKIP = Verdict.GOOD, Verdict.BAD, Verdict.SKIP

Says = Callable[[str], Verdict]
"""What a commit with this subject says."""


def since(number: int, *skipped: int, before: Verdict = GOOD, after: Verdict = BAD) -> Says:
    """Commits from ``c<number>`` on say ``after``."""

    def says(subject: str) -> Verdict:
        n = int(subject[1:])
        return SKIP if n in skipped else before if n < number else after

    return says


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Eleven commits one after the other, c0 to c10."""
    folder = tmp_path / "linux"
    folder.mkdir()
    git(folder, "init", "--quiet", "-b", "main")
    for n in range(11):
        commit(folder, f"c{n}", str(n))
    return folder


class Search:
    """Bisects of one tree, each from a journal of its own."""

    def __init__(self, tree: Path, scratch: Path) -> None:
        self.tree = tree
        self.folder = scratch / "run"
        self.folder.mkdir()
        user = GitTree(tree, "bisect", "the path", "--good or --bad")
        self.history = History(user, user.repository(scratch / "trees"))
        self.asked: list[str] = []
        self.standings: list[Standing] = []
        self.interrupt_before = ""

    def span(self, old: str, new: str) -> CommitRange:
        ids = [git(self.tree, "rev-parse", rev) for rev in (old, new)]
        return self.history.span(ids[0], ids[1], (f"--good {old}", f"--bad {new}"), "fixed")

    def __call__(
        self, says: Says, old: str = "HEAD~10", new: str = "HEAD", *, find_fixed: bool = False
    ) -> Conclusion:
        span = self.span(old, new)
        question = Question({}, (span.old.point, span.new.point), find_fixed=find_fixed)
        return self.go_on(says, Recorded(question))

    def go_on(self, says: Says, recorded: Recorded | None = None) -> Conclusion:
        before = recorded or read(self.folder)
        assert before is not None

        def probe(points: tuple[int, ...], attempt: int, told: Told) -> None:
            for n in points:
                subject = before.question.points[n].subject
                if subject == self.interrupt_before:
                    raise KeyboardInterrupt
                self.asked.append(subject)
                told(n, Observation(says(subject), f"{subject} said so"))

        watch = Watch(self.standings.append, lambda place, attempt, one: None)
        with closing(Journal.open(self.folder)) as journal:
            if recorded is not None:
                begin(journal, recorded.question)
            return bisect(before, self.history, probe, journal, watch)

    @property
    def lines(self) -> list[Mapping[str, object]]:
        text = (self.folder / JOURNAL).read_text()
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def search(tree: Path, tmp_path: Path) -> Search:
    return Search(tree, tmp_path)


def culprits(outcome: Conclusion) -> list[str]:
    return [outcome.question.points[n].subject for n in outcome.answer.places]


def last(outcome: Conclusion) -> str:
    return outcome.question.points[outcome.answer.last].subject


@pytest.mark.parametrize("number", range(1, 11))
def test_the_commit_that_broke_it_is_found_wherever_it_is(search: Search, number: int) -> None:
    outcome = search(since(number))
    assert (culprits(outcome), last(outcome)) == ([f"c{number}"], f"c{number - 1}")
    assert len(search.asked) == len(set(search.asked)) <= 2 + 4


def test_both_ends_are_asked_before_anything_else(search: Search) -> None:
    search(since(5))
    assert search.asked[:2] == ["c0", "c10"]


def test_what_fixed_it_is_found_from_bad_to_good(search: Search) -> None:
    outcome = search(since(7, before=BAD, after=GOOD), find_fixed=True)
    assert (culprits(outcome), last(outcome)) == (["c7"], "c6")


def test_a_commit_that_cannot_tell_is_skipped_as_git_skips(search: Search) -> None:
    outcome = search(since(7, 5))
    assert "c5" in search.asked
    assert (culprits(outcome), last(outcome)) == (["c7"], "c6")


def test_commits_that_cannot_tell_beside_the_culprit_make_it_a_range(search: Search) -> None:
    outcome = search(since(6, 5, 6))
    assert sorted(culprits(outcome)) == ["c5", "c6", "c7"]
    assert last(outcome) == "c4" and not outcome.answer.exact


def test_commits_that_all_cannot_tell_leave_the_whole_range(search: Search) -> None:
    outcome = search(since(5, *range(1, 10)))
    assert len(culprits(outcome)) == 10 and last(outcome) == "c0"


def test_a_range_of_one_commit_needs_the_ends_alone(search: Search) -> None:
    outcome = search(since(10), "HEAD~1")
    assert culprits(outcome) == ["c10"] and search.asked == ["c9", "c10"]


def test_the_culprit_on_a_branch_that_was_merged_is_found(tree: Path, tmp_path: Path) -> None:
    git(tree, "checkout", "--quiet", "-b", "side", "HEAD~5")
    for n in range(20, 25):
        commit(tree, f"c{n}", str(n))
    git(tree, "checkout", "--quiet", "main")
    git(tree, "merge", "--quiet", "-m", "c30", "side")
    outcome = Search(tree, tmp_path)(since(23), "HEAD~6")
    assert (culprits(outcome), last(outcome)) == (["c23"], "c22")


def test_a_good_end_on_another_branch_has_the_merge_base_asked_first(
    tree: Path, tmp_path: Path
) -> None:
    git(tree, "checkout", "--quiet", "-b", "side", "HEAD~8")
    commit(tree, "c1000", "on another branch")
    git(tree, "checkout", "--quiet", "main")
    search = Search(tree, tmp_path)

    def says(subject: str) -> Verdict:
        return BAD if subject in ("c6", "c7", "c8", "c9", "c10") else GOOD

    assert "where they parted" in search.span("side", "main").notes[0]
    outcome = search(says, "side", "main")
    assert search.asked[2] == "c2"
    assert (culprits(outcome), last(outcome)) == (["c6"], "c5")


def test_a_merge_base_that_is_bad_already_is_an_error(tree: Path, tmp_path: Path) -> None:
    git(tree, "checkout", "--quiet", "-b", "side", "HEAD~8")
    commit(tree, "c1000", "mended on another branch")
    git(tree, "checkout", "--quiet", "main")
    search = Search(tree, tmp_path)
    with pytest.raises(UsageError, match='"c2", the common ancestor of both ends, has the verdict'):
        search(lambda subject: GOOD if subject == "c1000" else BAD, "side", "main")
    assert search.lines[-1]["event"] == "error"


@pytest.mark.parametrize(
    ("says", "said"),
    [
        (since(99), "both ends have the same verdict"),
        (since(0), "both ends have the same verdict"),
        (since(5, before=BAD, after=GOOD), "did you mean `find` fixed?"),
        (since(5, 10), "one end has no verdict"),
    ],
)
def test_ends_that_do_not_differ_as_they_must_are_refused(
    search: Search, says: Says, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        search(says)
    assert search.asked == ["c0", "c10"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("HEAD", "main", "are the same commit; choose another end"),
        ("HEAD", "HEAD~3", r"came before --good HEAD .* or did you mean `find` fixed\?"),
    ],
)
def test_ends_that_nothing_lies_between_are_refused(
    search: Search, old: str, new: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        search.span(old, new)


def test_histories_that_have_nothing_in_common_are_refused(tree: Path, tmp_path: Path) -> None:
    git(tree, "checkout", "--quiet", "--orphan", "other")
    commit(tree, "c50", "x")
    with pytest.raises(UsageError, match="have no common ancestor in"):
        Search(tree, tmp_path).span("main", "other")


def test_of_a_shallow_clone_it_is_said_why_the_ends_do_not_meet(tree: Path, tmp_path: Path) -> None:
    git(tree, "checkout", "--quiet", "-b", "side", "HEAD~8")
    commit(tree, "c1000", "x")
    shallow = tmp_path / "shallow"
    arguments = ("--depth", "1", "--no-single-branch", f"file://{tree}", str(shallow))
    git(tree, "clone", "--quiet", *arguments)
    with pytest.raises(UsageError, match="it is a shallow clone: git fetch --unshallow"):
        Search(shallow, tmp_path).span("origin/side", "origin/main")


def test_a_shallow_clone_that_holds_both_ends_is_bisected(tree: Path, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git(tree, "clone", "--quiet", "--depth", "6", f"file://{tree}", str(shallow))
    assert culprits(Search(shallow, tmp_path)(since(8), "HEAD~5")) == ["c8"]


def test_a_bare_repository_is_bisected(tree: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git(tree, "clone", "--quiet", "--bare", str(tree), str(bare))
    search = Search(bare, tmp_path)
    assert search.history.tree.top().path == bare
    assert culprits(search(since(4))) == ["c4"]


def test_a_folder_in_a_tree_is_that_tree(tree: Path) -> None:
    (tree / "net").mkdir()
    assert GitTree(tree / "net", "x").top().path == tree


def test_changes_that_are_not_committed_are_said_to_be_left_out(search: Search, tree: Path) -> None:
    (tree / "c3").write_text("changed")
    (note,) = search.span("HEAD~3", "HEAD").notes
    assert "has 1 changed files that are not committed: a bisect goes by commits" in note


def test_the_users_own_bisect_in_the_tree_goes_on_undisturbed(search: Search, tree: Path) -> None:
    git(tree, "bisect", "start", "HEAD", "HEAD~9")
    git(tree, "bisect", "good")
    before = everything(tree)
    search(since(4), git(tree, "rev-parse", "main~10"), "main")
    assert everything(tree) == before


def test_two_bisects_of_one_tree_do_not_disturb_each_other(tree: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    outer, inner = (Search(tree, folder) for folder in folders)
    inner.history = outer.history  # one repository of ours for one tree
    found: list[Any] = []

    def says(subject: str) -> Verdict:
        if not found:
            found.append(culprits(inner(since(9))))
        return since(3)(subject)

    assert culprits(outer(says)) == ["c3"]
    assert found == [["c9"]]


@pytest.mark.parametrize("before", ["c0", "c10", "c5", "c7", "c6"])
def test_an_interrupted_bisect_is_gone_on_with_and_asks_nothing_again(
    search: Search, before: str
) -> None:
    says = since(7, 5)
    search.interrupt_before = before
    with pytest.raises(KeyboardInterrupt):
        search(says)
    search.interrupt_before = ""
    outcome = search.go_on(says)
    assert culprits(outcome) == ["c7"]
    assert len(search.asked) == len(set(search.asked))


def test_what_was_told_before_an_interruption_is_no_round_again(
    search: Search, tree: Path, tmp_path: Path
) -> None:
    says = since(7, 5)
    search.interrupt_before = "c6"
    with pytest.raises(KeyboardInterrupt):
        search(says)
    search.interrupt_before = ""
    other = tmp_path / "other"
    other.mkdir()
    assert search.go_on(says).rounds == Search(tree, other)(says).rounds


def test_no_worktree_is_left_behind(search: Search) -> None:
    search(since(4))
    assert list((search.history.repository / "worktrees").glob("*")) == []


def test_the_journal_holds_every_commit_and_the_answer(search: Search) -> None:
    search(since(7, 5))
    subjects = [line["point"]["subject"] for line in search.lines if line["event"] == "commit"]  # type: ignore[index]  # JSON
    assert ["c0", "c10", *subjects] == search.asked
    answer = search.lines[-1]
    assert answer["event"] == "answer"
    assert answer["commit"] == git(search.tree, "rev-parse", "HEAD~3")


def test_a_round_says_how_many_commits_are_left(search: Search) -> None:
    search(since(7))
    assert [(now.between, now.rounds) for now in search.standings[1:]] == [(9, 3), (4, 2), (1, 1)]
