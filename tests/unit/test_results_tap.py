"""TAP, as recorded of Perl's Test::More, and the specification's cases one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtest.command.formats.tap import Tap
from vmtest.model.results import Outcome, TestResult

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
        ("not ok", "test 1", "failed", "not ok"),
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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "bats-timing.tap",
            {
                "loads the program": "passed",
                "attaches it": "skipped",
                "counts packets": "failed",
                "prints colour": "failed",
                "skips silently": "skipped",
            },
        ),
        (
            "bats-tap13.tap",
            {
                "loads the program": "passed",
                "attaches it": "skipped",
                "counts packets": "failed",
                "prints colour": "failed",
                "skips silently": "skipped",
            },
        ),
        (
            "node-test.tap",
            {
                "loads": "passed",
                "outer/inner one": "passed",
                "outer/inner two": "failed",
                "outer": "failed",
                "skipped": "skipped",
                "later": "xfailed",
                "later passes": "passed",
                "suite/a # b": "passed",
                "suite/ends {": "passed",
                "suite": "passed",
            },
        ),
        (
            "node-tap.tap",
            {
                "plain/a": "passed",
                "plain": "passed",
                "grouped/inner one": "passed",
                "grouped/inner two": "failed",
                "grouped/deep/x": "passed",
                "grouped/deep": "passed",
                "grouped": "failed",
                "sk": "skipped",
                "td": "passed",
                "has brace {": "passed",
            },
        ),
        (
            "vitest.tap",
            {
                "v/a.test.mjs/suite/adds": "passed",
                "v/a.test.mjs/suite/fails": "failed",
                "v/a.test.mjs/suite/skipped": "skipped",
                "v/a.test.mjs/suite/later": "passed",
                "v/a.test.mjs/suite": "failed",
                "v/a.test.mjs/plain": "passed",
                "v/a.test.mjs": "failed",
                "v/b.test.mjs/other": "passed",
                "v/b.test.mjs": "passed",
            },
        ),
        (
            "tape.tap",
            {
                "opens": "passed",
                "should be equal": "failed",
                "second": "passed",
                "not yet": "xfailed",
                "no bpffs": "skipped",
                "deep": "passed",
            },
        ),
        (
            "mocha.tap",
            {
                "suite adds": "passed",
                "suite fails": "failed",
                "suite skipped": "skipped",
                "suite pending": "skipped",
            },
        ),
        ("cmocka.tap", {"loads": "passed", "fails": "failed", "test 3": "skipped"}),
        (
            "kselftest-runner.tap",
            {
                "selftests: net: harness": "failed",
                "selftests: net: plain": "failed",
                "selftests: net: skip.sh": "skipped",
                "selftests: net: ok.sh": "passed",
                "selftests: bpf: ok.sh": "passed",
            },
        ),
        (
            "kselftest-harness.tap",
            {
                "global.loads": "passed",
                "global.counts": "failed",
                "global.skips": "skipped",
                "maps.full": "failed",
                "maps.crashes": "failed",
            },
        ),
        (
            "prove-verbose.txt",
            {
                "t/a.t/loads": "passed",
                "t/a.t/attaches": "passed",
                "t/a.t": "passed",
                "t/b.t/loads": "passed",
                "t/b.t/counts": "failed",
                "t/b.t": "failed",
                "t/c.t": "skipped",
                "t/d.t/opens": "passed",
                "t/d.t/inner/x": "passed",
                "t/d.t/inner/y": "passed",
                "t/d.t/inner": "passed",
                "t/d.t": "passed",
                "t/exits.t/one": "passed",
                "t/exits.t": "failed",
                "t/extra.t/a": "passed",
                "t/extra.t/b": "passed",
                "t/extra.t/plan": "error",
                "t/extra.t": "failed",
                "t/missing.t/one": "passed",
                "t/missing.t/two": "passed",
                "t/missing.t/test 3": "lost",
                "t/missing.t": "failed",
                "t/none.t": "failed",
                "t/plain.t/test 1": "passed",
                "t/plain.t/test 2": "passed",
                "t/plain.t": "passed",
                "t/sig.t/a": "passed",
                "t/sig.t/test 2": "lost",
                "t/sig.t": "failed",
                "t/todo.t/not yet": "xfailed",
                "t/todo.t/already": "passed",
                "t/todo.t": "passed",
            },
        ),
        (
            "prove.txt",
            {
                "t/a.t": "passed",
                "t/b.t": "failed",
                "t/c.t": "skipped",
                "t/d.t": "passed",
                "t/exits.t": "failed",
                "t/extra.t": "failed",
                "t/missing.t": "failed",
                "t/none.t": "failed",
                "t/plain.t": "passed",
                "t/sig.t": "failed",
                "t/todo.t": "passed",
            },
        ),
        (
            "kselftest.tap",
            {
                "alpha": "failed",
                "beta": "failed",
                "test 3": "xfailed",
                "test 4": "error",
                "test 5": "skipped",
            },
        ),
    ],
)
def test_what_a_producer_printed(name: str, expected: dict[str, str]) -> None:
    assert outcomes((DATA / name).read_text()) == expected


@pytest.mark.parametrize(
    ("name", "test", "message"),
    [
        ("bats-tap13.tap", "prints colour", "(in test file bats/t.bats, line 4) "),
        ("node-test.tap", "outer/inner two", "1 == 2"),
        ("node-tap.tap", "grouped/inner two", "--- expected +++ actual @@ -1,1 +1,1 @@ -2 +1"),
        ("vitest.tap", "v/a.test.mjs/suite/fails", "expected 1 to be 2 // Object.is equality"),
        ("tape.tap", "should be equal", "expected 2, actual 1"),
        ("mocha.tap", "suite fails", "no"),
        ("cmocka.tap", "fails", "0x1 != 0x2 cm/t.c:6: error: Failure!"),
        ("kselftest.tap", "alpha", "map has 3 entries"),
        ("kselftest.tap", "beta", "cannot attach"),
        ("kselftest-harness.tap", "maps.crashes", "crashes: Test terminated unexpectedly"),
        ("kselftest-runner.tap", "selftests: net: plain", "exit=1: not ok 1 alpha not ok 2 beta"),
        ("prove-verbose.txt", "t/c.t", "no bpffs"),
        ("prove-verbose.txt", "t/exits.t", "Dubious, test returned 3 (wstat 768, 0x300) All 1 sub"),
        ("prove-verbose.txt", "t/extra.t", "prove failed the file: All 1 subtests passed"),
        ("prove.txt", "t/none.t", "Dubious, test returned 2 (wstat 512, 0x200) No subtests run"),
    ],
)
def test_what_a_producer_says_of_a_failure(name: str, test: str, message: str) -> None:
    assert read((DATA / name).read_text())[test].message.startswith(message)


KTAP_NESTED = (
    "KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n    KTAP version 1\n    1..1\n"
    "    ok 1 opens\n  ok 1 files\n    KTAP version 1\n    1..2\n    ok 1 reads\n"
    "    not ok 2 writes\n  not ok 2 devices\nnot ok 1 everything\n"
)
KTAP_NESTED_OUTCOMES = {
    "everything/files/opens": "passed",
    "everything/files": "passed",
    "everything/devices/reads": "passed",
    "everything/devices/writes": "failed",
    "everything/devices": "failed",
    "everything": "failed",
}


@pytest.mark.parametrize("level", ["  ", "    ", "\t", " ", "   "])
def test_ktap_nests_by_any_indentation(level: str) -> None:
    """Two spaces in its text, four in KUnit, a tab in KUnit of 5.10."""
    assert outcomes(KTAP_NESTED.replace("  ", level)) == KTAP_NESTED_OUTCOMES


def test_ktap_subtests_without_a_version_line_are_read() -> None:
    text = "\n".join(
        line for line in KTAP_NESTED.splitlines() if not line.startswith("  KTAP version")
    )
    assert outcomes(text.replace("\n    KTAP version 1", "")) == KTAP_NESTED_OUTCOMES


def test_ktap_in_the_kernels_log_is_read() -> None:
    stamped = "".join(f"[   12.060000][    T1] {line}\n" for line in KTAP_NESTED.splitlines())
    log = "[   12.000000][    T1] random: crng init done\n" + stamped
    assert outcomes(log) == KTAP_NESTED_OUTCOMES


def test_ktap_of_2_names_its_levels_by_metadata() -> None:
    text = (
        "KTAP version 2\n#:ktap_test: main\n1..1\n    KTAP version 2\n    #:ktap_test: files\n"
        "    1..2\n    #:ktap_speed: slow\n    not ok 1 opens\n"
    )
    rows = read(text, "the kernel panicked")
    assert {name: row.outcome.value for name, row in rows.items()} == {
        "files/opens": "failed",
        "files/test 2": "lost",
        "files": "lost",
    }
    assert rows["files/opens"].message == "not ok"


def test_ktap_owes_no_plan() -> None:
    assert outcomes("KTAP version 1\nok 1 a\n") == {"a": "passed"}


def test_diagnostics_of_ktap_belong_to_the_test_behind_them() -> None:
    rows = read(
        "KTAP version 1\n1..3\n# alpha: map has 3 entries\nnot ok 1 alpha\n"
        "# beta: cannot attach\nnot ok 2 beta\n# gamma: fine\nok 3 gamma\n"
    )
    assert [row.message for row in rows.values()] == ["map has 3 entries", "cannot attach", ""]
    assert "cannot attach" not in rows["alpha"].details


def test_what_kunit_expected_is_in_the_message() -> None:
    rows = read(
        "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: ex\n    # module: ex\n    1..2\n"
        "    # a: EXPECTATION FAILED at lib/ex.c:29\n    Expected 1 == 2, but\n"
        "        1 == 1 (0x1)\n    not ok 1 a\n    ok 2 b\n"
        "# ex: pass:1 fail:1 skip:0 total:2\n# Totals: pass:1 fail:1 skip:0 total:2\nnot ok 1 ex\n"
    )
    assert rows["ex/a"].message == (
        "EXPECTATION FAILED at lib/ex.c:29 Expected 1 == 2, but 1 == 1 (0x1)"
    )
    assert rows["ex"].message == "a test below it failed"


def test_diagnostics_of_a_kselftest_program_belong_to_the_test_behind_them() -> None:
    """It says TAP version 13 and writes as KTAP does."""
    rows = read(
        "TAP version 13\n1..2\n# Starting 2 tests from 1 test cases.\n"
        "#  RUN           global.x ...\n# t.c:5:x:Expected 1 (1) == 2 (2)\n"
        "# x: Test terminated by assertion\n#          FAIL  global.x\nnot ok 1 global.x\n"
        "#  RUN           global.y ...\n# t.c:9:y:no bpffs\nnot ok 2 global.y\n"
    )
    assert rows["global.x"].message == (
        "t.c:5:x:Expected 1 (1) == 2 (2) x: Test terminated by assertion"
    )
    assert rows["global.y"].message == "t.c:9:y:no bpffs"


def test_a_diagnostic_that_names_the_next_test_belongs_to_it() -> None:
    rows = read("TAP version 13\n1..2\nnot ok 1 a\n# b: cannot attach\nnot ok 2 b\n")
    assert [row.message for row in rows.values()] == ["not ok", "cannot attach"]


KSELFTEST = (
    "TAP version 13\n1..2\n# timeout set to 45\n# selftests: net: a.sh\n# TAP version 13\n# 1..2\n"
    "# ok 1 one\n# not ok 2 two\nnot ok 1 selftests: net: a.sh # exit=1\n"
    "# selftests: net: b.sh\n# SKIP: need root\nok 2 selftests: net: b.sh # SKIP\n"
)


def test_kselftests_runner_quotes_a_program_before_its_result() -> None:
    rows = read(KSELFTEST)
    assert [row.message for row in rows.values()] == ["exit=1: not ok 2 two", "need root"]


def test_streams_that_follow_each_other_are_all_read() -> None:
    """kselftest prints one for each of its folders."""
    other = KSELFTEST.replace(": net:", ": bpf:").replace("1..2\n# timeout", "1..3\n# timeout")
    assert outcomes(KSELFTEST + other) == {
        "selftests: net: a.sh": "failed",
        "selftests: net: b.sh": "skipped",
        "selftests: bpf: a.sh": "failed",
        "selftests: bpf: b.sh": "skipped",
        "test 3": "lost",
    }


def test_a_stream_that_is_followed_by_another_misses_its_tests() -> None:
    text = "TAP version 13\n1..2\nok 1 - a\nTAP version 13\n1..1\nok 1 - b\n"
    assert outcomes(text) == {"a": "passed", "test 2": "lost", "b": "passed"}


@pytest.mark.parametrize(
    ("line", "name", "outcome", "message"),
    [
        ("ok 1 a # XFAIL known", "a", "xfailed", "known"),
        ("not ok 1 a # XFAIL", "a", "xfailed", ""),
        ("ok 1 # XFAIL known", "test 1", "xfailed", "known"),
        ("not ok 1 a # ERROR could not set up", "a", "error", "could not set up"),
        ("not ok 1 a # error could not set up", "a", "error", "could not set up"),
        ("ok 1 a # ERROR could not set up", "a", "error", "could not set up"),
        ("ok 1 a # TIMEOUT 30 seconds", "a", "failed", "TIMEOUT 30 seconds"),
        ("not ok 1 a   # time=5693ms", "a", "failed", "not ok"),
        ("ok 1 a # time=5ms # SKIP no bpffs", "a", "skipped", "no bpffs"),
        ("ok 1 a # SKIP no bpffs # time=5ms", "a", "skipped", "no bpffs"),
        ("ok 1 - a # error handling works", "a # error handling works", "passed", ""),
        ("ok 1 - a {", "a {", "passed", ""),
        ("ok 1 - {", "{", "passed", ""),
    ],
)
def test_more_of_a_test_point(line: str, name: str, outcome: str, message: str) -> None:
    ((found, row),) = read(f"1..1\n{line}\n").items()
    assert (found, row.outcome.value, row.message) == (name, outcome, message)


def test_a_description_of_ktap_ends_at_the_hash() -> None:
    row = read("KTAP version 1\n1..1\nok 5 check return code # rcode=0 (fast)\n")
    assert row["check return code"].message == "rcode=0 (fast)"


def test_failures_below_an_xfail_are_known() -> None:
    text = "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 a\nok 1 in # XFAIL later\n"
    assert outcomes(text) == {"in/a": "xfailed", "in": "xfailed"}


BRACES = "1..2\nok 1 - a\nok 2 - b # time=3.2ms {\n    1..2\n    ok 1 - c\n    ok 2 - d {\n"
BRACES += "        ok 1 - e\n        1..1\n    }\n}\n\n# time=8.1ms\n"


def test_subtests_in_braces_follow_their_own_test_point() -> None:
    expected = {"a": "passed", "b/c": "passed", "b/d/e": "passed", "b/d": "passed", "b": "passed"}
    assert outcomes(BRACES) == expected


def test_subtests_in_braces_may_follow_a_yaml_block() -> None:
    text = "1..1\nnot ok 1 - a\n  ---\n  message: x\n  ...\n{\n    not ok 1 - b\n    1..1\n}\n"
    assert outcomes(text) == {"a/b": "failed", "a": "failed"}


def test_braces_with_nothing_in_them_are_no_name() -> None:
    assert outcomes("1..2\nok 1 - a {\n}\nok 2 - b\n") == {"a": "passed", "b": "passed"}


def test_a_brace_behind_which_the_command_died_is_no_name() -> None:
    assert outcomes("1..1\nok 1 - a {\n", "the kernel panicked") == {"a": "passed"}


def test_a_brace_that_nothing_closes_belongs_to_a_name() -> None:
    text = "1..2\nok 1 - parses {\n    ok 1 - in\n    1..1\nok 2 - out\n"
    assert outcomes(text) == {"parses {": "passed", "out/in": "passed", "out": "passed"}


def test_a_failure_below_a_todo_in_braces_is_known() -> None:
    text = "1..1\nnot ok 1 - a # TODO later {\n    not ok 1 - b\n    1..1\n}\n"
    assert outcomes(text) == {"a/b": "xfailed", "a": "xfailed"}


def test_braces_in_which_the_command_died_miss_their_tests() -> None:
    text = "1..2\nnot ok 1 - a {\n    1..3\n    ok 1 - b\n"
    assert outcomes(text, "the kernel panicked") == {
        "a/b": "passed",
        "a/test 2": "lost",
        "a/test 3": "not run",
        "a": "failed",
        "test 2": "not run",
    }


@pytest.mark.parametrize("form", ["in {}ms", "in {}sec", "({}ms)", "({} ms)", "[{}ms]", "({}.5 s)"])
def test_a_time_at_the_end_of_all_names_is_no_part_of_them(form: str) -> None:
    lines = [f"ok {n} name {letter} {form.format(n)}" for n, letter in enumerate("abc", 1)]
    text = "\n".join(["1..4", *lines, "ok 4 name d # skip no bpffs"])
    assert list(read(text)) == ["name a", "name b", "name c", "name d"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("answers in 5ms", "opens"),
        ("opens", "answers in 5ms"),
        ("answers in 5ms", "answers in 10ms"),
    ],
)
def test_a_time_at_the_end_of_some_names_is_part_of_them(first: str, second: str) -> None:
    assert list(read(f"1..2\nok 1 - {first}\nok 2 - {second}\n")) == [first, second]


def test_a_time_in_the_name_is_its_duration() -> None:
    assert read("1..1\nok 1 loads the program in 812ms\n")["loads the program"].duration == 0.812


def test_a_yaml_block_without_an_end_hides_no_subtest() -> None:
    text = "1..2\nok 1 - a\n  ---\n    ok 1 - in\n    1..1\nok 2 - b\n"
    assert outcomes(text) == {"a": "passed", "b/in": "passed", "b": "passed"}


def test_a_diagnostic_behind_a_yaml_block_is_the_next_tests_title() -> None:
    """As tape prints it."""
    row = read("1..2\nnot ok 1 - a\n  ---\n  operator: fail\n  ...\n# next\nok 2 - b\n")["a"]
    assert row.message == "not ok"


def test_the_running_subtest_has_the_names_of_all_its_levels() -> None:
    reader = Tap("s")
    for line in ("# Subtest: outer", "    # Subtest: inner"):
        reader.feed(line)
    assert reader.running == "outer/inner"


def test_colours_hide_no_test() -> None:
    assert outcomes("1..1\n\x1b[31mnot ok\x1b[0m 1 - a\n") == {"a": "failed"}


def test_names_that_look_numbered_stay_apart() -> None:
    lines = ["ok 1 - a (2)", "ok 2 - a", "ok 3 - a", "ok 4 - a", "ok 5 - a (3)"]
    found = read("\n".join(["1..5", *lines]))
    assert list(found) == ["a (2)", "a", "a (3)", "a (4)", "a (3) (2)"]


@pytest.mark.parametrize(
    "text", [" " * (1 << 20), " #" * (1 << 19), "a " * (1 << 19), "{" * (1 << 20)]
)
def test_a_line_of_a_mebibyte_is_read(text: str) -> None:
    assert list(outcomes(f"1..1\nnot ok 1 - a # SKIP {text}b\n").values()) == ["skipped"]


def test_a_bailout_of_prove_ends_the_stream_after_what_it_showed() -> None:
    text = (
        "Bailout called.  Further testing stopped:  gone\nt/a.t ..\n1..3\nok 1\n"
        "Failed 2/3 subtests\n\nTest Summary Report\n-----\nt/a.t (Wstat: 0 Tests: 1 Failed: 0)\n"
        "Files=1, Tests=1,  0 wallclock secs\nResult: FAIL\n"
    )
    found = read(text)
    assert found["t/a.t/test 1"].outcome is Outcome.PASSED
    assert found["t/a.t"].outcome is Outcome.FAILED
    assert found["Bail out!"].message == "gone"


def test_a_file_that_prove_did_not_come_to_is_lost() -> None:
    assert outcomes("t/a.t .. ok\nFiles=2, Tests=1\n")["test 2"] == "lost"


@pytest.mark.parametrize("line", ["waiting for it ..", "see a/b .. done", "./x .. 3 of 7"])
def test_output_that_looks_like_proves_is_output(line: str) -> None:
    assert outcomes(f"{line}\n1..1\nok 1 - a\n") == {"a": "passed"}


def test_the_name_of_a_file_within_tap_is_output() -> None:
    assert outcomes("1..2\nok 1 - a\n./x.t ..\nok 2 - b\n") == {"a": "passed", "b": "passed"}


def test_a_verdict_of_prove_that_is_taken_back_does_not_pass() -> None:
    found = outcomes("t/a.t ..\n1..1\nok 1\nok\nDubious, test returned 1\n")
    assert found["t/a.t (2)"] == "failed"


def test_a_brace_before_a_directive_opens_subtests() -> None:
    """As Perl's Test2 writes a buffered subtest within a TODO."""
    text = (
        "not ok 1 - outer { # TODO later\n    not ok 1 - inner # TODO later\n    not ok 2 - other\n"
        "    1..2\n}\nok 2 - none { # SKIP no net\n    1..0 # SKIP no net\n}\n1..2"
    )
    assert outcomes(text) == {
        "outer/inner": "xfailed",
        "outer/other": "xfailed",
        "outer": "xfailed",
        "none": "skipped",
    }


def test_a_failure_of_glib_has_the_name_that_it_has_when_it_passes() -> None:
    rows = read(
        "TAP version 14\n# random seed: R02S4d7b3f\n1..2\nok 1 /a/b\n"
        "not ok /a/c - GLib:ERROR:t.c:5:c: assertion failed (1 == 2)\n"
        "Bail out! GLib:ERROR:t.c:5:c: assertion failed (1 == 2)"
    )
    assert rows["/a/c"].message == "GLib:ERROR:t.c:5:c: assertion failed (1 == 2)"


def test_a_dash_in_a_name_of_another_producer_is_part_of_it() -> None:
    assert outcomes("1..1\nnot ok 1 /a/c - with a dash") == {"/a/c - with a dash": "failed"}


def test_a_todo_without_a_reason_has_the_one_of_its_yaml() -> None:
    rows = read("1..1\nnot ok 1 - a # TODO\n  ---\n  error: 'not yet'\n  ...")
    assert (rows["a"].outcome.value, rows["a"].message) == ("xfailed", "not yet")


@pytest.mark.parametrize(
    "said", ["TEST: ping   [FAIL]", "[FAIL] ping", "FAIL: ping", "ping: [ FAIL ]", "not ok 2 ping"]
)
def test_what_failed_in_a_script_of_kselftest_is_in_the_message(said: str) -> None:
    rows = read(
        f"TAP version 13\n1..1\n# selftests: net: a.sh\n# TEST: arp   [ OK ]\n# {said}\n"
        "# Tests passed: 1 FAIL=1\nnot ok 1 selftests: net: a.sh # exit=1"
    )
    assert rows["selftests: net: a.sh"].message == f"exit=1: {said}"
