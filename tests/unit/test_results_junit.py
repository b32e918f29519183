"""JUnit XML of other tools: as pytest wrote it, and in the shapes of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtest.command.formats.format import Format
from vmtest.command.formats.junit import read
from vmtest.model.kernels import TestResult

DATA = Path(__file__).parent / "data" / "results"


def rows(xml: str) -> dict[str, TestResult]:
    return {row.test: row for row in read(xml.encode(), "s")}


def case(inside: str, attributes: str = "") -> TestResult:
    (row,) = rows(
        f'<testsuite><testcase classname="c" name="n" {attributes}>{inside}</testcase></testsuite>'
    ).values()
    return row


def test_what_pytest_wrote() -> None:
    found = {row.test: row.outcome.value for row in read((DATA / "pytest.xml").read_bytes(), "s")}
    assert found == {
        "test_x::test_a": "passed",
        "test_x::test_b": "failed",
        "test_x::test_c": "error",
        "test_x::test_d": "skipped",
        "test_x::test_e": "xfailed",
    }


def test_a_failure_has_message_text_and_output() -> None:
    row = case('<failure message="1 != 2">at x.rs:3</failure><system-out>said</system-out>')
    assert (row.outcome.value, row.message) == ("failed", "1 != 2")
    assert row.details == "at x.rs:3\nsaid"


def test_a_failure_without_a_message_has_its_last_line() -> None:
    assert case("<failure>at x.rs:3\npanicked\n</failure>").message == "panicked"


def test_a_test_that_passed_when_repeated_is_flaky() -> None:
    """As surefire and cargo-nextest tell it."""
    row = case('<flakyFailure message="once"/>')
    assert (row.outcome.value, row.flaky) == ("passed", True)


def test_a_disabled_test_of_googletest_is_skipped() -> None:
    assert case("", 'status="notrun"').outcome.value == "skipped"


@pytest.mark.parametrize(
    ("time", "seconds"), [("1.5", 1.5), ("1,234.5", 1234.5), ("nan", 0), ("-1", 0), ("x", 0)]
)
def test_a_time(time: str, seconds: float) -> None:
    assert case("", f'time="{time}"').duration == seconds


def test_suites_within_suites_are_read() -> None:
    inner = '<testsuite name="i"><testcase name="t"/></testsuite>'
    assert list(rows(f"<testsuites><testsuite>{inner}</testsuite></testsuites>")) == ["t"]


def test_an_error_of_a_whole_suite_is_one() -> None:
    found = rows('<testsuite name="fixture"><error message="no bpffs"/></testsuite>')
    assert (found["fixture"].outcome.value, found["fixture"].message) == ("error", "no bpffs")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not XML"),
        (b"<testsuite><testcase", "not XML"),
        (b"hello", "not XML"),
        (b"<html/>", "its root is <html>"),
        (b'<?xml version="1.0" encoding="nonsense"?><testsuite/>', "not XML"),
        (b"\xff\xfe\x00", "not XML"),
    ],
)
def test_what_is_no_junit_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(data, "s")


def test_entities_that_would_grow_are_refused() -> None:
    bomb = '<!DOCTYPE t [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><testsuite name="&b;"/>'
    with pytest.raises(ValueError, match="document type declaration"):
        read(bomb.encode(), "s")


@pytest.mark.parametrize("text", ["", "junit", "junit:", "gotest:x", "TAP", "xml:a"])
def test_a_format_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="none of gotest, tap, junit:PATH"):
        Format.parse(text)


def test_a_path_of_junit_may_have_a_colon() -> None:
    assert Format.parse("junit:a:b.xml") == Format("junit", "a:b.xml")
