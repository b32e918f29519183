"""JUnit XML of other tools: as pytest wrote it, and in the shapes of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtest.command.formats.format import Format
from vmtest.command.formats.junit import read
from vmtest.model.results import TestResult

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
    with pytest.raises(ValueError, match="not a format: write gotest, tap or junit:PATH"):
        Format.parse(text)


def test_a_path_of_junit_may_have_a_colon() -> None:
    assert Format.parse("junit:a:b.xml") == Format("junit", "a:b.xml")


def recorded(name: str) -> dict[str, TestResult]:
    found = read((DATA / name).read_bytes(), "s")
    return {row.test: row for row in found}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "bats.xml",
            {
                "t.bats::loads the program": "passed",
                "t.bats::attaches it": "skipped",
                "t.bats::counts packets": "failed",
                "t.bats::prints colour": "failed",
                "t.bats::skips silently": "skipped",
            },
        ),
        (
            "ctest.xml",
            {
                "loads::loads": "passed",
                "fails::fails": "failed",
                "missing::missing": "error",
                "skips::skips": "skipped",
                "off::off": "skipped",
                "slow::slow": "failed",
                "setup::setup": "failed",
                "needs::needs": "error",
                "willfail::willfail": "failed",
                "skipre::skipre": "skipped",
                "reqfile::reqfile": "error",
            },
        ),
        (
            "googletest.xml",
            {
                "Bpf::Loads": "passed",
                "Bpf::Skips": "skipped",
                "Bpf::DISABLED_Off": "skipped",
                "Bpf::Fails": "failed",
                "All/P::Each/0": "passed",
                "All/P::Each/1": "failed",
            },
        ),
        (
            "libtest.xml",
            {"unknown::loads": "passed", "unknown::net::fails": "failed"},
        ),
        (
            "mocha.xml",
            {
                "suite::adds": "passed",
                "suite::fails": "failed",
                "suite::skipped": "skipped",
                "suite::pending": "skipped",
            },
        ),
        (
            "vitest.xml",
            {
                "v/a.test.mjs::suite > adds": "passed",
                "v/a.test.mjs::suite > fails": "failed",
                "v/a.test.mjs::suite > skipped": "skipped",
                "v/a.test.mjs::suite > later": "skipped",
                "v/a.test.mjs::plain": "passed",
                "v/b.test.mjs::other": "passed",
            },
        ),
        (
            "pytest-9.xml",
            {
                "test_x::test_a": "passed",
                "test_x::test_red": "failed",
                "test_x::test_td": "failed",
                "test_x::test_td (2)": "error",
                "test_x::test_xp": "failed",
                "test_x::test_xf": "xfailed",
                "test_x::test_sub": "failed",
            },
        ),
    ],
)
def test_what_a_producer_wrote(name: str, expected: dict[str, str]) -> None:
    assert {test: row.outcome.value for test, row in recorded(name).items()} == expected


@pytest.mark.parametrize(
    ("name", "test", "message"),
    [
        ("bats.xml", "t.bats::counts packets", "got 3"),
        ("ctest.xml", "missing::missing", "Unable to find executable: /nonexistent/prog"),
        ("ctest.xml", "skipre::skipre", "SKIP: no bpffs"),
        ("gotestsum.xml", "example.org/p/crash::TestLoad", "panic: in the background"),
        ("gotestsum.xml", "TestMain", "leak: 2 programs left"),
        ("jest-junit.xml", "suite fails::suite fails", "Error: expect(received).toBe(expected)"),
        ("libtest.xml", "unknown::net::fails", "thread 'net::fails'"),
    ],
)
def test_what_a_producer_says_of_a_test(name: str, test: str, message: str) -> None:
    assert recorded(name)[test].message.startswith(message)


@pytest.mark.parametrize(
    ("attributes", "outcome"),
    [
        ('status="run" result="skipped"', "skipped"),  # googletest up to 1.10
        ('status="notrun" result="suppressed"', "skipped"),
        ('status="disabled"', "skipped"),
        ('status="Skipped"', "skipped"),
        ('status="run" result="completed"', "passed"),
        ('status="passed"', "passed"),
        ('status="fail"', "failed"),
        ('result="failure"', "failed"),
        ('status="error"', "error"),
        ('status="fail" result="skipped"', "failed"),
        ('status="run" result="Timed Out"', "failed"),
        ('outcome="Failed"', "failed"),
        ('status="Killed"', "error"),
        ('result="not run"', "skipped"),
        ('executed="true" success="False"', "failed"),
        ('executed="false" status="notrun" success="False"', "skipped"),
        ('success="True"', "passed"),
    ],
)
def test_what_attributes_say_counts_without_an_element(attributes: str, outcome: str) -> None:
    assert case("", attributes).outcome.value == outcome


def test_an_element_that_failed_counts_whatever_the_attributes_say() -> None:
    assert case("<failure/>", 'status="run" result="skipped"').outcome.value == "failed"


def test_a_test_that_ctest_could_not_run_is_an_error() -> None:
    row = case('<skipped message="Unable to find executable"/>', 'status="notrun"')
    assert (row.outcome.value, row.message) == ("error", "Unable to find executable")


def test_all_failures_of_a_test_are_in_its_details() -> None:
    row = case('<failure message="a">first</failure><failure message="b">second</failure>')
    assert (row.message, row.details) == ("a", "first\nsecond")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (b"&#27;[31mred", "\x1b[31mred"),
        (b"&#x1B;[31mred", "\x1b[31mred"),
        (b"\x1b[31mred", "\x1b[31mred"),
        (b"<![CDATA[\x1b[31mred & blue]]>", "\x1b[31mred & blue"),
        (b"nul &#0;", "nul \0"),
        (b"nul \0", "nul \0"),
        (b"lone &#xD83D;", "lone \ufffd"),
        (b"out &#x110000;", "out \ufffd"),
        (b"out &#99999999999999999999;", "out \ufffd"),
        (b"not a character &#xFFFE;", "not a character \ufffe"),
        (b"not utf-8 \xff", "not utf-8 \ufffd"),
        (b"you & me", "you & me"),
        (b"you &nbsp; me", "you &nbsp; me"),
        (b"you &amp; me &#27;", "you & me \x1b"),
        (b"&#27;<!-- & -->", "\x1b"),
    ],
)
def test_what_xml_forbids_loses_no_test(written: bytes, meant: str) -> None:
    text = b'<testsuite><testcase name="a"/><testcase name="b"><failure>'
    found = read(text + written + b"</failure></testcase></testsuite>", "s")
    assert [(row.test, row.outcome.value) for row in found] == [("a", "passed"), ("b", "failed")]
    assert found[1].details == meant


def test_what_xml_forbids_may_stand_in_a_name() -> None:
    assert list(rows('<testsuite><testcase name="a&#7;"/></testsuite>')) == ["a\x07"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_what_xml_forbids_is_mended_in_any_encoding(encoding: str) -> None:
    head = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>'
    text = f'{head}<testsuite><testcase name="grün&#27;"/></testsuite>'
    assert [row.test for row in read(text.encode(encoding), "s")] == ["grün\x1b"]


def test_white_space_before_the_declaration_loses_no_test() -> None:
    assert list(rows('\n<?xml version="1.0"?><testsuite><testcase name="a"/></testsuite>')) == ["a"]


@pytest.mark.parametrize("rest", ["", '<testcase name="c"', "</testsuite>junk", "<b></c>"])
def test_a_broken_file_keeps_its_complete_tests_and_is_an_error(rest: str) -> None:
    text = '<testsuite><testcase name="a"><failure/></testcase><testcase name="b"/>'
    found = {name: row.outcome.value for name, row in rows(text + rest).items()}
    assert found == {"a": "failed", "b": "passed", "JUnit file": "error"}


def test_a_namespace_hides_no_test() -> None:
    assert list(rows('<testsuite xmlns="https://x/y"><testcase name="a"/></testsuite>')) == ["a"]


def test_a_failure_that_only_a_suite_counts_is_an_error() -> None:
    inner = '<testsuite name="i" failures="1" errors="0"><testcase name="t"/></testsuite>'
    found = rows(f'<testsuites failures="1">{inner}</testsuites>')
    assert {name: row.outcome.value for name, row in found.items()} == {"t": "passed", "i": "error"}
    assert found["i"].message == "it counts 1 failures, and none of its tests has failed"


@pytest.mark.parametrize("inside", ["<failure/>", "<error/>", "<flakyFailure/>"])
def test_a_failure_that_a_suite_counts_and_tells_is_no_other(inside: str) -> None:
    text = f'<testsuite errors="1"><testcase name="t">{inside}</testcase></testsuite>'
    assert list(rows(f'<testsuites failures="2">{text}</testsuites>')) == ["t"]


def test_a_very_deep_file_is_read() -> None:
    deep = 20_000
    text = "<testsuite>" * deep + '<testcase name="t"/>' + "</testsuite>" * deep
    assert list(rows(text)) == ["t"]


@pytest.mark.parametrize("text", ["<![CDATA[", "<!--", "&", "&#", "&#1", "<"])
def test_what_never_ends_is_refused_in_the_end(text: str) -> None:
    with pytest.raises(ValueError, match="not XML"):
        rows(f"<testsuite>&{text * (1 << 16)}")


def test_a_case_without_a_name_has_its_suites() -> None:
    text = (
        '<testsuites><testsuite name="NonTestSuiteFailure"><testcase name="" classname="">'
        '<failure message="SetUp failed"/></testcase></testsuite></testsuites>'
    )
    row = read(text.encode(), "s")[0]
    assert (row.test, row.outcome.value) == ("NonTestSuiteFailure", "failed")


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        *dict.fromkeys(("panicked", "exception", "segfault", "hung", "oom"), "error").items(),
        *dict.fromkeys(("inconclusive", "incomplete", "purple"), "error").items(),
        *dict.fromkeys(("unexpected", "undefined", "not ok", "KO", "xpass"), "failed").items(),
        *dict.fromkeys(("unstable", "softfail", "Test Failed", "TIMED_OUT"), "failed").items(),
        *dict.fromkeys(("untested", "NotExecuted", "todo", "excluded"), "skipped").items(),
        *dict.fromkeys(("Completed", "SUCCESS", "run", "0", "expected"), "passed").items(),
        ("xfail", "xfailed"),
    ],
)
def test_a_word_that_may_be_a_failure_never_passes(word: str, outcome: str) -> None:
    assert case("", f'status="{word}"').outcome.value == outcome


def test_a_failure_that_only_a_word_tells_says_which() -> None:
    assert case("", 'status="panicked"').message == 'status="panicked"'


def test_a_test_that_is_called_flaky_is() -> None:
    row = case("", 'status="flaky"')
    assert (row.outcome.value, row.flaky) == ("passed", True)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("0,5", 0.5), ("1,234", 1234), ("0,250", 0.25), ("1,234,567.5", 1234567.5)],
)
def test_a_comma_in_a_time_is_the_locales(time: str, seconds: float) -> None:
    assert case("", f'time="{time}"').duration == seconds


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (  # PHPUnit ends with the place
            "<failure type='E'>A::t\nFailed asserting that false is true.\n\n/x/A.php:9</failure>",
            "Failed asserting that false is true.",
        ),
        (  # Catch2 3 of SKIP("no net")
            "<skipped type='SKIP'>\nSKIPPED\nexplicitly with message:\n  no net\nat t.cpp:20\n"
            "</skipped>",
            "no net",
        ),
        (  # Playwright's message is place and title
            "<failure message='x.spec.ts:3:5 a'>  [chromium] x.spec.ts:3:5\n\n"
            "    Error: expect(received).toBe(expected)\n      at /x.spec.ts:4:5\n</failure>",
            "Error: expect(received).toBe(expected)",
        ),
        (  # cargo-nextest, Rust 1.73 and later
            "<failure message=\"thread 'a' panicked at src/lib.rs:5:9\">thread 'a' panicked at "
            "src/lib.rs:5:9:\nassertion `left == right` failed\n  left: 1\n right: 2</failure>",
            "thread 'a' panicked at src/lib.rs:5:9: assertion `left == right` failed",
        ),
        (  # gotestsum
            '<skipped message="=== RUN   U&#xA;    a_test.go:5: no&#xA;--- SKIP: U (0.00s)"/>',
            "a_test.go:5: no",
        ),
        ('<failure type="test timeout"/>', "test timeout"),
        ('<failure type="Assertion"><message>1 != 2</message></failure>', "1 != 2"),  # CppUnit
        (
            '<error message="collection failure">ImportError\nE   NameError: no x</error>',
            "NameError: no x",
        ),
        ('<failure type="E"/><system-err>it broke</system-err>', "it broke"),
        ("<failure>Error: no\n    at f (/x.js:3:13)\n    at g</failure>", "Error: no"),
    ],
)
def test_the_message_is_the_line_that_says_why(inside: str, message: str) -> None:
    assert case(inside).message == message
