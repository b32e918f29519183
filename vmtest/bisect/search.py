"""Search an ordered list for the place where a verdict changes; knows nothing of VMs.

With ``slots`` probes at a time every round cuts what is left into ``slots + 1`` parts, so that
two slots need fewer rounds than one.  Pure: ``next_points`` says what to ask next, ``conclude``
what is known, and whoever calls them does the asking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vmtest.errors import UsageError


class Verdict(StrEnum):
    """What one point of the list came to."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"
    """It cannot tell: it does not build, does not boot, runs no tests."""
    FLAKY = "flaky"
    """It told both when asked several times."""
    OTHER = "other"
    """It failed, and in another way than the bad end: that counts for neither side."""

    @property
    def tells(self) -> bool:
        """Whether the search can go by it."""
        return self in (Verdict.GOOD, Verdict.BAD)


Known = Mapping[int, Verdict]
"""Verdicts by the point's place in the list."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Between which points the verdict changes.

    ``last`` has the verdict of the list's beginning and ``first`` that of its end; the
    change came with ``first`` unless there are points between them that could not tell
    (``between``): then with one of those or with ``first``.  ``contradictions`` are points behind
    ``first`` that had the beginning's verdict again: it changes more than once, and this is
    the earliest change that was seen.
    """

    last: int
    first: int
    between: tuple[int, ...] = ()
    contradictions: tuple[int, ...] = ()

    @property
    def places(self) -> tuple[int, ...]:
        """The points one of which the change came with."""
        return (*self.between, self.first)

    @property
    def exact(self) -> bool:
        """Whether one point is the answer."""
        return not self.between


def check_ends(known: Known, count: int, *, find_fixed: bool, names: Sequence[str]) -> None:
    """Raise UsageError unless the first point and the last have told what they must.

    Looking for what broke, the first is good and the last bad; looking for what was fixed
    the other way round.  ``names`` are the points' names for the message.
    """
    wanted = (Verdict.BAD, Verdict.GOOD) if find_fixed else (Verdict.GOOD, Verdict.BAD)
    seen = (known[0], known[count - 1])
    if seen == wanted:
        return
    told = f"{names[0]} {_said(seen[0])} and {names[-1]} {_said(seen[1])}"
    if not all(verdict.tells for verdict in seen):
        raise UsageError(f"{told}: one end has no verdict; choose a neighbour as the end")
    if seen == wanted[::-1]:
        looked = "fixed" if find_fixed else "broken"
        other = "broken" if find_fixed else "fixed"
        raise UsageError(f"{told}: nothing was {looked} between them; did you mean `find` {other}?")
    raise UsageError(f"{told}: both ends have the same verdict; choose another `good` or `bad`")


def _said(verdict: Verdict) -> str:
    return "failed another way" if verdict is Verdict.OTHER else f"is {verdict}"


def _bounds(known: Known, count: int) -> tuple[int, int]:
    """The nearest points that differ: the last one like the beginning before the first change."""
    beginning = known[0]
    changed = [n for n, verdict in known.items() if verdict.tells and verdict != beginning]
    first = min(changed, default=count - 1)
    return max(n for n, v in known.items() if v == beginning and n < first), first


def next_points(known: Known, count: int, slots: int) -> tuple[int, ...]:
    """The points to ask in the next round, ascending; none when the answer is there.

    ``known`` has the verdicts of both ends at least (``check_ends``).
    """
    last, first = _bounds(known, count)
    left = [n for n in range(last + 1, first) if n not in known]
    asked = min(slots, len(left))
    return tuple(left[(n + 1) * len(left) // (asked + 1)] for n in range(asked))


def conclude(known: Known, count: int) -> Answer:
    """The answer so far; ``between`` holds what is not asked yet as well."""
    last, first = _bounds(known, count)
    beginning = known[0]
    contradictions = [n for n, v in known.items() if v == beginning and n > first]
    return Answer(last, first, tuple(range(last + 1, first)), tuple(sorted(contradictions)))


def search(
    ask: Callable[[tuple[int, ...]], Known], known: Known, count: int, slots: int
) -> dict[int, Verdict]:
    """All verdicts it took to narrow the change down; ``conclude`` reads the answer off them.

    ``ask`` is given the points of one round, at most ``slots``, and returns their verdicts;
    what it raises ends the search.  ``known`` has both ends at least, and whatever an
    interrupted search had found.
    """
    found = dict(known)
    while points := next_points(found, count, slots):
        found |= ask(points)
    return found


def rounds_left(known: Known, count: int, slots: int) -> int:
    """How many rounds it still takes at most, if every point tells."""
    last, first = _bounds(known, count)
    left = sum(n not in known for n in range(last + 1, first))
    rounds = 0
    while left > 0:
        # The largest of the parts that a round leaves.
        asked = min(slots, left)
        left = -(-(left - asked) // (asked + 1))
        rounds += 1
    return rounds
