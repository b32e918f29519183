"""Which test ran when the kernel said something."""

from hypothesis import given
from hypothesis import strategies as st

from vmtest.suites.spans import Spans


def spans_of(*tests: tuple[str, int, int | None]) -> Spans:
    spans = Spans()
    for test, since, until in tests:
        spans.begin(test, since)
        if until is not None:
            spans.end(until)
    return spans


def test_a_message_belongs_to_the_test_behind_whose_start_it_came() -> None:
    spans = spans_of(("a", 1_000_000, 1_500_000), ("b", 1_500_000, 1_700_000))
    assert spans.ran_at("1.500000") == "a"
    assert spans.ran_at("1.500001") == "b"


def test_what_came_between_two_tests_or_before_them_belongs_to_none() -> None:
    spans = spans_of(("a", 1_000_000, 1_500_000), ("b", 1_600_000, 1_700_000))
    assert [spans.ran_at(stamp) for stamp in ("0.9", "1.550000", "1.8", "")] == [""] * 4


def test_a_test_that_has_not_ended_has_all_that_came_since() -> None:
    spans = spans_of(("a", 1_000_000, 1_500_000), ("b", 1_500_000, None))
    assert spans.ran_at("99.000000") == "b"


def test_where_the_guest_knows_no_time_no_test_is_named() -> None:
    assert spans_of(("a", 0, 0), ("b", 0, None)).ran_at("99.000000") == ""


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=5), st.integers(0, 10**9)
)
def test_whatever_a_guest_tells_names_one_of_its_tests_or_none(
    told: list[tuple[int, int]], at: int
) -> None:
    spans = spans_of(*((str(n), since, until) for n, (since, until) in enumerate(told)))
    assert spans.ran_at(f"{at / 1e6:.6f}") in {"", *map(str, range(len(told)))}
