"""Text of a guest is safe and short before anything shows it."""

import pytest

from vmtest.model.text import one_line, printable
from vmtest.report import text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP+q544e\x1b\\x", "x"),
        ("\x1bcreset", "reset"),
        ("\x1b(Bplain", "plain"),
    ],
)
def test_terminal_sequences_are_gone(raw: str, shown: str) -> None:
    assert printable(raw) == shown


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("bell\x07", "bell\\x07"),
        ("nul\x00", "nul\\x00"),
        ("\x9b31m", "\\x9b31m"),
        ("lone \x1b", "lone \\x1b"),
        ("a\u202eb", "a\\u202eb"),
        ("\udc80", "\\udc80"),
        ("\uffff", "\\uffff"),
    ],
)
def test_other_control_characters_are_spelled_out(raw: str, shown: str) -> None:
    assert printable(raw) == shown


def test_carriage_returns_become_newlines() -> None:
    assert printable("a\r\nb\r\r\nc\rd") == "a\nb\nc\nd"


def test_tabs_newlines_and_letters_of_any_script_stay() -> None:
    assert printable("a\tb\nж 漢 🐝") == "a\tb\nж 漢 🐝"


def test_one_line_is_at_most_as_long_as_asked() -> None:
    assert one_line("a\n" * 300, 10) == "a a a a a…"


def test_last_lines_says_how_many_came_before() -> None:
    assert text.last_lines("1\n2\n3\n4\n", 3) == (["2", "3", "4"], 1)


def test_last_lines_of_nothing_is_nothing() -> None:
    assert text.last_lines(" \n", 3) == ([], 0)


def test_last_lines_cuts_a_long_line_and_says_so() -> None:
    assert text.last_lines("x" * 30, 3, columns=10) == (["xxxxxxxxxx… (20 more characters)"], 0)


def test_a_name_breaks_at_its_joints() -> None:
    assert text.wrapped("6.12.57+deb13-cloud-amd64", 14) == ["6.12.57+deb13-", "cloud-amd64"]


def test_a_name_without_joints_breaks_where_it_must() -> None:
    assert text.wrapped("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]


@pytest.mark.parametrize("width", range(1, 30))
def test_breaking_loses_nothing(width: int) -> None:
    name = "test_control_connection[ipv6-long_parameter]"
    assert "".join(text.wrapped(name, width)) == name


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0.0 s"),
        (81.32, "81.3 s"),
        (599.9, "599.9 s"),
        (599.96, "10 min 00 s"),
        (725, "12 min 05 s"),
    ],
)
def test_seconds(value: float, shown: str) -> None:
    assert text.seconds(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(81, "1:21"), (3725.9, "1:02:05"), (-1, "0:00")])
def test_clock(value: float, shown: str) -> None:
    assert text.clock(value) == shown


LONG = ("test_stale_connection_gives_one_event[v4]", "test_stale_connection_gives_one_event[v6]")


def test_a_name_that_fits_stays_whole() -> None:
    assert text.shortened(LONG, 41) == list(LONG)


@pytest.mark.parametrize("width", range(12, 41))
def test_shortened_names_fit_and_stay_different(width: int) -> None:
    names = text.shortened(LONG, width)
    assert all(len(name) == width for name in names)
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    "different", ["test_ONE_in_the_middle_it_is", "test_in_the_middle_it_is_ONE"]
)
def test_what_tells_two_names_apart_stays(different: str) -> None:
    names = (different, different.replace("ONE", "TWO"))
    assert [("ONE" in name, "TWO" in name) for name in text.shortened(names, 18)] == [
        (True, False),
        (False, True),
    ]


def test_names_that_only_their_middle_tells_apart_are_broken_into_lines() -> None:
    names = (f"{'a' * 40}_x_{'b' * 40}", f"{'a' * 40}_y_{'b' * 40}")
    shown = text.shortened(names, 20)
    assert ["".join(name.split()) for name in shown] == list(names)
    assert all(len(line) <= 20 for name in shown for line in name.split("\n"))
