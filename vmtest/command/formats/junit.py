"""JUnit XML as pytest, cargo-nextest, gotestsum, ctest and surefire write it.

Read with the standard library: the format has no schema that a library could
hold, and what is needed of it is five elements.  A document type declaration
is refused, because entities could make a small file endless.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from vmtest.command.formats.rows import Rows, last_line, seconds
from vmtest.model.kernels import Outcome, TestResult

_OUTCOMES = (  # the first element that a case has decides
    ("error", Outcome.ERROR),
    ("failure", Outcome.FAILED),
    ("skipped", Outcome.SKIPPED),
)
_NOT_RUN = ("notrun", "disabled")


class _NoDoctype(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a document type declaration, which no JUnit writer needs")


def read(data: bytes, suite: str) -> tuple[TestResult, ...]:
    """The tests of a file; ``suite`` is what they belong to.

    A test is ``CLASSNAME::NAME``.  Raises ValueError for what is no JUnit XML.
    """
    parser = ET.XMLParser(target=_NoDoctype())
    try:
        parser.feed(data)
        root = parser.close()
    except (ET.ParseError, LookupError) as error:  # LookupError: an encoding that is none
        raise ValueError(f"it is not XML: {error}") from error
    if root.tag not in ("testsuites", "testsuite"):
        raise ValueError(f"its root is <{root.tag[:60]}> and not <testsuites> or <testsuite>")
    rows = Rows(suite)
    for case in root.iter("testcase"):
        _add(case, rows)
    for problem, where in _broken_suites(root):
        rows.add(where, Outcome.ERROR, _message(problem), problem.text or "")
    return tuple(rows.done)


def _add(case: ET.Element, rows: Rows) -> None:
    names = (case.get("classname", "").strip(), case.get("name", "").strip())
    test = "::".join(name for name in names if name) or "unnamed"
    output = "\n".join(e.text or "" for e in case if e.tag in ("system-out", "system-err"))
    duration = seconds(case.get("time", "0").replace(",", ""))
    for tag, outcome in _OUTCOMES:
        problem = case.find(tag)
        if problem is not None:
            if outcome is Outcome.SKIPPED:
                known = problem.get("type") == "pytest.xfail"
                outcome = Outcome.XFAILED if known else outcome
                rows.add(test, outcome, _message(problem), duration=duration)
                return
            details = "\n".join(part for part in (problem.text or "", output) if part.strip())
            rows.add(test, outcome, _message(problem), details, duration)
            return
    if case.get("status", "") in _NOT_RUN:  # googletest's disabled tests
        rows.add(test, Outcome.SKIPPED, case.get("status", ""))
        return
    # surefire and nextest: it failed, was repeated, and passed.
    flaky = case.find("flakyFailure") is not None or case.find("flakyError") is not None
    rows.add(test, Outcome.PASSED, duration=duration, flaky=flaky)


def _broken_suites(root: ET.Element) -> Iterator[tuple[ET.Element, str]]:
    """Errors of a whole suite, such as a fixture that failed before any test."""
    for suite in root.iter("testsuite"):
        for tag in ("error", "failure"):
            for problem in suite.findall(tag):
                yield problem, suite.get("name", "") or "suite"


def _message(problem: ET.Element) -> str:
    return problem.get("message", "").strip() or last_line(problem.text or "")
