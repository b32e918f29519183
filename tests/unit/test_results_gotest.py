"""go test's output, as recorded of Go 1.19 and as it must not confuse the reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmtest.command.formats.gotest import GoTest
from vmtest.model.results import Outcome, TestResult

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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("go-crash.txt", {"TestFirst": "passed", "TestLoad": "lost"}),
        ("go-crash.json", {"crash::TestFirst": "passed", "crash::TestLoad": "lost"}),
        ("go-mainfail.txt", {"TestA": "passed", "mainfail": "error"}),
        ("go-mainfail.json", {"mainfail::TestA": "passed", "mainfail": "error"}),
        (
            "go-bench.txt",
            {
                "TestA": "passed",
                "BenchmarkX": "passed",
                "BenchmarkLogs": "passed",
                "BenchmarkFails": "failed",
                "BenchmarkSkips": "skipped",
            },
        ),
        (
            "go-bench.json",
            {
                "bench::TestA": "passed",
                "bench::BenchmarkX": "passed",
                "bench::BenchmarkLogs": "passed",
                "bench::BenchmarkFails": "failed",
                "bench::BenchmarkSkips": "skipped",
            },
        ),
        (
            "go-sub.json",  # of TestMsg and all below it, go 1.19 told no end in an event
            {
                "sub::TestMsg": "passed",
                "sub::TestMsg/skip": "skipped",
                "sub::TestMsg/http": "passed",
                "sub::TestMsg/tcp": "passed",
                "sub::FuzzX": "failed",
                "sub::FuzzX/seed#0": "passed",
                "sub::FuzzX/seed#1": "failed",
            },
        ),
    ],
)
def test_what_go_1_19_printed(name: str, expected: dict[str, str]) -> None:
    found = outcomes(recorded(name))
    assert {test.removeprefix("example.org/p/"): o for test, o in found.items()} == expected


def event(action: str, test: str = "", output: str = "", **more: object) -> str:
    fields = {"Action": action, "Package": "p", **more}
    if test:
        fields["Test"] = test
    if output:
        fields["Output"] = output
    return json.dumps(fields) + "\n"


TRACE = ["panic: in the background\n", "\n", "goroutine 7 [running]:\n", "p.TestLoad.func1()\n"]


def test_a_panic_in_a_test_that_go_calls_passed_is_told() -> None:
    """Its process ended under it: golang/go#38382."""
    lines = "".join(event("output", "TestLoad", line) for line in TRACE)
    rows = read(
        event("run", "TestLoad")
        + lines
        + event("pass", "TestLoad")
        + event("output", output="FAIL\tp\t0.003s\n")
        + event("fail")
    )
    assert outcomes(rows) == {"p::TestLoad": "failed", "p": "error"}
    assert {row.message for row in rows.values()} == {"panic: in the background"}


def test_a_panic_behind_the_end_of_its_test_is_the_packages() -> None:
    lines = "".join(event("output", "TestLoad", line) for line in TRACE)
    rows = read(
        event("run", "TestLoad")
        + event("output", "TestLoad", "--- PASS: TestLoad (0.00s)\n")
        + event("pass", "TestLoad")
        + lines
        + event("fail")
    )
    assert outcomes(rows) == {"p::TestLoad": "passed", "p": "error"}
    assert rows["p"].message == "panic: in the background"


def test_a_panic_is_told_beside_another_failure() -> None:
    lines = "".join(event("output", output=line) for line in TRACE)
    failed = event("run", "TestA") + event("fail", "TestA")
    assert read(failed + lines + event("fail"))["p"].message == "panic: in the background"


def test_a_trace_that_a_test_prints_in_a_package_that_passes_is_output() -> None:
    lines = "".join(event("output", "TestLoad", line) for line in TRACE)
    text = event("run", "TestLoad") + lines + event("pass", "TestLoad") + event("pass")
    assert outcomes(read(text)) == {"p::TestLoad": "passed"}


def test_a_panic_behind_all_tests_of_a_binary_is_an_error() -> None:
    rows = read("=== RUN   TestA\n--- PASS: TestA (0.00s)\n" + "".join(TRACE))
    assert outcomes(rows) == {"TestA": "passed", "panic": "error"}
    assert rows["panic"].message == "panic: in the background"


@pytest.mark.parametrize(
    ("end", "expected"),
    [("pass", "passed"), ("skip", "passed"), ("fail", "lost")],
)
def test_a_subtest_without_an_end_has_its_parents(end: str, expected: str) -> None:
    """A parent that passes had no subtest that failed; one that fails may have had."""
    text = event("run", "TestA") + event("run", "TestA/b") + event(end, "TestA") + event("pass")
    assert outcomes(read(text))["p::TestA/b"] == expected


@pytest.mark.parametrize("word", ["PASS", "FAIL", "SKIP"])
@pytest.mark.parametrize("where", ["TestA", "TestA/c"])
def test_an_end_in_any_tests_output_counts_where_no_event_comes(word: str, where: str) -> None:
    text = event("run", "TestA") + event("run", "TestA/b") + event("run", "TestA/c")
    text += event("output", where, f"no break     --- {word}: TestA/b (0.04s)\n")
    rows = read(text + event("pass", "TestA/c") + event("fail", "TestA") + event("fail"))
    assert outcomes(rows)["p::TestA/b"] == {"PASS": "passed", "FAIL": "failed"}.get(word, "skipped")
    assert rows["p::TestA/b"].duration == 0.04


def test_an_event_has_the_last_word_on_a_test() -> None:
    text = event("run", "TestA") + event("output", "TestA", "saw --- PASS: TestA (0.00s)\n")
    assert outcomes(read(text + event("fail", "TestA") + event("fail"))) == {"p::TestA": "failed"}


def test_a_subtest_of_an_earlier_round_does_not_pass_for_its_parent() -> None:
    """As with -count=2, when the second round died."""
    first = event("run", "TestA") + event("run", "TestA/b")
    text = first + event("pass", "TestA/b") + event("pass", "TestA") + first
    assert outcomes(read(text)) == {
        "p::TestA/b": "passed",
        "p::TestA": "passed",
        "p::TestA (2)": "lost",
        "p::TestA/b (2)": "lost",
    }


def test_a_test_that_begins_again_without_an_end_is_lost() -> None:
    text = event("run", "TestA") + event("run", "TestA") + event("pass", "TestA") + event("pass")
    assert outcomes(read(text)) == {"p::TestA": "lost", "p::TestA (2)": "passed"}


def test_output_that_comes_in_pieces_is_a_line() -> None:
    text = event("run", "TestA") + event("output", "TestA", "errno ")
    text += event("output", "TestA", "22\n") + event("fail", "TestA") + event("fail")
    assert read(text)["p::TestA"].message == "errno 22"


def test_a_package_has_what_it_said_and_not_that_it_failed() -> None:
    said = ["PASS\n", "leak: 2 programs\n", "exit status 1\n", "FAIL\tp\t0.003s\n"]
    text = "".join(event("output", output=line) for line in said) + event("fail")
    assert read(text)["p"].message == "leak: 2 programs"


def test_a_build_error_is_what_the_compiler_said() -> None:
    """As events of go 1.24."""
    rows = read(
        '{"ImportPath":"p","Action":"build-output","Output":"# p\\n"}\n'
        '{"ImportPath":"p","Action":"build-output","Output":"./a.go:3:5: undefined: x\\n"}\n'
        '{"ImportPath":"p","Action":"build-fail"}\n'
        + event("output", output="FAIL\tp [build failed]\n")
        + event("fail", FailedBuild="p")
    )
    assert [(row.test, row.message) for row in rows.values()] == [("p", "./a.go:3:5: undefined: x")]


def test_a_package_that_fails_in_text_without_a_failing_test_is_an_error() -> None:
    first = "=== RUN   TestA\n--- PASS: TestA (0.00s)\nPASS\nleak\nFAIL\tp/a\t0.003s\n"
    rows = read(first + "=== RUN   TestB\n--- FAIL: TestB (0.00s)\nFAIL\nFAIL\tp/b\t0.003s\n")
    assert outcomes(rows) == {"TestA": "passed", "p/a": "error", "TestB": "failed"}
    assert rows["p/a"].message == "leak"


@pytest.mark.parametrize("name", ["go-crash.txt", "go-crash.json"])
def test_the_panic_of_a_goroutine_is_why_a_test_did_not_end(name: str) -> None:
    (message,) = (row.message for row in recorded(name).values() if row.message)
    assert message == "panic: in the background"


@pytest.mark.parametrize("text", [" " * (1 << 20), "[" * (1 << 20), "--- " * (1 << 18)])
def test_a_line_of_a_mebibyte_is_read(text: str) -> None:
    long = f"panic: x\ngoroutine 1 {text}x\n{text}--- PASS: TestA (0.00s)\n"
    assert outcomes(read(f"=== RUN   TestA\n{long}")) == {"TestA": "passed"}


def test_a_panic_without_a_trace_is_why_a_package_failed() -> None:
    """As with GOTRACEBACK=none."""
    text = (
        event("run", "TestA") + event("output", "TestA", "panic: boom\n") + event("pass", "TestA")
    )
    assert read(text + event("fail"))["p"].message == "panic: boom"


def test_a_package_that_fails_in_silence_says_so() -> None:
    assert read(event("fail"))["p"].message == "it failed, and no test of it did"


def test_an_example_says_what_it_printed_and_should_have_printed() -> None:
    end = "--- FAIL: ExampleFoo (0.00s)\n"
    told = "got:\n1\nwant:\n2\n"
    text = f"=== RUN   ExampleFoo\n{end}{told}=== RUN   TestB\n--- PASS: TestB (0.00s)\nFAIL\n"
    events = [{"Action": "run", "Package": "p", "Test": "ExampleFoo"}]
    for line in (end + told).splitlines(keepends=True):
        events.append({"Action": "output", "Package": "p", "Test": "ExampleFoo", "Output": line})
    events.append({"Action": "fail", "Package": "p", "Test": "ExampleFoo"})
    for rows in (read(text), read("\n".join(map(json.dumps, events)))):
        failed = next(row for row in rows.values() if row.outcome is Outcome.FAILED)
        assert failed.message == "got '1', want '2'"


@pytest.mark.parametrize("mark", ["=== ATTR  TestA key value", "=== ARTIFACTS TestA /tmp/a"])
def test_what_go_1_25_says_of_a_test_is_not_why_it_failed(mark: str) -> None:
    rows = read(f"=== RUN   TestA\n    a_test.go:3: no\n{mark}\n--- FAIL: TestA (0.00s)")
    assert rows["TestA"].message == "a_test.go:3: no"


def test_an_input_of_a_fuzz_test_is_no_second_test() -> None:
    rows = read(
        "=== RUN   FuzzA\nfuzz: elapsed: 0s, minimizing\n--- FAIL: FuzzA (0.05s)\n"
        "    --- FAIL: FuzzA (0.00s)\n        f_test.go:9: bad\n    \n"
        "    Failing input written to testdata/fuzz/FuzzA/abc\n    To re-run:\n"
        "    go test -run=FuzzA/abc\nFAIL"
    )
    assert {name: row.message for name, row in rows.items()} == {"FuzzA": "f_test.go:9: bad"}


@pytest.mark.parametrize(
    "result", ["12.00 widgets/op", "NaN x", "+Inf ratio", "90.2 ns/op\t3 B/op", "1.5e+06 x"]
)
def test_a_benchmark_of_any_metric_has_a_row(result: str) -> None:
    assert outcomes(read(f"BenchmarkA-2   \t       1\t{result}\nPASS")) == {"BenchmarkA": "passed"}


def test_a_benchmark_without_any_metric_has_a_row() -> None:
    assert outcomes(read("BenchmarkA-2   \t    1000\nPASS")) == {"BenchmarkA": "passed"}


def test_a_benchmark_that_fails_has_what_it_said_after_its_name() -> None:
    row = read("BenchmarkA\n    a_test.go:3: no\n--- FAIL: BenchmarkA\nFAIL")["BenchmarkA"]
    assert (row.message, row.details) == ("a_test.go:3: no", "    a_test.go:3: no")


@pytest.mark.parametrize("end", ["signal: killed", "exit status 3"])
def test_a_test_in_which_the_process_ended_has_how(end: str) -> None:
    rows = read(f"=== RUN   TestA\n{end}\nFAIL\tx\t0.5s")
    assert rows["TestA"].message == f"the test binary ended while it ran: {end}"


def test_the_compilers_words_stand_beside_the_events_before_go_1_24() -> None:
    rows = read(
        "\n".join(
            [
                "# other [other.test]",
                "./o_test.go:1:1: not this",
                "# p [p.test]",
                "./p_test.go:5:2: undefined: x",
                event("start"),
                event("output", output="FAIL\tp [build failed]\n"),
                event("fail"),
            ]
        )
    )
    assert rows["p"].message == "./p_test.go:5:2: undefined: x"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ("", "Not equal: expected: 1 actual : 2"),
        ("        \tMessages:   \tlook here\n", "Not equal: expected: 1 actual : 2 (look here)"),
    ],
)
def test_an_assertion_of_testify_says_what_differs(messages: str, expected: str) -> None:
    rows = read(
        "=== RUN   TestA\n    a_test.go:9: \n        \tError Trace:\t/x/a_test.go:9\n"
        "        \tError:      \tNot equal: \n        \t            \texpected: 1\n"
        "        \t            \tactual  : 2\n        \t            \t\n"
        "        \t            \tDiff:\n        \t            \t--- Expected\n"
        f"        \tTest:       \tTestA\n{messages}--- FAIL: TestA (0.00s)"
    )
    assert rows["TestA"].message == expected


@pytest.mark.parametrize("ends", [True, False])
def test_a_fuzz_test_that_looks_for_inputs_has_a_row(ends: bool) -> None:
    """Its begin has a mark of its own before Go 1.20, and no event."""
    text = "=== FUZZ  FuzzA\nfuzz: elapsed: 0s, gathering baseline coverage: 0/1 completed\n"
    end = "--- FAIL: FuzzA (0.05s)\n    --- FAIL: FuzzA (0.00s)\n        f_test.go:9: bad\n"
    assert outcomes(read(text + (end if ends else ""))) == {"FuzzA": "failed" if ends else "lost"}
    events = "".join(event("output", output=f"{line}\n") for line in text.splitlines())
    assert outcomes(read(events)) == {"p::FuzzA": "lost"}


def test_a_benchmarks_result_may_stand_in_the_output_of_its_package() -> None:
    """Go 1.19, whose events name no test there, and cut the line."""
    lines = ("BenchmarkA\n", "BenchmarkA-2   \t", "      10\t        76.20 ns/op\n")
    rows = read("".join(event("output", output=line) for line in lines) + event("pass"))
    assert outcomes(rows) == {"p::BenchmarkA": "passed"}


STARTS = "    a_test.go:3: starts\n"
DIFFERENCE = (
    "    a_test.go:4: mismatch (-want +got):\n          S{\n"
    "        -   A: 1,\n        +   A: 2,\n          }\n        \n"
)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (STARTS + DIFFERENCE, "a_test.go:4: mismatch (-want +got): S{ - A: 1, + A: 2, }"),
        (STARTS + "no such file\n", "no such file"),
        (STARTS, "a_test.go:3: starts"),
        (
            "    suite.go:87: test panicked: boom\n        goroutine 8 [running]:\n"
            "        main.f()\n",
            "suite.go:87: test panicked: boom",
        ),
    ],
)
def test_the_last_thing_that_a_test_said_is_its_message_whole(said: str, message: str) -> None:
    rows = read(f"=== RUN   TestA\n{said}--- FAIL: TestA (0.00s)")
    assert rows["TestA"].message == message


def test_what_may_be_the_compilers_is_kept_up_to_a_bound() -> None:
    reader = GoTest("s")
    for number in range(5000):
        event = {"Action": "build-output", "ImportPath": "p", "Output": f"p.go:{number}: no\n"}
        reader.feed(json.dumps(event))
    end = {"Action": "fail", "Package": "p", "FailedBuild": "p"}
    reader.feed(json.dumps(end))
    (row,) = reader.done
    assert row.message == "p.go:0: no"
    assert row.details.endswith("\n[more came than these 1000 lines]")
    assert len(row.details.splitlines()) == 1001


def test_the_text_of_verbose_tests_does_not_fill_the_memory() -> None:
    reader = GoTest("s")
    for number in range(5000):
        reader.feed(f"line {number}")
    assert len(reader._building) == 1001
