"""JUnit XML as pytest, cargo-nextest, gotestsum, ctest and surefire write it.

Read with the standard library: the format has no schema that a library could
hold, and what is needed of it is five elements.  docs/reference/formats.md
has the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from vmtest.command.formats.junitwords import (
    WORST,
    duration,
    is_flaky,
    message_of,
    said_of,
    telling,
)
from vmtest.command.formats.rows import Rows
from vmtest.command.formats.xmltext import parse
from vmtest.model.results import Outcome, TestResult
from vmtest.model.text import last_line

_PROBLEMS = {"error": Outcome.ERROR, "failure": Outcome.FAILED}
_FLAKY = ("flakyFailure", "flakyError")  # surefire and nextest: it failed, was repeated, and passed


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
        rows.add(where, Outcome.ERROR, _message(problem), _text(problem))
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
    took = duration(case.get("time", "0"))
    problems = [element for element in case if element.tag in _PROBLEMS]
    said, words = said_of(case.attrib)
    if problems or said in (Outcome.ERROR, Outcome.FAILED):
        outcomes = {said, *(_PROBLEMS[problem.tag] for problem in problems)}
        outcome = next(outcome for outcome in WORST if outcome in outcomes)
        texts = [_text(problem) or problem.get("message") or "" for problem in problems]
        details = "\n".join(part for part in (*texts, output) if part.strip())
        messages = [_message(p, output) for p in problems if _PROBLEMS[p.tag] is outcome]
        message = next(filter(None, messages), "") or telling(output) or words
        rows.add(test, outcome, message, details, took)
        return
    skipped = case.find("skipped")
    if skipped is not None:
        outcome, message = _skip(case, skipped, output)
        rows.add(test, outcome, message, output if outcome.bad else "", took)
    elif said is not None:
        rows.add(test, said, words, duration=took)
    else:
        flaky = is_flaky(case.attrib) or any(case.find(tag) is not None for tag in _FLAKY)
        rows.add(test, Outcome.PASSED, duration=took, flaky=flaky)


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


def _message(problem: ET.Element, output: str = "") -> str:
    """Why; ``output`` of the test, where it has any, says more than the kind of a failure."""
    kind = "" if output.strip() else problem.get("type", "")
    return message_of(problem.get("message", ""), _text(problem), kind)


def _text(problem: ET.Element) -> str:
    """The text of an element and of those in it: CppUnit has <message>, surefire <stackTrace>."""
    return "".join(problem.itertext())
