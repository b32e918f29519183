"""Tasks that boot nothing, for workers of a cluster: processes of their own, which import this."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from vmtest.matrix.bench import Bench
from vmtest.model.events import TestFinished, TestStarted
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.runs.rows import RESULTS, write_result


@dataclass(frozen=True)
class Rows:
    """``count`` tests that pass, told and written as a suite's are; then ``then`` happens once.

    ``signs`` is a folder in which a task leaves what happened, under the kernel's name.
    """

    count: int = 2
    then: str = ""
    signs: Path | None = None
    objects: tuple[tuple[str, str], ...] = ()
    padding: bytes = b""

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        name, tests = bench.job.kernel.name, []
        with (bench.job.directory / RESULTS).open("wb", buffering=0) as rows:
            for number in range(self.count):
                test = TestResult(f"t.py::{number}", "s", Outcome.PASSED, duration=0.5)
                bench.emit(TestStarted(name, test.test))
                write_result(rows, test)
                bench.emit(TestFinished(name, test))
                tests.append(test)
        (bench.job.directory / "console.log").write_text(f"the console of {name}\n")
        if wheels := [hashlib.sha256(one.tree).hexdigest() for one in bench.job.root.wheels]:
            (bench.job.directory / "wheels").write_text(" ".join(wheels))
        result = replace(result, status=Status.PASSED, tests=tuple(tests))
        self._then(bench, name)
        if bench.cancelled:
            return replace(result, status=Status.CANCELLED, reason="interrupted")
        return result

    def _then(self, bench: Bench, name: str) -> None:
        if not self.then:
            return
        assert self.signs is not None
        sign = self.signs / f"{name}.{self.then}"
        if self.then == "die" and not sign.exists():
            sign.touch()
            # What was said is to be on its way: that is what the test is about.
            while not (self.signs / f"{name}.heard").exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.then == "wait":
            sign.touch()
            while not bench.cancelled:
                time.sleep(0.01)
            (self.signs / f"{name}.cancelled").touch()
        if self.then == "stick":
            while not (self.signs / f"{name}.release").exists():
                time.sleep(0.01)
        if self.then == "break":
            raise KeyError("a bug")
        if self.then == "path":
            place = bench.job.directory / "console.log"
            raise OSError(5, "Input/output error", str(place))
