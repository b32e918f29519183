"""A bisect over a list of kernels, recorded step by step: ends first, then rounds of points.

Whoever calls it does the booting (``Probe``) and the showing (``Watch``); here is what is asked
next, and the journal ``bisect.jsonl`` that an interrupted bisect is continued from.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from vmtest.bisect.observe import Observation, combined
from vmtest.bisect.search import Answer, Known, Verdict, check_ends, conclude, rounds_left, search
from vmtest.errors import InfrastructureError, UsageError
from vmtest.runs.folder import utc_now

JOURNAL = "bisect.jsonl"
"""The journal's name in the run's folder: a JSON value a line, written when it happens."""


@dataclass(frozen=True, slots=True)
class Point:
    """A kernel of the list: its name, its package version, and the suite that has it.

    A commit's ``version`` is its full id; it has a ``subject`` in place of a suite.
    """

    name: str
    version: str
    suite: str = ""
    subject: str = ""

    @property
    def label(self) -> str:
        """What it is called where people read it."""
        return f'{self.name} "{self.subject}"' if self.subject else self.name


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for.

    ``asked`` is everything that has to be the same for verdicts to be comparable, as JSON holds
    it: the ends as written, the tests or the program, digests.  ``points`` are in version order;
    ``gone`` are the versions between them that are in the index and cannot boot, ``left_out`` those
    that would have to be downloaded (``--cached``).  Of a git tree ``points`` are the ends and
    then the commits that git asked for, in that order.
    """

    asked: Mapping[str, Any]
    points: tuple[Point, ...]
    find_fixed: bool = False
    repeat: int = 1
    gone: tuple[Point, ...] = ()
    left_out: tuple[Point, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The points' names."""
        return tuple(point.name for point in self.points)


Seen = Mapping[int, Sequence[Observation]]
"""What was observed, by the point's place in the list, in the order of the attempts."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a bisect stands when a round begins.

    ``points`` are asked now; ``last`` and ``first`` are the places between which the change
    lies, None while the ends are asked, ``between`` how many points lie between them; ``rounds``
    is how many more rounds it takes at most, this one included.
    """

    number: int
    points: tuple[int, ...]
    last: int | None = None
    first: int | None = None
    rounds: int = 0
    between: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A bisect's end: the answer and all that was seen on the way, in ``rounds`` rounds."""

    question: Question
    answer: Answer
    seen: Seen
    rounds: int

    @property
    def verdicts(self) -> dict[int, Verdict]:
        """Verdicts of the points that were asked."""
        return {n: combined(seen) for n, seen in sorted(self.seen.items())}

    @property
    def unasked(self) -> tuple[Point, ...]:
        """The points that were never booted."""
        return tuple(p for n, p in enumerate(self.question.points) if n not in self.seen)


Told = Callable[[int, Observation], None]
Probe = Callable[[tuple[int, ...], int, Told], None]
"""Asks points, the attempt (from 1) given, and says each observation as soon as it has it.

What it raises ends the bisect; KeyboardInterrupt leaves it to be resumed.
"""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told that a round begins, and what a point said."""

    begins: Callable[[Standing], None]
    told: Callable[[int, int, Observation], None]


class Journal:
    """``bisect.jsonl`` open for appending; nobody else can have it open at the same time."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    @classmethod
    def open(cls, folder: Path) -> Journal:
        """The journal in ``folder``; raises UsageError when a running bisect has it."""
        file = (folder / JOURNAL).open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UsageError(f"{folder}: this bisect is still running; wait for it") from None
        file.seek(0)
        if not file.read().endswith("\n") and file.tell():
            file.write("\n")  # a line that was cut short stays the only one
        return cls(file)

    def close(self) -> None:
        """Let others have it."""
        self._file.close()

    def write(self, event: str, **facts: Any) -> None:
        """Append one line, and have it on its way to the disk."""
        line = json.dumps({"event": event, "time": utc_now(), **facts})
        self._file.write(line + "\n")
        self._file.flush()


def begin(journal: Journal, question: Question) -> None:
    """Write the question: the first line."""
    journal.write("question", **asdict(question))


@dataclass(slots=True)
class Recorded:
    """What a journal holds; ``ended`` is how it ended, "" when it was interrupted."""

    question: Question
    seen: dict[int, list[Observation]] = field(default_factory=dict)
    rounds: int = 0
    ended: str = ""

    def add(self, point: Point) -> int:
        """Add a point that was not known when it began; returns its place."""
        self.question = replace(self.question, points=(*self.question.points, point))
        return len(self.question.points) - 1


def read(folder: Path) -> Recorded | None:
    """The journal in ``folder``, or None when there is none with a question in it.

    A last line that was cut short is as if it had not been begun, and what the machine
    kept from telling is as if it had not been asked.
    """
    try:
        text = (folder / JOURNAL).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    recorded: Recorded | None = None
    begun = 0
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        match value["event"]:
            case "question":
                recorded = Recorded(_question(value))
            case "commit" if recorded is not None:
                recorded.add(_point(value["point"]))
            case "round" if recorded is not None:
                begun = value["number"]
            case "told" if recorded is not None:
                place = recorded.question.names.index(value["kernel"])
                one = _observation(value["observation"])
                recorded.rounds = begun  # one that was interrupted before is begun again
                if not one.faulty:
                    recorded.seen.setdefault(place, []).append(one)
            case "answer" | "error" if recorded is not None:
                recorded.ended = value["event"]
    return recorded


def find_interrupted(runs: Path, asked: Mapping[str, Any]) -> tuple[Path, Recorded]:
    """The last interrupted bisect below ``runs`` that asked the same; raises UsageError."""
    others = []
    for file in sorted(runs.glob(f"*/{JOURNAL}"), reverse=True):
        recorded = read(file.parent)
        if recorded is None:
            continue
        if recorded.question.asked == asked and not recorded.ended:
            return file.parent, recorded
        if recorded.question.asked == asked:
            others.append(f"{file.parent.name} asked this and came to its end")
        elif not recorded.ended:
            differs = [k for k, v in asked.items() if recorded.question.asked.get(k) != v]
            others.append(f"{file.parent.name} differs in {', '.join(differs)}")
    raise UsageError(
        "\n".join(["--resume: there is no interrupted bisect of this question", *others[:3]])
    )


def _question(value: Mapping[str, Any]) -> Question:
    return Question(
        asked=value["asked"],
        points=tuple(map(_point, value["points"])),
        find_fixed=value["find_fixed"],
        repeat=value["repeat"],
        gone=tuple(map(_point, value["gone"])),
        left_out=tuple(map(_point, value["left_out"])),
    )


def _point(value: Mapping[str, Any]) -> Point:
    return Point(**value)


def _observation(value: Mapping[str, Any]) -> Observation:
    facts = tuple((label, words) for label, words in value["facts"])
    return Observation(**{**value, "verdict": Verdict(value["verdict"]), "facts": facts})


class Asking:
    """Asks the points of ``recorded``'s question; what they say is in ``journal`` at once.

    What ``recorded`` has already is not asked again, and what is told is added to it.
    """

    def __init__(self, recorded: Recorded, probe: Probe, journal: Journal, watch: Watch) -> None:
        self._recorded = recorded
        self._probe = probe
        self._journal = journal
        self._watch = watch

    def settled(self) -> dict[int, Verdict]:
        """The verdicts of the points that were asked as often as they are to be, by place."""
        seen, repeat = self._recorded.seen, self._recorded.question.repeat
        return {n: combined(told) for n, told in seen.items() if not _due(told, repeat)}

    def ask(self, standing: Standing) -> dict[int, Verdict]:
        """The verdicts of ``standing``'s points, asked in a round of their own."""
        recorded, points = self._recorded, standing.points
        question, recorded.rounds = recorded.question, standing.number
        names = [question.names[n] for n in points]
        self._journal.write("round", number=standing.number, points=names)
        self._watch.begins(standing)
        for attempt in range(1, question.repeat + 1):
            due = tuple(n for n in points if _due(recorded.seen.get(n, ()), attempt))
            if due:
                self._probe(due, attempt, partial(self._tell, attempt))
        return {n: combined(recorded.seen[n]) for n in points}

    def _tell(self, attempt: int, place: int, one: Observation) -> None:
        self._recorded.seen.setdefault(place, []).append(one)
        name = self._recorded.question.names[place]
        self._journal.write("told", kernel=name, attempt=attempt, observation=asdict(one))
        self._watch.told(place, attempt, one)

    def ask_ends(self, last: int) -> None:
        """Ask the points 0 and ``last``; raises as :func:`bisect` when they are no ends."""
        settled = self.settled()
        ends = tuple(n for n in (0, last) if n not in settled)
        if ends:
            self.ask(Standing(self._recorded.rounds + 1, ends))
        _check_ends(self._recorded.question, self._recorded.seen, last)


def bisect(recorded: Recorded, slots: int, probe: Probe, journal: Journal, watch: Watch) -> Outcome:
    """Answer ``recorded.question``, asking nothing that ``recorded`` has already.

    Every step is in ``journal`` before the next begins.  Raises UsageError when the ends do
    not differ as they must, InfrastructureError when an end could not be asked at all, and
    what ``probe`` raises.
    """
    question, seen = recorded.question, recorded.seen
    names, count = question.names, len(question.points)
    asking = Asking(recorded, probe, journal, watch)

    def ask(points: tuple[int, ...]) -> Known:
        known = asking.settled()
        answer = conclude(known, count)
        standing = Standing(
            recorded.rounds + 1,
            points,
            answer.last,
            answer.first,
            rounds_left(known, count, slots),
            len(answer.between),
        )
        return asking.ask(standing)

    with ending(journal):
        asking.ask_ends(count - 1)
        search(ask, asking.settled(), count, slots)
    answer = conclude(asking.settled(), count)
    conclusion(
        journal, question, answer, unasked=[name for n, name in enumerate(names) if n not in seen]
    )
    return Outcome(question, answer, seen, recorded.rounds)


@contextmanager
def ending(journal: Journal) -> Iterator[None]:
    """Write down that a bisect ended without an answer, where its question has none."""
    try:
        yield
    except UsageError as error:
        journal.write("error", text=str(error))
        raise


def conclusion(journal: Journal, question: Question, answer: Answer, **facts: Any) -> None:
    """Write the answer: the last line."""
    names = question.names
    journal.write(
        "answer",
        last=names[answer.last],
        first=names[answer.first],
        between=[names[n] for n in answer.between],
        contradictions=[names[n] for n in answer.contradictions],
        **facts,
    )


def _due(seen: Sequence[Observation], attempt: int) -> bool:
    """Whether a point is still to be asked for the ``attempt``-th time."""
    return len(seen) < attempt and combined(seen) is not Verdict.FLAKY


def _check_ends(question: Question, seen: Seen, last: int) -> None:
    names = question.names
    lines = [f"{names[n]}: {seen[n][-1].why}" for n in (0, last)]
    for n in (0, last):
        if all(one.faulty for one in seen[n]):
            raise InfrastructureError(
                f"{names[n]}: {seen[n][-1].why}; an end has to tell: mend that, or choose a "
                "neighbour of it"
            )
    known = {0: combined(seen[0]), 1: combined(seen[last])}
    try:
        check_ends(known, 2, find_fixed=question.find_fixed, names=(names[0], names[last]))
    except UsageError as error:
        raise UsageError("\n".join([str(error), *lines])) from None
