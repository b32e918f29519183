"""TAP, as recorded of Perl's Test::More, and the specification's cases one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtest.command.formats.tap import Tap
from vmtest.model.kernels import Outcome, TestResult

DATA = Path(__file__).parent / "data" / "results"


def read(text: str, died: str = "") -> dict[str, TestResult]:
    reader = Tap("s")
    for line in text.splitlines():
        reader.feed(line)
    reader.end(died)
    return {result.test: result for result in reader.done}


def outcomes(text: str, died: str = "") -> dict[str, str]:
    return {name: row.outcome.value for name, row in read(text, died).items()}


def test_what_test_more_prints() -> None:
    assert outcomes((DATA / "test-more.tap").read_text()) == {
        "opens": "passed",
        "counts": "failed",
        "test 3": "skipped",
        "later": "xfailed",
        "already": "passed",
        "inner/a": "passed",
        "inner/b": "failed",
        "inner": "failed",
        "bare/test 1": "passed",
        "bare/c": "passed",
        "bare": "passed",
    }


def test_diagnostics_on_standard_error_explain_the_failure_before_them() -> None:
    reader = Tap("s")
    for line in ("1..1", "not ok 1 - counts"):
        reader.feed(line)
    for line in ("#   Failed test 'counts'", "#          got: '1'", "#     expected: '2'"):
        reader.feed(line, error=True)
    reader.end()
    (row,) = reader.done
    assert row.message == "Failed test 'counts' got: '1' expected: '2'"
    assert "got: '1'" in row.details


def test_a_yaml_block_gives_message_and_duration() -> None:
    text = (
        "TAP version 14\n1..2\nnot ok 1 - first\n  ---\n  message: 'it is 3'\n"
        "  duration_ms: 12.5\n  at:\n    ok 2: no test\n\n  ...\nok 2 - second\n"
    )
    rows = read(text)
    assert list(rows) == ["first", "second"]
    assert rows["first"].message == "it is 3"
    assert rows["first"].duration == 0.0125


def test_a_yaml_block_that_never_ends_hides_no_test() -> None:
    text = "1..2\nnot ok 1 - a\n  ---\n  message: x\nok 2 - b\n"
    assert outcomes(text) == {"a": "failed", "b": "passed"}


@pytest.mark.parametrize(
    ("line", "name", "outcome", "message"),
    [
        ("ok 1 - x", "x", "passed", ""),
        ("ok 1 x", "x", "passed", ""),
        ("ok", "test 1", "passed", ""),
        ("not ok", "test 1", "failed", ""),
        ("ok 1 - x # SKIP no bpffs", "x", "skipped", "no bpffs"),
        ("ok 1 - x # Skipped: no bpffs", "x", "skipped", "no bpffs"),
        ("not ok 1 - x # skip", "x", "skipped", ""),
        ("ok 1 # skip no name", "test 1", "skipped", "no name"),
        ("ok 1 - #SkIp at once", "test 1", "skipped", "at once"),
        ("not ok 1 - x # TODO later", "x", "xfailed", "later"),
        ("ok 1 - x # TODO later", "x", "passed", "passed, though TODO: later"),
        ("ok 1 - x \\# SKIP", "x # SKIP", "passed", ""),
        ("ok 1 - x \\\\# todo hash \\# sign", "x \\", "passed", "passed, though TODO: hash # sign"),
        ("ok 1 - x # y # todo", "x # y # todo", "passed", ""),
        ("ok 1 - see a.html#skip is a link", "see a.html#skip is a link", "passed", ""),
        ("not ok 1 - x # exit=1", "x", "failed", "exit=1"),
        ("not ok 1 x # TIMEOUT 45 seconds", "x", "failed", "TIMEOUT 45 seconds"),
    ],
)
def test_a_test_point(line: str, name: str, outcome: str, message: str) -> None:
    ((found, row),) = read(f"1..1\n{line}\n").items()
    assert (found, row.outcome.value, row.message) == (name, outcome, message)


def test_nodes_time_is_no_part_of_a_name() -> None:
    assert read("1..1\nok 1 - x # time=250ms\n")["x"].duration == 0.25


@pytest.mark.parametrize(
    "line", ["okay", "nok 1", "ok-1", "  ok 1 - indented by two", "not okay", "Ok 1", "ok1 - x"]
)
def test_what_is_no_test_point(line: str) -> None:
    assert outcomes(f"{line}\n") == {}


def test_planned_tests_that_did_not_come_are_lost() -> None:
    assert outcomes("1..3\nok 2 - b\n") == {"b": "passed", "test 1": "lost", "test 3": "lost"}


def test_a_plan_at_the_end_counts_as_well() -> None:
    assert outcomes("ok 1 - a\n1..2\n") == {"a": "passed", "test 2": "lost"}


def test_when_the_command_died_the_next_test_ran_and_the_others_did_not() -> None:
    rows = read("1..4\nok 1 - a\n", "the kernel panicked")
    assert [(n, r.outcome.value, r.message) for n, r in rows.items()] == [
        ("a", "passed", ""),
        ("test 2", "lost", "the kernel panicked"),
        ("test 3", "not run", ""),
        ("test 4", "not run", ""),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1..1\nok 1 - a\nok 2 - b\n", "the plan was 1..1, and there were tests 2"),
        ("ok 1 - a\n", "there is no plan (1..N)"),
        ("1..1\nok 1 - a\n1..2\n", "a second plan: 1..2"),
        ("1..0\nok 1 - a\n", "the plan was 1..0, and there were tests 1"),
    ],
)
def test_a_plan_that_is_not_kept_is_an_error(text: str, complaint: str) -> None:
    row = read(text)["plan"]
    assert (row.outcome, row.message) == (Outcome.ERROR, complaint)


def test_a_command_that_died_owes_no_plan() -> None:
    assert outcomes("ok 1 - a\n", "killed") == {"a": "passed"}


def test_a_plan_of_none_is_a_skip_with_its_reason() -> None:
    row = read("1..0 # SKIP no BTF\n")["s"]
    assert (row.outcome, row.message) == (Outcome.SKIPPED, "no BTF")


def test_a_bail_out_is_an_error_and_what_follows_was_not_run() -> None:
    text = "1..3\nok 1 - a\nBail out! no \\# bpffs\nok 2 - b\n"
    rows = read(text)
    assert outcomes(text) == {
        "a": "passed",
        "test 2": "not run",
        "test 3": "not run",
        "Bail out!": "error",
    }
    assert rows["Bail out!"].message == "no # bpffs"


def test_a_bail_out_in_a_subtest_is_one_of_all() -> None:
    text = "1..2\n# Subtest: in\n    1..2\n    ok 1 - a\n    Bail out! enough\nok 1 - in\n"
    assert outcomes(text) == {
        "in/a": "passed",
        "in/test 2": "lost",
        "in": "lost",
        "test 2": "not run",
        "Bail out!": "error",
    }


def test_subtests_nest() -> None:
    text = (
        "# Subtest: one\n    # Subtest: two\n        ok 1 - deep\n        1..1\n"
        "    ok 1 - two\n    1..1\nok 1 - one\n1..1\n"
    )
    assert outcomes(text) == {"one/two/deep": "passed", "one/two": "passed", "one": "passed"}


def test_a_subtest_that_begins_two_levels_down_is_read() -> None:
    text = "        ok 1 - deep\n        1..1\n    ok 1 - mid\n    1..1\nok 1 - top\n1..1\n"
    assert outcomes(text) == {"top/mid/deep": "passed", "top/mid": "passed", "top": "passed"}


def test_a_subtest_announced_within_its_own_indentation_has_its_name() -> None:
    """Test::More before 1.3."""
    text = "1..1\n    # Subtest: in\n    ok 1 - a\n"
    assert outcomes(text, "killed") == {"in/a": "passed", "in": "lost"}


def test_failures_below_a_todo_are_known() -> None:
    text = "1..1\n# Subtest: in\n    not ok 1 - a\n    1..1\nnot ok 1 - in # TODO later\n"
    assert outcomes(text) == {"in/a": "xfailed", "in": "xfailed"}


def test_a_subtest_misses_its_own_tests() -> None:
    text = "1..1\n# Subtest: in\n    1..2\n    ok 1 - a\nok 1 - in\n"
    assert outcomes(text) == {"in/a": "passed", "in/test 2": "lost", "in": "passed"}


def test_the_subtest_that_ran_is_lost_and_counted_once() -> None:
    text = "1..3\nok 1 - a\n# Subtest: in\n    1..3\n    ok 1 - b\n"
    assert outcomes(text, "the kernel panicked") == {
        "a": "passed",
        "in/b": "passed",
        "in/test 2": "lost",
        "in/test 3": "not run",
        "in": "lost",
        "test 3": "not run",
    }


def test_an_announced_subtest_without_a_line_is_lost_too() -> None:
    assert outcomes("1..1\n# Subtest: in\n", "the kernel panicked") == {"in": "lost"}


def test_the_running_subtest_has_a_name_and_else_the_next_number() -> None:
    reader = Tap("s")
    for line in ("1..2", "ok 1 - a"):
        reader.feed(line)
    assert (reader.running, reader.expected) == ("test 2", 2)
    reader.feed("# Subtest: in")
    assert reader.running == "in"


def test_output_before_a_failure_is_among_its_details() -> None:
    assert "errno 22" in read("1..1\nload: errno 22\nnot ok 1 - loads\n")["loads"].details


@pytest.mark.parametrize("line", ["1..99999999999999999999", "ok " + "9" * 5000, "#" * 100_000])
def test_absurd_numbers_are_no_protocol(line: str) -> None:
    assert not [row for row in read(line).values() if row.outcome is Outcome.LOST]


def test_a_plan_of_a_hundred_million_is_no_hundred_million_rows() -> None:
    assert len(read("1..100000000\nok 1 - a\n")) < 1100
