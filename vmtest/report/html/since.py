"""Since when a cause is there, from the runs before this one on its branch.  Pure.

A result counts by whether it went wrong, whatever it said: an earlier run remembers a letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vmtest.model.loads import ChangeKind
from vmtest.model.results import Outcome, Status
from vmtest.model.text import one_line
from vmtest.report.again import git_log
from vmtest.report.causes import Cause
from vmtest.report.table import Tone
from vmtest.report.text import counted
from vmtest.runs.past import Past

_BAD, _GOOD = frozenset("FEXLx"), frozenset("Pf")
_XPASS, _NO_XPASS = frozenset("X"), frozenset("PfxFEL")  # of a test that passes unexpectedly
_REACHED = frozenset("PfxFEXLsn")  # not: absent, not run, only listed
_TELLS_NOTHING = {"", Status.CANCELLED.value, Status.INFRA_ERROR.value, Status.NO_TESTS.value}
_SAME, _OTHER, _NOTHING = "F", "P", " "  # a kernel that ended as now, otherwise, or not at all

_FAILED = {Status.PASSED.value: _OTHER}
_COMPLAINED = {Status.SPLAT.value: _SAME, Status.PASSED.value: _OTHER}

Part = tuple[str, str]
"""A piece of a sentence, and the page that it links to: "" for none."""


@dataclass(frozen=True, slots=True)
class Since:
    """``word`` fits on a cause's first line, ``told`` is the sentence.

    ``as_head`` says that the head of the page has told it: new since the run that it names.
    """

    word: str
    tone: Tone
    told: tuple[Part, ...]
    as_head: bool = False

    @property
    def text(self) -> str:
        """The sentence without its links."""
        return "".join(text for text, _ in self.told)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run with its rows by name."""

    past: Past
    place: Mapping[str, int]
    tests: Mapping[tuple[str, str], str]
    loads: Mapping[tuple[str, str], str]
    kernels: Mapping[str, str]


@dataclass(slots=True)
class _Tally:
    """The results of a cause by since when they fail; places count from the newest run."""

    new: int = 0
    unseen: int = 0
    old: int = 0
    begun: int = -1  # the oldest run in which one of them failed without a break since
    good: int = -1  # the newest in which one that is new did not

    @property
    def count(self) -> int:
        return self.new + self.unseen + self.old


@dataclass(slots=True)
class Earlier:
    """The runs before the last of ``runs`` on its branch; ``pages`` are links to theirs."""

    runs: Sequence[Past]
    pages: Mapping[str, str]
    found: list[_Run] = field(init=False)

    def __post_init__(self) -> None:
        now = self.runs[-1].branch if self.runs else ""
        before = [run for run in reversed(self.runs[:-1]) if run.branch == now and run.ran]
        self.found = [
            _Run(
                run,
                {name: n for n, (name, _) in enumerate(run.kernels)},
                {(suite, test): letters for suite, test, letters in run.tests},
                {(name, program): letters for name, program, letters, _ in run.loads},
                dict(run.kernels),
            )
            for run in before
        ]

    def of(self, cause: Cause) -> Since | None:
        """Since when ``cause`` is there; None where no earlier run can tell."""
        tally = _Tally()
        for letters in _lines(cause, self.found):
            _add(tally, letters, *_sides(cause))
        unknown = _is_vague(cause) and tally.unseen
        return None if not self.found or unknown else self._words(tally, cause)

    def head(self, found: Sequence[Cause]) -> tuple[Part, ...]:
        """What is new since the last run that passed, or the one before; () where none is."""
        if not found or not self.runs:
            return ()
        if not self.found:
            where = f" on {one_line(self.runs[-1].branch)}" if self.runs[-1].branch else ""
            return ((f"Since when: the history has no earlier run{where} to compare with.", ""),)
        at = self._reference()
        causes = new = unseen = untold = 0
        for cause in found:
            letters = [line[0] for line in _lines(cause, self.found[at : at + 1])]
            bad, _ = _sides(cause)
            fresh = sum(one in _REACHED and one not in bad for one in letters)
            causes, new = causes + bool(fresh), new + fresh
            missing = sum(one not in _REACHED for one in letters)
            if _is_vague(cause):
                untold += missing
            else:
                unseen += missing
        verb = "is" if new == 1 else "are"
        many = f"{counted(new, 'result')} in {counted(causes, 'cause')} {verb} new since "
        aside = f" {counted(unseen, 'result')} of now {'is' if unseen == 1 else 'are'} not in it."
        said = many if new else f"Nothing is {'known to be ' if untold else ''}new since "
        return (
            (said, ""),
            *self._run(at),
            (f", {self._which(at)}." + (aside if unseen else ""), ""),
        )

    def changes(self) -> str:
        """The command that lists the commits since the run of ``head``; "" where none is known."""
        if not self.found:
            return ""
        return git_log(self.found[self._reference()].past.commit, self.runs[-1].commit)

    def _reference(self) -> int:
        """The place of the last run that passed, else of the one before."""
        return next((n for n, run in enumerate(self.found) if not run.past.status), 0)

    def _which(self, at: int) -> str:
        past = self.found[at].past
        where = f" on branch {one_line(past.branch)}" if past.branch else ""
        if not past.status:
            return f"the last{where} that passed"
        if len(self.found) == 1:
            return f"the only one kept{where}, which did not pass"
        return f"the one before{where} (none of the {len(self.found)} kept passed)"

    def _run(self, at: int) -> tuple[Part, ...]:
        past = self.found[at].past
        when = one_line(past.started[:16].replace("T", " "))
        commit = f", commit {one_line(past.commit[:12])}" if past.commit else ""
        dirty = " and changed files" if past.commit and past.dirty else ""
        return (
            (f"run {one_line(past.run)}", self.pages.get(past.run, "")),
            (f" of {when}{commit}{dirty}", ""),
        )

    def _words(self, tally: _Tally, cause: Cause) -> Since:
        """The word and the sentence for the results that were counted."""
        did = "passed" if cause.tests else "was accepted" if cause.loads else "was not so"
        did = "did not pass" if _sides(cause)[0] is _XPASS else did
        kept = f"the {counted(len(self.found), 'earlier run')} on this branch"
        never = f"none of {kept} has a result of it" if len(self.found) > 1 else f"not in {kept}"
        if tally.new == tally.count:
            told = ((f"New. It {did} in ", ""), *self._run(tally.good), (".", ""))
            return Since("new", Tone.BAD, told, tally.good == self._reference())
        if tally.unseen == tally.count:
            return Since("first seen", Tone.WARN, ((f"First seen: {never}.", ""),))
        since = ("There since " if not (cause.tests or cause.loads) else "Failing since ", "")
        if tally.old == tally.count:
            end = "." if tally.begun + 1 < len(self.found) else ", the oldest that is kept."
            told = (since, *self._run(tally.begun), (end, ""))
            return Since(f"since {self._day(tally.begun)}", Tone.QUIET, told)
        parts: list[Part] = []
        if tally.new:
            head = f"{tally.new} of {counted(tally.count, 'result')} new, which {did} in "
            parts += [(head, ""), *self._run(tally.good), (". ", "")]
        if tally.unseen:
            parts += [(f"{tally.unseen} of {tally.count} first seen now. ", "")]
        if tally.old:
            some = f"{tally.old} of {tally.count} failing since "
            parts += [(some, ""), *self._run(tally.begun), (".", "")]
        word = (
            f"{tally.new or tally.unseen} of {tally.count} {'new' if tally.new else 'first seen'}"
        )
        return Since(word, Tone.BAD if tally.new else Tone.WARN, tuple(parts))

    def _day(self, at: int) -> str:
        return one_line(self.found[at].past.started[:10]) or "an earlier run"


def _is_only_a_complaint(cause: Cause) -> bool:
    """Whether a kernel complained and was judged otherwise.

    An earlier run remembers how a kernel ended, and not what it complained of.
    """
    if cause.tests or cause.loads:
        return False
    return any(kernel.status.value != cause.mark.text for kernel in cause.kernels)


def _is_vague(cause: Cause) -> bool:
    """Whether a kernel that ended the same way need not have done so for the same reason."""
    failed = not (cause.tests or cause.loads) and cause.mark.text == Status.FAILED.value
    return failed or _is_only_a_complaint(cause)


def _lines(cause: Cause, runs: Sequence[_Run]) -> Iterator[list[str]]:
    """What each result of ``cause`` was in each of ``runs``: a letter a run."""
    tests: dict[tuple[str, str], list[str]] = {}
    for kernel, test in cause.tests:
        tests.setdefault((test.suite, test.test), []).append(kernel.kernel)
    loads: dict[tuple[str, str], list[str]] = {}
    for kernel, load in cause.loads:
        loads.setdefault((load.object, load.program), []).append(kernel.kernel)
    for key, kernels in tests.items():
        yield from _letters([run.tests.get(key, "") for run in runs], runs, kernels)
    for key, kernels in loads.items():
        yield from _letters([run.loads.get(key, "") for run in runs], runs, kernels)
    if not (tests or loads):
        for kernel in cause.kernels:
            before = (run.kernels.get(kernel.kernel, "") for run in runs)
            ran = [(t.suite, t.test) for t in kernel.tests if t.outcome is Outcome.LOST]
            if ran:  # what the test that died does is new where the test is
                there = [_has_a_row(run, ran, kernel.kernel) for run in runs]
                ends = [_ended(status, kernel.status) for status in before]
                yield [e if has else _NOTHING for e, has in zip(ends, there, strict=True)]
            elif _is_vague(cause):
                same = _COMPLAINED if _is_only_a_complaint(cause) else _FAILED
                yield [same.get(status, _NOTHING) for status in before]
            else:
                yield [_ended(status, kernel.status) for status in before]


def _has_a_row(run: _Run, tests: Iterable[tuple[str, str]], kernel: str) -> bool:
    """Whether ``run`` has a result on ``kernel`` of one of ``tests``, which died with the VM."""
    place = run.place.get(kernel, -1)
    rows = (run.tests.get(test, "") for test in tests)
    return any(0 <= place < len(row) and row[place] in _REACHED for row in rows)


def _letters(
    rows: Sequence[str], runs: Sequence[_Run], kernels: Iterable[str]
) -> Iterator[list[str]]:
    for kernel in kernels:
        places = [run.place.get(kernel, -1) for run in runs]
        yield [
            row[place] if 0 <= place < len(row) else _NOTHING
            for row, place in zip(rows, places, strict=True)
        ]


def _ended(before: str, now: Status) -> str:
    """Whether a kernel ended as it did now."""
    if before == now.value:
        return _SAME
    return _NOTHING if before in _TELLS_NOTHING else _OTHER


def _sides(cause: Cause) -> tuple[frozenset[str], frozenset[str]]:
    """The letters of a run in which it was there, and of one in which it was not."""
    xpassed = bool(cause.tests) and cause.tests[0][1].outcome is Outcome.XPASSED
    return (_XPASS, _NO_XPASS) if xpassed else (_BAD, _GOOD)


def _add(tally: _Tally, letters: Sequence[str], bad: frozenset[str], well: frozenset[str]) -> None:
    """Count one result, which was these letters from the newest run to the oldest."""
    begun = good = -1
    for n, letter in enumerate(letters):
        if letter in bad:
            begun = n
        elif letter in well:
            good = n
            break
    if begun >= 0:
        tally.old += 1
        tally.begun = max(tally.begun, begun)
    elif good >= 0:
        tally.new += 1
        tally.good = good if tally.good < 0 else min(tally.good, good)
    else:
        tally.unseen += 1


def against_baseline(cause: Cause) -> str:
    """What the baseline of a verify had of the programs of ``cause``; "" where it tells nothing."""
    kinds: dict[ChangeKind, int] = {}
    since = ""
    wanted = {(kernel.kernel, load.object, load.program) for kernel, load in cause.loads}
    for kernel in cause.kernels:
        for change in kernel.changes:
            if not change.cost and (kernel.kernel, change.object, change.program) in wanted:
                kinds[change.kind] = kinds.get(change.kind, 0) + 1
                since = since or change.since
    words = ", ".join(f"{number} {kind.value}" for kind, number in kinds.items())
    return f"Against the baseline ({one_line(since) or 'unnamed'}): {words}." if words else ""
