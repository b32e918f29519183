"""Reports of other tools, as no example has them: made up by hypothesis.

No input raises, no test vanishes, no failure becomes a pass.  ``tox -e fuzz``
tries many more than the unit tests do (docs/reference/formats.md).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from hypothesis import given
from hypothesis import strategies as st

from vmtest.command.formats.gotest import GoTest
from vmtest.command.formats.junit import read as read_junit
from vmtest.command.formats.tap import Tap
from vmtest.model.results import Outcome, TestResult

DIED = st.sampled_from(["", "the kernel panicked"])


def tap(lines: list[str], died: str = "") -> list[TestResult]:
    reader = Tap("s")
    for n, line in enumerate(lines):
        reader.feed(line)
        assert reader.running is None or reader.running
        assert reader.expected is None or reader.expected >= 0, n
    reader.end(died)
    return list(reader.done)


def go(lines: list[str], died: str = "") -> list[TestResult]:
    reader = GoTest("s")
    for line in lines:
        reader.feed(line)
        assert reader.running is None or reader.running
    reader.end(died)
    return list(reader.done)


def unique(rows: list[TestResult]) -> dict[str, TestResult]:
    found = {row.test: row for row in rows}
    assert len(found) == len(rows)
    return found


# Lines of TAP, whole, broken and in any order.

WORDS = st.sampled_from(
    [
        "a",
        "b {",
        "{",
        "}",
        "in 5ms",
        "(5ms)",
        "#",
        "# ",
        "\\#",
        "\\",
        "-",
        "é",
        "\x00",
        "\x1b[31m",
        "# SKIP",
        "# TODO later",
        "# XFAIL",
        "# ERROR x",
        "# TIMEOUT",
        "# time=5ms",
        "# exit=1",
        "ok",
        "not ok",
        "1..2",
        "---",
        "...",
        "message: x",
        "error: >",
        "# Subtest: a",
    ]
)
INDENT = st.sampled_from(["", "", "", "  ", "    ", "        ", "\t", "   ", " " * 300])
NUMBER = st.sampled_from(["", " 1", " 2", " 7", " 999999999", " 9999999999"])
PIECES = st.one_of(
    st.builds("{}{}{} {}".format, INDENT, st.sampled_from(["ok", "not ok"]), NUMBER, WORDS),
    st.builds("{}{}..{}{}".format, INDENT, st.integers(0, 3), st.integers(0, 4), WORDS),
    st.builds("{}{}".format, INDENT, WORDS),
    st.builds("{}{} {}".format, INDENT, WORDS, WORDS),
    st.sampled_from(["TAP version 13", "KTAP version 1", "  KTAP version 1", "pragma +strict"]),
    st.sampled_from(["[    1.0] KTAP version 1", "[    1.0] ok 1 a", "# selftests: net: a"]),
    st.text(max_size=20),
)
TAP_LINES = st.lists(PIECES, max_size=25)


@given(TAP_LINES, DIED)
def test_any_lines_are_read_as_tap(lines: list[str], died: str) -> None:
    unique(tap(lines, died))


def failing(pieces: list[tuple[str, bool]]) -> tuple[list[str], list[str]]:
    """The pieces with a failure behind each that is marked, and the failures' names."""
    lines: list[str] = []
    failed: list[str] = []
    for piece, fails in pieces:
        if piece.lstrip().lower().startswith("bail out!"):
            continue
        lines.append(piece)
        if fails:
            failed.append(f"fails{len(failed)}")
            lines.append(f"not ok - {failed[-1]}")
    return lines, failed


@given(st.lists(st.tuples(PIECES, st.booleans()), max_size=25), DIED)
def test_a_failure_of_tap_is_told_whatever_stands_around_it(
    pieces: list[tuple[str, bool]], died: str
) -> None:
    lines, failed = failing(pieces)
    found = unique(tap(lines, died))
    for name in failed:
        assert found[name].outcome is Outcome.FAILED


PROVE = st.sampled_from(
    [
        "t/a.t ..",
        "t/b.t .. ok",
        "ok",
        "Failed 1/2 subtests",
        "Dubious, test returned 1",
        "t/c.t .. skipped: no",
        "skipped: no",
        "All 1 subtests passed",
        "Test Summary Report",
        "Files=2, Tests=3, 0 secs",
        "[12:00:00] t/d.t .... ok   5 ms",
    ]
)


@given(st.lists(st.tuples(st.one_of(PROVE, PIECES), st.booleans()), max_size=25), DIED)
def test_a_failure_is_told_wherever_prove_has_a_verdict(
    pieces: list[tuple[str, bool]], died: str
) -> None:
    lines, failed = failing(pieces)
    rows = tap(["t/first.t ..", *lines], died)
    ends = [row.test.rpartition("/")[2] for row in rows if row.outcome.bad]
    assert set(failed) <= set(ends)


# Trees of tests in the dialects of TAP.


@dataclass(frozen=True)
class Node:
    """A test: how it ends, and the tests below it."""

    end: str
    below: tuple[Node, ...]


ENDS = {
    "ok": ("ok", "", "passed"),
    "fail": ("not ok", "", "failed"),
    "skip": ("ok", " # SKIP why", "skipped"),
    "not ok skip": ("not ok", " # SKIP", "skipped"),
    "xfail": ("not ok", " # XFAIL why", "xfailed"),
    "error": ("not ok", " # ERROR why", "error"),
    "timeout": ("not ok", " # TIMEOUT 5 seconds", "failed"),
}
NODES = st.recursive(
    st.builds(Node, st.sampled_from(list(ENDS)), st.just(())),
    lambda below: st.builds(
        Node, st.sampled_from(["ok", "fail", "skip"]), st.lists(below, max_size=3).map(tuple)
    ),
    max_leaves=8,
)
TREES = st.lists(NODES, min_size=1, max_size=4)
NOISE = st.lists(
    st.sampled_from(["printk: x", "# note", "okay", "load: errno 22", "", "# a: b"]), max_size=30
)


@dataclass(frozen=True)
class Dialect:
    """How subtests are written: indentation, a line before them, braces, versions."""

    level: str
    head: str = ""
    braces: bool = False
    version: str = ""


DIALECTS = [
    Dialect("    "),
    Dialect("    ", "# Subtest: {}"),
    Dialect("    ", braces=True),
    Dialect("  ", version="KTAP version 1"),
    Dialect("    ", "    # Subtest: {}", version="KTAP version 1"),
    Dialect("\t", "\t# Subtest: {}"),
]


def write(
    nodes: tuple[Node, ...], dialect: Dialect, noise: list[str], path: str, indent: str
) -> tuple[list[str], dict[str, str]]:
    lines, expected = [], {}
    noise = list(noise)
    for n, node in enumerate(nodes, 1):
        name = f"t{n}"
        full = f"{path}{name}"
        word, rest, outcome = ENDS[node.end]
        point = f"{indent}{word} {n} - {name}{rest}"
        inner, below = write(node.below, dialect, noise[n:], f"{full}/", indent + dialect.level)
        if noise:
            lines.append(noise.pop(0))
        if node.below and dialect.braces:
            lines += [f"{point} {{", *inner, f"{indent}}}"]
        else:
            head = [indent + dialect.head.format(name)] if dialect.head and node.below else []
            version = [indent + dialect.level + dialect.version] if dialect.version else []
            own = [*version, *head] if dialect.version else [*head]
            lines += [*(own if node.below else []), *inner, point]
        expected.update(below)
        expected[full] = outcome
    if nodes:
        lines.insert(0, f"{indent}1..{len(nodes)}")
    return lines, expected


@given(TREES, st.sampled_from(DIALECTS), NOISE)
def test_a_tree_of_tests_is_read_in_every_dialect(
    trees: list[Node], dialect: Dialect, noise: list[str]
) -> None:
    lines, expected = write(tuple(trees), dialect, noise, "", "")
    head = [dialect.version] if dialect.version else ["TAP version 14"]
    found = unique(tap(head + lines))
    assert {name: row.outcome.value for name, row in found.items()} == expected


@given(TREES, st.sampled_from(DIALECTS), NOISE, st.integers(0, 60), DIED)
def test_a_stream_that_is_cut_keeps_the_failures_that_it_had(
    trees: list[Node], dialect: Dialect, noise: list[str], cut: int, died: str
) -> None:
    lines, expected = write(tuple(trees), dialect, noise, "", "")
    head = [dialect.version] if dialect.version else ["TAP version 14"]
    kept = (head + lines)[:cut]
    found = unique(tap(kept, died))
    at_top = [line for line in kept if line.startswith(("ok ", "not ok "))]
    for line in at_top:
        name = line.split(" - ")[1].split(" ")[0]
        # Where a stream ends behind a brace, that may be the end of a name.
        row = found.get(name) or found[f"{name} {{"]
        assert row.outcome.value == expected[name]
    failures = sum(line.lstrip().startswith("not ok") and "#" not in line for line in kept)
    assert sum(row.outcome is Outcome.FAILED for row in found.values()) >= failures


# Output of go test.

GO_NAMES = st.sampled_from(["TestA", "TestA/b", "TestA/b/c", "TestB", "BenchmarkX", ""])
GO_LINES = st.one_of(
    st.builds("=== {} {}".format, st.sampled_from(["RUN  ", "PAUSE", "CONT ", "NAME "]), GO_NAMES),
    st.builds(
        "{}--- {}: {} (0.01s)".format,
        st.sampled_from(["", "    ", "text ", "\x16"]),
        st.sampled_from(["PASS", "FAIL", "SKIP", "BENCH"]),
        GO_NAMES,
    ),
    st.sampled_from(
        [
            "panic: x",
            "fatal error: x",
            "goroutine 7 [running]:",
            "FAIL",
            "PASS",
            "exit status 1",
            "FAIL\tp\t0.1s",
            "ok  \tp\t0.1s",
            "FAIL\tp [build failed]",
            "# p",
            "a.go:3:5: no",
            "BenchmarkX-2 \t 10 \t 90.1 ns/op",
            "    a.go:3: said",
            "",
        ]
    ),
    st.text(max_size=20),
)
EVENTS = st.fixed_dictionaries(
    {
        "Action": st.sampled_from(
            [
                "run",
                "pause",
                "cont",
                "output",
                "pass",
                "fail",
                "skip",
                "bench",
                "start",
                "build-output",
                "build-fail",
                "attr",
                "",
            ]
        )
    },
    optional={
        "Package": st.sampled_from(["p", "q"]),
        "Test": GO_NAMES,
        "Output": st.builds("{}{}".format, GO_LINES, st.sampled_from(["\n", ""])),
        "Elapsed": st.one_of(st.floats(), st.text(max_size=3), st.integers()),
        "FailedBuild": st.sampled_from(["p", "q"]),
        "ImportPath": st.sampled_from(["p", "q"]),
    },
).map(json.dumps)


@given(st.lists(st.one_of(GO_LINES, EVENTS), max_size=30), DIED)
def test_any_lines_are_read_as_go_test(lines: list[str], died: str) -> None:
    unique(go(lines, died))


@given(st.lists(EVENTS, max_size=30), st.sampled_from(["pass", "fail"]), DIED)
def test_no_event_of_go_hides_a_test(lines: list[str], end: str, died: str) -> None:
    """Neither one that fails among any others, nor one that only begins."""

    def event(action: str, test: str) -> str:
        return json.dumps({"Action": action, "Package": "p", "Test": test})

    middle = len(lines) // 2
    lines = [event("run", "TestF"), *lines[:middle], event("fail", "TestF"), *lines[middle:]]
    found = unique(go([event("run", "TestG"), *lines, event(end, "TestH")], died))

    def outcomes(test: str) -> set[Outcome]:
        return {row.outcome for name, row in found.items() if name.startswith(test)}

    assert Outcome.FAILED in outcomes("p::TestF")
    assert outcomes("p::TestG") == {Outcome.LOST}
    assert outcomes("p::TestH") == {Outcome.PASSED if end == "pass" else Outcome.FAILED}


@dataclass(frozen=True)
class GoNode:
    """A test of go: whether it fails itself, where its end stands, and its subtests."""

    own: str
    where: str
    below: tuple[GoNode, ...]


GO_NODES = st.recursive(
    st.builds(
        GoNode,
        st.sampled_from(["PASS", "FAIL", "SKIP"]),
        st.sampled_from(["event", "output", "parent"]),
        st.just(()),
    ),
    lambda below: st.builds(
        GoNode,
        st.just("PASS"),
        st.sampled_from(["event", "output"]),
        st.lists(below, max_size=3).map(tuple),
    ),
    max_leaves=8,
)


def events(node: GoNode, name: str, parent: str) -> tuple[list[str], dict[str, str]]:
    def event(action: str, output: str = "", test: str = name) -> str:
        return json.dumps({"Action": action, "Package": "p", "Test": test, "Output": output})

    lines, expected = [event("run")], {}
    word = node.own
    for n, below in enumerate(node.below):
        inner, outcomes = events(below, f"{name}/s{n}", name)
        lines += inner
        expected.update(outcomes)
        if outcomes[f"{name}/s{n}"] == "failed":
            word = "FAIL"
    end = f"    --- {word}: {name} (0.01s)\n"
    if node.where == "event":
        lines += [event("output", end), event(word.lower())]
    elif node.where == "output":
        lines.append(event("output", f"no break {end}"))
    else:
        lines.append(event("output", end, parent or name))
    expected[name] = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}[word]
    return lines, expected


@given(st.lists(GO_NODES, min_size=1, max_size=4))
def test_a_tree_of_go_tests_is_read_wherever_its_ends_stand(trees: list[GoNode]) -> None:
    lines, expected = [], {}
    for n, tree in enumerate(trees):
        inner, outcomes = events(tree, f"Test{n}", "")
        lines += inner
        expected.update(outcomes)
    end = "fail" if "failed" in expected.values() else "pass"
    lines.append(json.dumps({"Action": end, "Package": "p"}))
    found = unique(go(lines))
    assert {name.removeprefix("p::"): r.outcome.value for name, r in found.items()} == expected


# JUnit XML.

TEXTS = st.text(st.characters(codec=None), max_size=12)
INSIDE = {
    "": "passed",
    "<failure>{}</failure>": "failed",
    "<error>{}</error>": "error",
    "<skipped>{}</skipped>": "skipped",
    "<skipped/><failure message='x'/>": "failed",
    "<system-out>{}</system-out>": "passed",
    "<flakyFailure>{}</flakyFailure>": "passed",
}
CASES = st.lists(st.tuples(st.sampled_from(list(INSIDE)), TEXTS, st.booleans()), max_size=6)


def junit(cases: list[tuple[str, str, bool]]) -> list[str]:
    written = []
    for n, (inside, text, cdata) in enumerate(cases):
        safe = text.replace("]]>", "")
        body = f"<![CDATA[{safe}]]>" if cdata else escape(safe)
        name = quoteattr(f"t{n} {text}")
        written.append(f"<testcase name={name}>{inside.replace('{}', body)}</testcase>")
    return written


@given(CASES, st.sampled_from(["utf-8", "utf-16"]))
def test_any_characters_stand_in_a_junit_file(
    cases: list[tuple[str, str, bool]], encoding: str
) -> None:
    text = f"<testsuite>{''.join(junit(cases))}</testsuite>"
    found = read_junit(text.encode(encoding, errors="replace"), "s")
    assert [row.outcome.value for row in found] == [INSIDE[inside] for inside, _, _ in cases]
    assert [row.test.split(" ")[0] for row in found] == [f"t{n}" for n in range(len(cases))]


@given(CASES, st.integers(1, 12), st.booleans())
def test_a_junit_file_that_is_cut_keeps_its_complete_tests(
    cases: list[tuple[str, str, bool]], cut: int, inside: bool
) -> None:
    written = [case.encode(errors="replace") for case in junit(cases)]
    kept = written[:-1] if inside else written
    part = written[-1][:-cut] if inside and written else b""
    try:
        found = read_junit(b"<testsuite>" + b"".join(kept) + part, "s")
    except ValueError:
        assert not kept
        return
    assert [row.outcome.value for row in found] == [
        *(INSIDE[of] for of, _, _ in cases[: len(kept)]),
        "error",
    ]


@given(st.binary(max_size=60), CASES, st.integers(0, 400))
def test_any_bytes_are_refused_or_read_as_junit(
    junk: bytes, cases: list[tuple[str, str, bool]], where: int
) -> None:
    text = f"<testsuite>{''.join(junit(cases))}</testsuite>".encode(errors="replace")
    try:
        found = read_junit(text[:where] + junk + text[where:], "s")
    except ValueError:
        return
    unique(list(found))
