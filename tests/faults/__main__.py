"""Inject every fault of faults.toml, and say what came of each.

``python -m tests.faults [--page FILE] [PYTEST_OPTIONS...]`` runs the tests that inject them;
``--page`` writes the page of the documentation.  With ``--of JUNIT_FILE``, once or more often, it
runs nothing: these are the results of all tests (``tox -e py -- --junit-xml FILE``, and vm).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Properties, Skipped, TestCase

from tests.faults.fixtures import LEFT, NOTICED
from tests.faults.rows import LIST, ROOT, Fault, faults


@dataclass(frozen=True)
class Ran:
    """What came of a test: ``outcome`` is passed, failed, skipped or both.

    ``noticed`` are the seconds until vmtest had noticed the fault, as often as the test put them
    down; ``clean`` says that the test looked for what is left, and found nothing.
    """

    outcome: str
    noticed: tuple[float, ...] = ()
    clean: bool = False


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
        properties = case.child(Properties) or ()  # type: ignore[no-untyped-call]
        told = [(one.name, one.value) for one in properties]
        noticed = tuple(float(value) for name, value in told if name == NOTICED)
        clean = any(name == LEFT for name, _ in told)
        found.setdefault(place(case), []).append(Ran(outcome, noticed, clean))
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


def seconds(value: float) -> str:
    """``0.4`` or ``23``: no more digits than it is worth."""
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def noticed(fault: Fault, results: Mapping[str, list[Ran]]) -> str:
    """``0.4 to 2.1 s``: the fewest and the most seconds of all variants; "" where none has any."""
    every = [
        value for test in fault.tests for one in results.get(test, []) for value in one.noticed
    ]
    if not every:
        return ""
    least, most = seconds(min(every)), seconds(max(every))
    return f"{least} s" if least == most else f"{least} to {most} s"


def left(fault: Fault, results: Mapping[str, list[Ran]]) -> str:
    """``nothing`` where each variant that passed has looked for it; what stays by design."""
    passed = [
        one for test in fault.tests for one in results.get(test, []) if one.outcome == "passed"
    ]
    if not passed or not all(one.clean for one in passed):
        return ""
    return fault.left or "nothing"


COLUMNS = ("fault", "what you see", "what is kept", "noticed after", "left", "outcome")


def table(found: Iterable[Fault], results: Mapping[str, list[Ran]]) -> str:
    """The tables of the page, one a group."""
    lines: list[str] = []
    group = ""
    for fault in found:
        if fault.group != group:
            group = fault.group
            lines += ["", f"## {group}", "", f"| {' | '.join(COLUMNS)} |", "|---" * 6 + "|"]
        told = (noticed(fault, results), left(fault, results), verdict(fault, results))
        lines.append(f"| {' | '.join((fault.what, fault.sees, fault.kept, *told))} |")
    return "\n".join(lines).lstrip("\n") + "\n"


PAGE = """# What happens when something breaks

vmtest is tested with the faults below. Each is injected for real: into a booted kernel, a QEMU, a
process, a disk or a server of the test's own. `tox -e faults` repeats all of them and prints this
table; the tests behind a row are in `tests/faults/faults.toml`.

- **noticed after**: seconds from the injection until vmtest has its verdict and the VM or the
  command has ended, the fewest and the most of all variants. An empty cell has nothing to measure:
  the fault does no harm, or no single moment is the injection. Tests set short time limits; where
  the second column names a limit, yours decides.
- **left**: what is there afterwards that was not there before: processes (also orphans), files for
  temporary use, sockets, mounts, loop devices, locks. Each test looks for them and fails if it
  finds any.
- **outcome**: the number says how many variants were tried.

What hundreds of guests one after the other leave, and what more VMs than processors come to, is in
[the measurements](measurements.md#snapshots); `benchmarks/soak.py` and `benchmarks/load.py` repeat
it.

Made on {date} by {command}:
{count} faults, {variants} variants.

{table}"""


Results = dict[str, list[Ran]]


def results_in(files: Iterable[Path], found: Iterable[Fault]) -> Results:
    """What the JUnit ``files`` say of the tests of the faults ``found``."""
    listed = {test for fault in found for test in fault.tests}
    suites = (suite for file in files for suite in JUnitXml.fromfile(str(file)))
    every = ran(case for suite in suites for case in suite)
    return {test: runs for test, runs in every.items() if test in listed}


def run(found: Iterable[Fault], more: Sequence[str]) -> tuple[int, Results]:
    """Run the tests of ``found`` with options of pytest's; its status, and what came of them."""
    with tempfile.TemporaryDirectory(prefix="vmtest-faults-") as folder:
        junit = Path(folder) / "junit.xml"
        tests = [test for fault in found for test in fault.tests]
        command = [sys.executable, "-m", "pytest", "-p", "no:randomly", f"--junit-xml={junit}"]
        status = subprocess.run([*command, *more, *tests], cwd=ROOT, check=False).returncode
        return status, results_in([junit] if junit.exists() else [], found)


def main() -> int:
    """Run the tests, print the table or write the page; 1 if anything is not as designed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page of the docs")
    parser.add_argument(
        "--of",
        type=Path,
        metavar="JUNIT_FILE",
        action="append",
        help="results of all tests, instead of running those that inject faults",
    )
    options, more = parser.parse_known_args()
    found = faults(LIST.read_text(encoding="utf-8"))
    if options.of is None:
        status, results = run(found, more)
        command = "`tox -e faults -- --page FILE`"
    else:
        results = results_in(options.of, found)
        verdicts = [verdict(fault, results) for fault in found]
        status = int(not all(one.startswith("as designed") for one in verdicts))
        command = "`tox -e faults -- --of JUNIT_FILE... --page FILE`, of the tests that CI runs"
    text = table(found, results)
    if options.page is None:
        print(text)
    else:
        variants = sum(one.outcome == "passed" for runs in results.values() for one in runs)
        date = datetime.now(UTC).date()
        page = PAGE.format(
            date=date, command=command, count=len(found), variants=variants, table=text
        )
        options.page.write_text(page, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
