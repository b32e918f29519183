"""The journal of a bisect, ``bisect.jsonl``: what an interrupted one is continued from."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from vmtest.bisect.observe import Observation, combined
from vmtest.bisect.question import Conclusion, Point, Question
from vmtest.bisect.search import Answer, Verdict
from vmtest.errors import UsageError
from vmtest.runs.folder import utc_now

JOURNAL = "bisect.jsonl"
"""The journal's name in the run's folder: a JSON value a line, written when it happens."""


_QUESTION = TypeAdapter(Question)
_POINT = TypeAdapter(Point)
_OBSERVATION = TypeAdapter(Observation)


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
    """What a journal holds; ``ended`` is how it ended, "" when it was interrupted.

    ``asked`` has the first round of each point by its place; ``last`` and ``first`` are the names
    in the answer.  ``bad`` is the place of the bad end.
    """

    question: Question
    seen: dict[int, list[Observation]] = field(default_factory=dict)
    rounds: int = 0
    ended: str = ""
    asked: dict[int, int] = field(default_factory=dict)
    last: str = ""
    first: str = ""
    bad: int = field(init=False)

    def __post_init__(self) -> None:
        """Find the bad end: the commits that git asks for come behind both ends."""
        self.bad = 0 if self.question.find_fixed else len(self.question.points) - 1

    @property
    def way(self) -> tuple[str, ...]:
        """How the bad end failed when it first did: only that is bad.  None counts any failure.

        None also for an end that an older vmtest asked: a bisect ends by the rule it began with.
        """
        if self.question.any_failure:
            return ()
        seen = self.seen.get(self.bad, ())
        return next((one.way for one in seen if one.verdict is Verdict.BAD), ())

    def verdict(self, place: int) -> Verdict:
        """What the point at ``place`` said until now."""
        return combined(self.seen.get(place, ()), self.way)

    def concluded(self, answer: Answer) -> Conclusion:
        """The end, with ``answer``."""
        return Conclusion(self.question, answer, self.seen, self.rounds, self.way, self.bad)

    def add(self, point: Point) -> int:
        """Add a point that was not known when it began; returns its place."""
        self.question = replace(self.question, points=(*self.question.points, point))
        return len(self.question.points) - 1


def read(folder: Path) -> Recorded | None:
    """The journal in ``folder``, or None when there is none with a question in it.

    A line that was cut short or damaged is as if it had not been begun, and what the machine
    kept from telling is as if it had not been asked.
    """
    try:
        text = (folder / JOURNAL).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    recorded: Recorded | None = None
    begun = 0
    for line in text.splitlines():
        try:
            value = json.loads(line)
            match value["event"]:
                case "question":
                    recorded = Recorded(_QUESTION.validate_python(value))
                case "commit" if recorded is not None:
                    recorded.add(_POINT.validate_python(value["point"]))
                case "round" if recorded is not None:
                    begun = int(value["number"])
                    for name in value["points"]:
                        recorded.asked.setdefault(recorded.question.names.index(name), begun)
                case "told" if recorded is not None:
                    place = recorded.question.names.index(value["kernel"])
                    one = _OBSERVATION.validate_python(value["observation"])
                    recorded.rounds = begun  # one that was interrupted before is begun again
                    if not one.faulty:
                        recorded.seen.setdefault(place, []).append(one)
                case "answer" | "error" if recorded is not None:
                    recorded.ended = value["event"]
                    if value["event"] == "answer":
                        recorded.last, recorded.first = str(value["last"]), str(value["first"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
    return recorded


def find_interrupted(runs: Path, asked: Mapping[str, Any]) -> tuple[Path, Recorded]:
    """The last interrupted bisect below ``runs`` that asked the same; raises UsageError.

    It is one that still runs only if there is no other; ``Journal.open`` refuses that one.
    """
    others, running = [], None
    for file in sorted(runs.glob(f"*/{JOURNAL}"), reverse=True):
        recorded = read(file.parent)
        if recorded is None:
            continue
        if recorded.question.asked == asked and not recorded.ended:
            if not _is_running(file):
                return file.parent, recorded
            running = running or (file.parent, recorded)
            continue
        if recorded.question.asked == asked:
            others.append(f"{file.parent.name} asked this and came to its end")
        elif not recorded.ended:
            before = recorded.question.asked
            differs = [k for k in {**asked, **before} if asked.get(k) != before.get(k)]
            others.append(f"{file.parent.name} differs in {', '.join(differs)}")
    if running is not None:
        return running
    raise UsageError(
        "\n".join(["`resume`: there is no interrupted bisect of this question", *others[:3]])
    )


def _is_running(journal: Path) -> bool:
    with journal.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def ending(journal: Journal) -> Iterator[None]:
    """Write down that a bisect ended without an answer, where its question has none."""
    try:
        yield
    except UsageError as error:
        journal.write("error", text=str(error))
        raise


def write_answer(journal: Journal, question: Question, answer: Answer, **facts: Any) -> None:
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
