"""The line that stands for an error keeps what differs; what pytest says was recorded."""

import json
from pathlib import Path
from typing import Any

import pytest

from vmtest.model.results import Outcome, TestResult
from vmtest.report.assertions import LIMIT, middle, said, squeezed

DATA = Path(__file__).parent / "data" / "report" / "assertions.json"
RECORDED: list[dict[str, str]] = json.loads(DATA.read_text(encoding="utf-8"))

DIFFERS = {
    "int": "assert 2 == 1",
    "int_message": "the map has two entries",
    "str": "onnection refused by peer at port",
    "str_short": "assert 'foo' == 'bar'",
    "str_lines": ": 'two' != 'too'",
    "list": ": at index 100: 100 != 5",
    "list_longer": "assert [1, 2, 3] == [1, 2]",
    "list_of_bytes": r": at index 1: b'\x01\x00(x300)' != b'\x01\x00(x299)\x07'",
    "tuple": "assert (1, 2, 3) == (1, 5, 3)",
    "dict": "{…} == {…}: {'key_3': 3} != {'key_3': 9}; Left contains 1 more item: {'key_59': 59}; ",
    "set": "Extra items in the left set: 0; Extra items in the right set: 100",
    "bytes": r"b'\x00' != b'\x07'",
    "dataclass": r"Storage(…) == Storage(…): port: 1 != 2; orig: at index 300: b'\x00' != b'\x07'",
    "nested": r"assert Storage(…) == Storage(…): inner.data: at index 300: b'\x00' != b'\x08'",
    "namedtuple": "assert P(…) == P(…): x: 1 != 2",
    "in": "assert 'needle' in ['straw0', ",
    "not_in": ": here: yhayhayhayneedlehayhayhayhay…",
    "in_bytes": r"assert b'needle' in b'\x01\x00(x28)",
    "approx": "assert 0.5 == 0.6 ± 6.0e-07",
    "approx_list": ": at 1: 0.5 != 0.6 ± 6.0e-07",
    "approx_dict": ": at b: 0.5 != 0.6 ± 6.0e-07",
    "raises": "Failed: DID NOT RAISE ",
    "raises_match": "did not match: ",
    "raises_other": "KeyError: 'x'",
    "false": "assert False (where False = <function test_false.<locals>.is_ok>(5))",
    "not": r"assert not {'a': b'\x01\x00(x26)",
    "none": "assert None is not None (where None = <built-in method get of dict object>('x'))",
    "long_message": "inner=None): port: 1 != 2",
    "multiline_message": "AssertionError: first line",
    "exception": "OSError: [Errno 7] Argument list too long",
    "exception_lines": "RuntimeError: cannot load: libbpf: prog x: failed",
    "chained": "RuntimeError: no such key: x",
    "fail": "Failed: it is wrong, it is wrong, ",
    "lt": "assert 301 < 3",
    "all": "assert False (where False = all(",
    "helper": "assert 1 == 2",
    "fixture": "ValueError: no device",
    "isinstance": r"assert False (where False = isinstance(b'\x01\x00(x28)",
}


def failed(message: str, details: str = "", **more: Any) -> TestResult:
    return TestResult("t.py::test_x", "s", Outcome.FAILED, message=message, details=details, **more)


def line_of(row: dict[str, str]) -> str:
    return said(failed(row["message"], row["details"]))


@pytest.mark.parametrize("row", RECORDED, ids=[f"{r['pytest']} {r['test']}" for r in RECORDED])
def test_the_line_of_an_error_holds_what_differs(row: dict[str, str]) -> None:
    line = line_of(row)
    if "-vv" not in row["pytest"]:
        assert DIFFERS.get(row["test"], "assert ") in line
    assert len(line) <= LIMIT
    assert "\n" not in line


@pytest.mark.parametrize("row", [r for r in RECORDED if "-vv" in r["pytest"]], ids=str)
def test_a_full_diff_does_not_hide_the_difference(row: dict[str, str]) -> None:
    telling = {"dataclass": "port: 1 != 2; orig: at index 300", "set": "left set: 0; Extra items"}
    assert telling.get(row["test"], "assert ") in line_of(row)


@pytest.mark.parametrize("name", ["raises_match"])
def test_a_pattern_that_did_not_match_stands_beside_the_text(name: str) -> None:
    lines = [line_of(row) for row in RECORDED if row["test"] == name]
    assert len(lines) == 3
    assert all("'foo.*bar'" in line and "'nothing of it" in line for line in lines)


LONG = f"AssertionError: expected S(1, {list('abcdefghijklm' * 6)}), seen S(2, 1)"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            ">       assert seen == expected, f'expected {expected}, seen {seen}'",
            "seen == expected",
        ),
        (">       assert log.drain() == [text], (", "log.drain() == [text]"),
        (">       assert check(seen), message", ""),
        (">       assert seen == 'it does not end, (", ""),
    ],
    ids=["names", "several lines", "no comparison", "not Python"],
)
def test_a_message_that_is_cut_does_not_hide_which_side_is_which(source: str, told: str) -> None:
    lines = (source, f"E       {LONG}", "E       assert S(1) == S(2)", "E         ")
    more = ("E         Drill down into differing attribute port:", "E           port: 2 != 1")
    line = said(failed(LONG, "\n".join((*lines, *more))))
    assert line.startswith(f"assert {told}: port: " if told else "AssertionError: expected S(")
    assert line.endswith("port: 2 != 1")


def test_a_known_failure_that_has_expired_says_so_in_front() -> None:
    details = "E   AssertionError: assert 1 == 2\n\nt.py:1: AssertionError"
    line = said(failed("expired 2026-01-01 (slow): AssertionError: assert 1 == 2", details))
    assert line == "expired 2026-01-01 (slow): AssertionError: assert 1 == 2"


def test_an_error_of_another_traceback_does_not_replace_the_message() -> None:
    assert said(failed("not ok 3", "E   ValueError: of something else")) == "not ok 3"


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (r"b'\x00" + r"\x00" * 39 + "'", r"b'\x00(x40)'"),
        (r"b'\x00\x00\x01'", r"b'\x00\x00\x01'"),
        ("01 00 00 00 00 00 00 02", "01 00(x6) 02"),
        ("[0, 0, 0, 0, 0, 0, 0, 0, 0]", "[0, (x8)0]"),
        ("=" * 30, "=(x30)"),
        ("a" * 20, "a" * 20),
    ],
)
def test_runs_of_the_same_are_told_once(text: str, short: str) -> None:
    assert squeezed(text) == short


@pytest.mark.parametrize("limit", [5, 10, 11, 50])
def test_a_long_text_loses_its_middle_and_no_more(limit: int) -> None:
    text = "".join(map(chr, range(200, 300)))
    short = middle(text, limit)
    assert len(short) == limit
    assert short[0] == text[0]
    assert short.endswith(text[-1])


@pytest.mark.parametrize("text", ["E   assert ", "E", "E   assert a ==", "E   assert (", "E\nE  "])
def test_nothing_that_a_guest_says_is_too_odd(text: str) -> None:
    assert said(failed("assert ", text)) is not None
    assert len(said(failed("", text * 500))) <= LIMIT
