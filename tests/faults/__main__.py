"""Inject every fault of faults.toml, and say what came of each.

``python -m tests.faults [--page FILE] [PYTEST_OPTIONS...]`` runs the tests that inject them, about
ten minutes on two cores; ``--page`` writes the page of the documentation.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase

LIST = Path(__file__).with_name("faults.toml")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Fault:
    """What happens, what is seen and kept then, and the ids of the tests (without parameters)."""

    group: str
    what: str
    sees: str
    kept: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Ran:
    """What came of a test: ``outcome`` is passed, failed, skipped or both; the seconds it took."""

    outcome: str
    seconds: float


def faults(text: str) -> list[Fault]:
    """The faults in ``text``, which is as faults.toml."""
    return [
        Fault(group["title"], one["what"], one["sees"], one["kept"], tuple(one["tests"]))
        for group in tomllib.loads(text)["group"]
        for one in group["fault"]
    ]


def place(case: TestCase) -> str:
    """``tests/vm/test_cli.py::test_a``: the id of a test in a JUnit file, without parameters."""
    return f"{case.classname.replace('.', '/')}.py::{case.name.partition('[')[0]}"


def ran(cases: Iterable[TestCase]) -> dict[str, list[Ran]]:
    """What came of each test, once for each set of its parameters."""
    found: dict[str, list[Ran]] = {}
    for case in cases:
        kinds = {type(result) for result in case.result}
        outcome = "passed"
        if kinds & {Failure, Error}:
            outcome = "failed"
        elif Skipped in kinds:
            outcome = "skipped"
        found.setdefault(place(case), []).append(Ran(outcome, case.time or 0.0))
    return found


def verdict(fault: Fault, results: Mapping[str, list[Ran]]) -> str:
    """``as designed (3)``, or what is not."""
    every = [one.outcome for test in fault.tests for one in results.get(test, [])]
    if "failed" in every:
        return f"**NOT as designed** ({every.count('failed')} of {len(every)} failed)"
    missing = [test for test in fault.tests if test not in results]
    if missing or "passed" not in every:
        return "not tried here"
    skipped = f", {every.count('skipped')} not tried here" if "skipped" in every else ""
    return f"as designed ({every.count('passed')}{skipped})"


def table(found: Iterable[Fault], results: Mapping[str, list[Ran]]) -> str:
    """The tables of the page, one a group."""
    lines: list[str] = []
    group = ""
    for fault in found:
        if fault.group != group:
            group = fault.group
            lines += ["", f"## {group}", "", "| fault | what you see | what is kept | outcome |"]
            lines += ["|---|---|---|---|"]
        cells = (fault.what, fault.sees, fault.kept, verdict(fault, results))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).lstrip("\n") + "\n"


PAGE = """# What happens when something breaks

vmtest is tested with the faults below. Each is injected for real: into a booted kernel, a QEMU, a
process, a disk or a server of the test's own. `tox -e faults` repeats all of them and prints this
table; the tests behind a row are in `tests/faults/faults.toml`. The number in the last column says
how many variants were tried.

Made on {date} by `tox -e faults -- --page FILE`: {count} faults, {variants} variants.

{table}"""


def main() -> int:
    """Run the tests, print the table or write the page; 1 if anything is not as designed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page of the docs")
    options, more = parser.parse_known_args()
    found = faults(LIST.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="vmtest-faults-") as folder:
        junit = Path(folder) / "junit.xml"
        tests = [test for fault in found for test in fault.tests]
        command = [sys.executable, "-m", "pytest", "-p", "no:randomly", f"--junit-xml={junit}"]
        status = subprocess.run([*command, *more, *tests], cwd=ROOT, check=False).returncode
        if not junit.exists():
            return status
        results = ran(case for suite in JUnitXml.fromfile(str(junit)) for case in suite)
    text = table(found, results)
    if options.page is None:
        print(text)
    else:
        variants = sum(one.outcome == "passed" for runs in results.values() for one in runs)
        date = datetime.now(UTC).date()
        page = PAGE.format(date=date, count=len(found), variants=variants, table=text)
        options.page.write_text(page, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
