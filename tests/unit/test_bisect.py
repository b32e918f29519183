"""The search for the point where a verdict changes, over every list of a small length."""

from __future__ import annotations

import math

import pytest

from vmtest.bisect.search import (
    Answer,
    Known,
    Verdict,
    check_ends,
    conclude,
    next_points,
    rounds_left,
    search,
)
from vmtest.errors import UsageError

GOOD, BAD, SKIP, FLAKY = Verdict.GOOD, Verdict.BAD, Verdict.SKIP, Verdict.FLAKY


class List:
    """A list of verdicts that counts the rounds and the points it is asked for."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = verdicts
        self.rounds: list[tuple[int, ...]] = []

    def ask(self, points: tuple[int, ...]) -> Known:
        self.rounds.append(points)
        return {point: self.verdicts[point] for point in points}

    def answer(self, slots: int = 1) -> Answer:
        count = len(self.verdicts)
        ends = {0: self.verdicts[0], count - 1: self.verdicts[-1]}
        return conclude(search(self.ask, ends, count, slots), count)


def changing_at(first: int, count: int) -> List:
    return List(*[GOOD] * first, *[BAD] * (count - first))


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
@pytest.mark.parametrize("count", range(2, 20))
def test_finds_every_change_in_lists_of_every_length(count: int, slots: int) -> None:
    for first in range(1, count):
        assert changing_at(first, count).answer(slots) == Answer(first - 1, first)


@pytest.mark.parametrize("count", range(2, 70))
def test_one_slot_needs_no_more_rounds_than_a_binary_search(count: int) -> None:
    for first in range(1, count):
        asked = changing_at(first, count)
        asked.answer()
        assert len(asked.rounds) <= math.ceil(math.log2(count))


def test_two_slots_need_fewer_rounds_than_one() -> None:
    def worst(slots: int) -> int:
        lists = [changing_at(first, 50) for first in range(1, 50)]
        for asked in lists:
            asked.answer(slots)
        return max(len(asked.rounds) for asked in lists)

    assert (worst(1), worst(2)) == (6, 4)


def test_no_round_asks_more_points_than_there_are_slots_and_none_twice() -> None:
    asked = changing_at(13, 40)
    asked.answer(3)
    assert max(len(points) for points in asked.rounds) == 3
    flat = [point for points in asked.rounds for point in points]
    assert len(flat) == len(set(flat))


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("cannot", [SKIP, FLAKY])
def test_points_that_cannot_tell_widen_the_answer_only_where_it_lies(
    slots: int, cannot: Verdict
) -> None:
    away = List(GOOD, cannot, GOOD, GOOD, BAD, cannot, BAD)
    assert away.answer(slots) == Answer(3, 4)
    beside = List(GOOD, GOOD, cannot, cannot, BAD, BAD)
    assert beside.answer(slots) == Answer(1, 4, between=(2, 3))


def test_an_interrupted_search_repeats_nothing() -> None:
    asked = changing_at(7, 30)
    known = {0: GOOD, 29: BAD, 15: BAD, 7: BAD}
    found = search(asked.ask, known, 30, 1)
    assert conclude(found, 30) == Answer(6, 7)
    assert not {point for points in asked.rounds for point in points} & known.keys()


def test_looking_for_what_was_fixed_is_the_same_search() -> None:
    fixed = List(BAD, BAD, BAD, GOOD, GOOD)
    assert fixed.answer() == Answer(2, 3)


def test_a_verdict_that_changes_back_is_told() -> None:
    known = {0: GOOD, 9: BAD, 3: BAD, 6: GOOD, 2: GOOD}
    assert conclude(known, 10) == Answer(2, 3, contradictions=(6,))


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("count", range(2, 60))
def test_no_more_rounds_are_needed_than_are_announced(count: int, slots: int) -> None:
    announced = rounds_left({0: GOOD, count - 1: BAD}, count, slots)
    needed = []
    for first in range(1, count):
        asked = changing_at(first, count)
        asked.answer(slots)
        needed.append(len(asked.rounds))
    assert max(needed) == announced


@pytest.mark.parametrize(
    ("first", "last", "find_fixed", "said"),
    [
        (GOOD, GOOD, False, "5.10 is good and 7.3 is good: both ends have the same verdict"),
        (BAD, BAD, True, "5.10 is bad and 7.3 is bad: both ends have the same verdict"),
        (BAD, GOOD, False, "nothing was broken between them; did you mean `find` fixed?"),
        (GOOD, BAD, True, "nothing was fixed between them; did you mean `find` broken?"),
        (SKIP, BAD, False, "5.10 is skip and 7.3 is bad: one end has no verdict"),
        (GOOD, FLAKY, False, "one end has no verdict"),
    ],
)
def test_ends_that_are_none_say_what_was_seen(
    first: Verdict, last: Verdict, find_fixed: bool, said: str
) -> None:
    with pytest.raises(UsageError, match=r"5\.10 is") as error:
        check_ends({0: first, 4: last}, 5, find_fixed=find_fixed, names=["5.10", "6.1", "7.3"])
    assert said in str(error.value)


def test_ends_that_differ_as_asked_are_accepted() -> None:
    check_ends({0: GOOD, 1: BAD}, 2, find_fixed=False, names=["a", "b"])
    check_ends({0: BAD, 1: GOOD}, 2, find_fixed=True, names=["a", "b"])


def test_neighbours_leave_nothing_to_ask() -> None:
    assert next_points({0: GOOD, 1: BAD}, 2, 4) == ()
