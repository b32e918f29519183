"""go test's output, as recorded of Go 1.19 and as it must not confuse the reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtest.command.formats.gotest import GoTest
from vmtest.model.kernels import Outcome, TestResult

DATA = Path(__file__).parent / "data" / "results"


def read(text: str, died: str = "") -> dict[str, TestResult]:
    reader = GoTest("s")
    for line in text.splitlines():
        reader.feed(line)
    reader.end(died)
    names = [result.test for result in reader.done]
    assert len(names) == len(set(names))
    return {result.test: result for result in reader.done}


def recorded(name: str) -> dict[str, TestResult]:
    return read((DATA / name).read_text())


def outcomes(rows: dict[str, TestResult]) -> dict[str, str]:
    return {name: row.outcome.value for name, row in rows.items()}


def test_verbose_text_has_every_test_and_subtest() -> None:
    assert outcomes(recorded("gotest.txt")) == {
        "TestPasses": "passed",
        "TestFails": "failed",
        "TestSkips": "skipped",
        "TestTable": "failed",
        "TestTable/ipv4": "passed",
        "TestTable/ipv6_only": "failed",
        "TestParallel": "passed",
        "TestParallel/a": "passed",
        "TestParallel/b": "passed",
        "TestPrintsWithoutBreak": "passed",
        "TestPrintsPanic": "passed",
        "TestPanics": "passed",
        "TestExits": "passed",
        "TestGoroutine": "passed",
    }


def test_a_failure_has_its_last_line_as_message_and_all_as_details() -> None:
    row = recorded("gotest.txt")["TestFails"]
    assert row.message == "demo_test.go:14: want 2, got 1"
    assert row.details.splitlines() == [
        "    demo_test.go:13: got 1",
        "    demo_test.go:14: want 2, got 1",
    ]


def test_a_skip_has_its_reason() -> None:
    assert "no ring buffer" in recorded("gotest.txt")["TestSkips"].message


def test_without_verbose_the_lines_below_a_failure_are_its_own() -> None:
    rows = recorded("gotest-quiet.txt")
    assert outcomes(rows) == {
        "TestFails": "failed",
        "TestTable": "failed",
        "TestTable/ipv6_only": "failed",
    }
    assert rows["TestTable/ipv6_only"].message == "demo_test.go:21: no route"


def test_test2json_says_the_same_with_the_package_in_front() -> None:
    text, events = recorded("gotest.txt"), recorded("gotest.json")
    ran = {f"example.org/demo::{name}": outcome for name, outcome in outcomes(text).items()}
    del ran["example.org/demo::TestExits"], ran["example.org/demo::TestGoroutine"]
    ran["example.org/demo::TestPanics"] = "failed"
    ran["example.org/demo/broken"] = "error"
    assert outcomes(events) == ran


def test_a_panic_is_the_message_of_its_test() -> None:
    row = recorded("gotest-panic.txt")["TestPanics"]
    assert (row.outcome, row.message) == (Outcome.FAILED, "panic: boom [recovered]")
    assert "goroutine 5 [running]" in row.details


def test_a_panic_on_standard_error_is_the_message_of_its_test() -> None:
    reader = GoTest("s")
    for line in (DATA / "gotest-panic.txt").read_text().splitlines():
        reader.feed(line, error=not line.startswith(("===", "---")))
    reader.end()
    assert reader.done[-1].message == "panic: boom [recovered]"


@pytest.mark.parametrize(
    ("name", "test", "why"),
    [
        ("gotest-exit.txt", "TestExits", "the command ended while it ran"),
        ("gotest-goroutine.txt", "TestGoroutine", "panic: in a goroutine"),
    ],
)
def test_a_test_that_took_the_process_along_is_lost(name: str, test: str, why: str) -> None:
    row = recorded(name)[test]
    assert (row.outcome, row.message) == (Outcome.LOST, why)


def test_what_died_is_the_reason_of_every_test_that_ran() -> None:
    rows = read("=== RUN   TestA\n=== RUN   TestA/b\n", "the kernel panicked")
    assert {row.message for row in rows.values()} == {"the kernel panicked"}
    assert outcomes(rows) == {"TestA": "lost", "TestA/b": "lost"}


def test_the_innermost_test_is_the_running_one() -> None:
    reader = GoTest("s")
    for line in ("=== RUN   TestA", "=== RUN   TestA/b"):
        reader.feed(line)
    assert reader.running == "TestA/b"
    reader.feed("--- PASS: TestA/b (0.00s)")
    assert reader.running == "TestA"


def test_a_test_that_only_prints_an_end_of_another_ends_nothing() -> None:
    rows = read("=== RUN   TestA\nsaw --- PASS: TestB (0.00s)\n--- FAIL: TestA (0.10s)\n")
    assert outcomes(rows) == {"TestA": "failed"}
    assert rows["TestA"].duration == 0.1


def test_the_marks_of_test2json_mode_are_understood() -> None:
    assert outcomes(read("\x16=== RUN   TestA\n\x16--- PASS: TestA (0.00s)\n")) == {
        "TestA": "passed"
    }


def test_a_test_that_is_run_twice_has_two_rows() -> None:
    once = "=== RUN   TestA\n--- PASS: TestA (0.00s)\n"
    assert list(read(once + once)) == ["TestA", "TestA (2)"]


def test_a_package_that_does_not_build_is_an_error() -> None:
    assert outcomes(recorded("gotest-broken.txt")) == {"example.org/demo/broken": "error"}


def test_a_package_that_fails_without_a_failing_test_is_an_error() -> None:
    rows = read(
        '{"Action":"output","Package":"p","Output":"TestMain: no bpffs\\n"}\n'
        '{"Action":"output","Package":"p","Output":"FAIL\\n"}\n'
        '{"Action":"fail","Package":"p","Elapsed":0.1}\n'
    )
    assert (rows["p"].outcome, rows["p"].message) == (Outcome.ERROR, "TestMain: no bpffs")


@pytest.mark.parametrize(
    "line",
    [
        '{"Action":"pass","Test":"TestA","Elapsed":1e999}',
        '{"Action":"pass","Test":"TestA","Elapsed":NaN}',
        '{"Action":"pass","Test":"TestA","Elapsed":"long"}',
    ],
)
def test_an_elapsed_time_that_is_none_counts_as_nothing(line: str) -> None:
    assert read(line)["TestA"].duration == 0.0


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"Action":1}',
        '{"Action":"pass"',
        "[" * 5000,
        "{" + '"a":{' * 5000,
        "=== RUN",
        "--- PASS:",
    ],
)
def test_lines_that_are_nearly_something_are_nothing(line: str) -> None:
    assert read(line) == {}
