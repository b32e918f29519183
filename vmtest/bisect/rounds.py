"""A bisect over a list of kernels, recorded step by step: ends first, then rounds of points.

Whoever calls it does the booting (``Ask``) and the showing (``Watch``); here is what is asked
next, and the journal ``bisect.jsonl`` that an interrupted bisect is continued from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from vmtest.bisect.journal import Journal, Recorded, ending, write_answer
from vmtest.bisect.observe import Observation, combined
from vmtest.bisect.question import Conclusion, Question, Seen, Standing
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
        """Ask the points 0 and ``last``; raises as :func:`bisect` when they cannot be ends."""
        settled = self.settled()
        ends = tuple(n for n in (0, last) if n not in settled)
        if ends:
            self.ask(Standing(self._recorded.rounds + 1, ends))
        _check_ends(self._recorded.question, self._recorded.seen, last)


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
    return Conclusion(question, answer, seen, recorded.rounds)


def _due(seen: Sequence[Observation], attempt: int) -> bool:
    """Whether a point is still to be asked for the ``attempt``-th time."""
    return len(seen) < attempt and combined(seen) is not Verdict.FLAKY


def _check_ends(question: Question, seen: Seen, last: int) -> None:
    names = question.names
    lines = [f"{names[n]}: {seen[n][-1].why}" for n in (0, last)]
    for n in (0, last):
        if all(one.faulty for one in seen[n]):
            raise InfrastructureError(
                f"{names[n]}: {seen[n][-1].why}; a bisect needs a verdict from both ends: "
                "correct that, or choose a neighbour as the end"
            )
    known = {0: combined(seen[0]), 1: combined(seen[last])}
    try:
        check_ends(known, 2, find_fixed=question.find_fixed, names=(names[0], names[last]))
    except UsageError as error:
        raise UsageError("\n".join([str(error), *lines])) from None
