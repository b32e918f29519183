"""JUnit XML as pytest, cargo-nextest, gotestsum, ctest and surefire write it.

Read with the standard library: the format has no schema that a library could
hold, and what is needed of it is five elements.  docs/reference/formats.md
has the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from vmtest.command.formats.rows import Rows, seconds
from vmtest.command.formats.xmltext import parse
from vmtest.model.results import Outcome, TestResult
from vmtest.model.text import last_line

_PROBLEMS = {"error": Outcome.ERROR, "failure": Outcome.FAILED}
_FLAKY = ("flakyFailure", "flakyError")  # surefire and nextest: it failed, was repeated, and passed
# Words of a case's attributes, where no element says the same.
_SAYING = ("status", "result", "outcome")
_SAID = {
    **dict.fromkeys(("error", "errored", "broken", "crash", "crashed"), Outcome.ERROR),
    **dict.fromkeys(("interrupted", "aborted", "killed", "fatal"), Outcome.ERROR),
    **dict.fromkeys(("cancelled", "canceled"), Outcome.ERROR),
    **dict.fromkeys(("fail", "failed", "failure", "timeout", "timedout"), Outcome.FAILED),
    **dict.fromkeys(("skip", "skipped", "ignored", "pending", "notrun"), Outcome.SKIPPED),
    **dict.fromkeys(("disabled", "suppressed"), Outcome.SKIPPED),
}
_PANIC = re.compile(r"^panic: |\bpanicked at ")
_GO_FRAME = re.compile(r"^(?:=== |--- |(?:FAIL|PASS|ok)(?:\s|$)|exit status \d)")
_WORST = (Outcome.ERROR, Outcome.FAILED, Outcome.SKIPPED)


def read(data: bytes, suite: str) -> tuple[TestResult, ...]:
    """The tests of a file; ``suite`` is what they belong to.

    A test is ``CLASSNAME::NAME``.  Where the file is broken or cut off, its
    complete tests and an error.  Raises ValueError for text that is not JUnit XML.
    """
    root, fault = parse(data)
    if root.tag not in ("testsuites", "testsuite"):
        raise ValueError(f"its root is <{root.tag[:60]}> and not <testsuites> or <testsuite>")
    rows = Rows(suite)
    bad = set()
    suites = {case: one for one in root.iter("testsuite") for case in one.findall("testcase")}
    for case in root.iter("testcase"):
        _add(case, _name(case, suites.get(case)), rows)
        if rows.done[-1].outcome.bad or rows.done[-1].flaky:
            bad.add(case)
    for problem, where in _broken_suites(root):
        rows.add(where, Outcome.ERROR, _message(problem), problem.text or "")
    for name, complaint in _unkept_counts(root, bad):
        rows.add(name, Outcome.ERROR, complaint, complaint)
    if fault:
        complaint = f"it is not XML behind the {len(rows.done)} tests that were read: {fault}"
        rows.add("JUnit file", Outcome.ERROR, complaint, complaint)
    return tuple(rows.done)


def _name(case: ET.Element, suite: ET.Element | None) -> str:
    """googletest gives a failure outside of any test no name; its suite says what it is."""
    names = (case.get("classname", "").strip(), case.get("name", "").strip())
    given = "::".join(name for name in names if name)
    return given or ("" if suite is None else suite.get("name", "").strip()) or "unnamed"


def _add(case: ET.Element, test: str, rows: Rows) -> None:
    output = "\n".join(e.text or "" for e in case if e.tag in ("system-out", "system-err"))
    duration = seconds(case.get("time", "0").replace(",", ""))
    problems = [element for element in case if element.tag in _PROBLEMS]
    said = _said(case)
    if problems or said in (Outcome.ERROR, Outcome.FAILED):
        outcomes = {said, *(_PROBLEMS[problem.tag] for problem in problems)}
        outcome = next(outcome for outcome in _WORST if outcome in outcomes)
        texts = [problem.text or problem.get("message") or "" for problem in problems]
        details = "\n".join(part for part in (*texts, output) if part.strip())
        messages = (_message(p) for p in problems if _PROBLEMS[p.tag] is outcome)
        rows.add(test, outcome, next(messages, "") or _telling(output), details, duration)
        return
    skipped = case.find("skipped")
    if skipped is not None:
        outcome, message = _skip(case, skipped, output)
        rows.add(test, outcome, message, output if outcome.bad else "", duration)
    elif said is Outcome.SKIPPED:
        words = [case.get(key, "") for key in reversed(_SAYING)]
        rows.add(test, Outcome.SKIPPED, next(word for word in words if _word(word) in _SAID))
    else:
        flaky = any(case.find(tag) is not None for tag in _FLAKY)
        rows.add(test, Outcome.PASSED, duration=duration, flaky=flaky)


def _said(case: ET.Element) -> Outcome | None:
    """What the attributes of a case say of it, the worst of it."""
    said = [_SAID.get(_word(case.get(key, ""))) for key in _SAYING]
    if case.get("success", "").lower() == "false" and not set(_WORST).intersection(said):
        said.append(Outcome.FAILED)
    return next((outcome for outcome in _WORST if outcome in said), None)


def _word(value: str) -> str:
    """``value`` as it stands in ``_SAID``: `Not Run`, `not_run` and `notrun` are one."""
    return value.lower().replace(" ", "").replace("_", "").replace("-", "")


def _skip(case: ET.Element, skipped: ET.Element, output: str) -> tuple[Outcome, str]:
    message = _message(skipped)
    if skipped.get("type") == "pytest.xfail":
        return Outcome.XFAILED, message
    if case.get("status") == "notrun" and message and message != "Disabled":
        # ctest. It fails itself when it could not run a test, and has <skipped> for that too.
        if message.startswith("SKIP_"):
            return Outcome.SKIPPED, last_line(output) or message
        return Outcome.ERROR, last_line(output) or message
    return Outcome.SKIPPED, message


def _broken_suites(root: ET.Element) -> Iterator[tuple[ET.Element, str]]:
    """Errors of a whole suite, such as a fixture that failed before any test."""
    for suite in root.iter("testsuite"):
        for tag in _PROBLEMS:
            for problem in suite.findall(tag):
                yield problem, suite.get("name", "") or "suite"


def _unkept_counts(root: ET.Element, bad: set[ET.Element]) -> Iterator[tuple[str, str]]:
    """Suites that count failures of which no test and nothing within them tells."""
    told: set[ET.Element] = set()
    suites = list(root.iter("testsuite"))
    for suite in [*reversed(suites), *([root] if root.tag == "testsuites" else [])]:
        counted = sum(_count(suite.get(key, "")) for key in ("failures", "errors"))
        if not counted or any(case in bad for case in suite.iter("testcase")):
            continue
        within = list(suite.iter("testsuite"))
        if any(s in told or any(s.find(tag) is not None for tag in _PROBLEMS) for s in within):
            continue
        told.add(suite)
        name = suite.get("name", "") or "suite"
        yield name, f"it counts {counted} failures, and none of its tests has failed"


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _message(problem: ET.Element) -> str:
    message = problem.get("message", "").strip()
    telling = "" if message and message != "Failed" else _telling(problem.text or "")
    return telling or message


def _telling(text: str) -> str:
    """The line of ``text`` that says why: a panic's, the one above a stack, else the last."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not _GO_FRAME.match(line)]
    if panic := next(filter(_PANIC.search, lines), ""):
        return panic
    if not lines:
        return ""
    return lines[0] if lines[-1].startswith("at ") else lines[-1]
