"""What a bisect asks: the kernels, what is looked for in them, what was seen, and the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vmtest.bisect.observe import Observation, combined
from vmtest.bisect.search import Answer, Verdict
from vmtest.host.files import Files
from vmtest.model.results import KernelResult


@dataclass(frozen=True, slots=True)
class Point:
    """A kernel of the list: its name, its package version, and the suite that has it.

    A commit's ``version`` is its full id; it has a ``subject`` in place of a suite.  ``table`` is
    the key of kernels.toml for its archive.
    """

    name: str
    version: str
    suite: str = ""
    subject: str = ""
    table: str = "apt"

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
    then the commits that git asked for, in that order.  ``any_failure`` counts as bad whatever
    fails, and not only what fails as the bad end does.
    """

    asked: Mapping[str, Any]
    points: tuple[Point, ...]
    find_fixed: bool = False
    repeat: int = 1
    gone: tuple[Point, ...] = ()
    left_out: tuple[Point, ...] = ()
    any_failure: bool = False

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
class Conclusion:
    """A bisect's end: the answer and all that was seen on the way, in ``rounds`` rounds.

    ``way`` is how the bad end failed, none where any failure counted; ``bad`` is that end's place.
    """

    question: Question
    answer: Answer
    seen: Seen
    rounds: int
    way: tuple[str, ...] = ()
    bad: int = 0

    @property
    def verdicts(self) -> dict[int, Verdict]:
        """Verdicts of the points that were asked."""
        return {n: combined(seen, self.way) for n, seen in sorted(self.seen.items())}

    @property
    def unasked(self) -> tuple[Point, ...]:
        """The points that were never booted."""
        return tuple(p for n, p in enumerate(self.question.points) if n not in self.seen)


class Find(StrEnum):
    """What the change is."""

    BROKEN = "broken"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class Work:
    """What each kernel is asked: ``asked`` is it as JSON, ``command`` reproduces it.

    ``options`` are those of a bisect that ask it, ``files`` has read what is asked, ``wheels``
    says whether the guests need those of ``[guest]``.
    """

    asked: dict[str, Any]
    task: Callable[[Any], Any]
    judge: Judge
    command: tuple[str, ...]
    options: tuple[str, ...]
    files: Files
    suites: tuple[str, ...] = ()
    ran: tuple[str, ...] = ()
    wheels: bool = True


Judge = Callable[[KernelResult, str], Observation]
"""What a result says; the second is the folder with its logs, relative to the run's."""
