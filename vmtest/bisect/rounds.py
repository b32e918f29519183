"""A bisect over a list of kernels, recorded step by step: ends first, then rounds of points.

Whoever calls it does the booting (``Ask``) and the showing (``Watch``); here is what is asked
next, and the journal ``bisect.jsonl`` that an interrupted bisect is continued from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from vmtest.bisect import ways
from vmtest.bisect.journal import Journal, Recorded, ending, write_answer
from vmtest.bisect.observe import Observation
from vmtest.bisect.question import Conclusion, Standing
from vmtest.bisect.search import Known, Verdict, check_ends, conclude, rounds_left, search
from vmtest.errors import InfrastructureError, UsageError

Told = Callable[[int, Observation], None]
Ask = Callable[[tuple[int, ...], int, Told], None]
"""Asks points, the attempt (from 1) given, and says each observation as soon as it has it.

What it raises ends the bisect; KeyboardInterrupt leaves it to be resumed.
"""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told that a round begins, and what a point said."""

    begins: Callable[[Standing], None]
    told: Callable[[int, int, Observation], None]


_FAILED_ANOTHER_WAY = 2
"""How often a point is asked at least before another failure is taken for what it says."""


class Asking:
    """Asks the points of ``recorded``'s question; what they say is in ``journal`` at once.

    What ``recorded`` has already is not asked again, and what is told is added to it.
    """

    def __init__(self, recorded: Recorded, probe: Ask, journal: Journal, watch: Watch) -> None:
        self._recorded = recorded
        self._probe = probe
        self._journal = journal
        self._watch = watch

    def settled(self) -> dict[int, Verdict]:
        """The verdicts of the points that were asked as often as they are to be, by place."""
        recorded = self._recorded
        return {n: recorded.verdict(n) for n in recorded.seen if not self._due(n, self._most)}

    def ask(self, standing: Standing) -> dict[int, Verdict]:
        """The verdicts of ``standing``'s points, asked in a round of their own."""
        recorded, points = self._recorded, standing.points
        question, recorded.rounds = recorded.question, standing.number
        names = [question.names[n] for n in points]
        self._journal.write("round", number=standing.number, points=names)
        self._watch.begins(standing)
        for attempt in range(1, self._most + 1):
            due = tuple(n for n in points if self._due(n, attempt))
            if due:
                self._probe(due, attempt, partial(self._tell, attempt))
        return {n: recorded.verdict(n) for n in points}

    @property
    def _most(self) -> int:
        """How often a point is asked at most."""
        return max(self._recorded.question.repeat, _FAILED_ANOTHER_WAY)

    def _due(self, place: int, attempt: int) -> bool:
        """Whether a point is still to be asked for the ``attempt``-th time."""
        recorded = self._recorded
        verdict = recorded.verdict(place)
        often = self._most if verdict is Verdict.OTHER else recorded.question.repeat
        return len(recorded.seen.get(place, ())) < min(attempt, often) and (
            verdict is not Verdict.FLAKY
        )

    def _tell(self, attempt: int, place: int, one: Observation) -> None:
        self._recorded.seen.setdefault(place, []).append(one)
        name = self._recorded.question.names[place]
        self._journal.write("told", kernel=name, attempt=attempt, observation=asdict(one))
        self._watch.told(place, attempt, one)

    def ask_ends(self, last: int) -> None:
        """Ask the points 0 and ``last``; raises as :func:`bisect` when they cannot be ends."""
        settled = self.settled()
        ends = tuple(n for n in (0, last) if n not in settled)
        if ends:
            self.ask(Standing(self._recorded.rounds + 1, ends))
        _check_ends(self._recorded, last)


def bisect(
    recorded: Recorded, slots: int, probe: Ask, journal: Journal, watch: Watch
) -> Conclusion:
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
    write_answer(
        journal, question, answer, unasked=[name for n, name in enumerate(names) if n not in seen]
    )
    return recorded.concluded(answer)


def _check_ends(recorded: Recorded, last: int) -> None:
    question, seen = recorded.question, recorded.seen
    names = question.names
    lines = [f"{names[n]}: {seen[n][-1].why}" for n in (0, last)]
    for n in (0, last):
        if all(one.faulty for one in seen[n]):
            raise InfrastructureError(
                f"{names[n]}: {seen[n][-1].why}; a bisect needs a verdict from both ends: "
                "correct that, or choose a neighbour as the end"
            )
    known = {0: recorded.verdict(0), 1: recorded.verdict(last)}
    if Verdict.OTHER in known.values():
        lines.append(f"bad is what fails as {names[recorded.bad]}: {ways.told(recorded.way)}")
        lines.append("`any_failure` counts whatever fails as bad")
    try:
        check_ends(known, 2, find_fixed=question.find_fixed, names=(names[0], names[last]))
    except UsageError as error:
        raise UsageError("\n".join([str(error), *lines])) from None
