"""What each report costs: 50 kernels with 2,000 failing tests each, no two of one kernel alike.

    python benchmarks/reports.py [--kernels 50] [--tests 2000] [--smoke]

Each report is rendered in a process of its own. It prints the CPU seconds, the MiB of memory beyond
the matrix itself, and the size of what was rendered.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable

import smoke

from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.report import github, junit, markdown, terminal
from vmtest.report.html import page
from vmtest.runs import matrix_json


def github_only(matrix: Matrix) -> str:
    """What a run leaves on GitHub beside its Markdown: annotations, and a comment."""
    found = github.deciding(matrix)
    return "\n".join((*github.annotated(found), github.comment(matrix, found)))


REPORTS: dict[str, Callable[[Matrix], str | Iterable[bytes]]] = {
    "terminal": terminal.render,
    "Markdown": markdown.render,
    "JUnit": junit.pieces,
    "JSON": matrix_json.pieces,
    "HTML": page.render,
    "GitHub": github_only,
}
_SUITES = 5


def failed(kernel: int, number: int) -> TestResult:
    """A test whose parameter stands in its message, as it often does; no two print the same."""
    file, said = f"tests/test_{number % 20}.py", f"assert {number} == {number + kernel % 3}"
    return TestResult(
        f"{file}::test_{number % 100}[{number}]",
        f"suite{number % _SUITES}",
        Outcome.FAILED,
        duration=0.1,
        message=f"AssertionError: {said}",
        details=f"def test():\n>   {said}\nE   AssertionError: {said}\n\n{file}:{number}: error",
        output=f"what {number} printed on {kernel}\n" * 100,
        file=file,
        line=number + 1,
    )


def matrix_of(kernels: int, tests: int) -> Matrix:
    """A run of so many kernels, in each of which so many tests failed."""
    return Matrix(
        schema=SCHEMA,
        run="benchmark",
        started="2026-01-01T00:00:00+00:00",
        duration=1.0,
        suites=tuple(f"suite{number}" for number in range(_SUITES)),
        kernels=tuple(
            KernelResult(
                f"6.{kernel}",
                status=Status.FAILED,
                version=f"6.{kernel}.1",
                release=f"6.{kernel}.1-amd64",
                tests=tuple(failed(kernel, number) for number in range(tests)),
            )
            for kernel in range(kernels)
        ),
    )


def _measure(name: str, kernels: int, tests: int) -> None:
    matrix = matrix_of(kernels, tests)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    rendered = REPORTS[name](matrix)
    size = len(rendered) if isinstance(rendered, str) else sum(map(len, rendered))
    seconds = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(f"{name:10} {seconds:6.2f} s CPU {grown:6} MiB {size / 1e6:8.2f} MB", flush=True)


def main() -> None:
    """Measure every report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kernels", type=int, default=50)
    parser.add_argument("--tests", type=int, default=2000)
    options = smoke.parse(parser, {"kernels": 2, "tests": 3})
    context = multiprocessing.get_context("spawn")
    for name in REPORTS:
        process = context.Process(target=_measure, args=(name, options.kernels, options.tests))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{name}: ended with {process.exitcode}")


if __name__ == "__main__":
    main()
