"""A suite run by a real pytest process here, as the host hears it."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

from fake_session import HostSession

from vmtest.matrix.follow import Kernelside
from vmtest.model.kernels import Limits
from vmtest.model.project import KnownFailure, Suite
from vmtest.model.results import TestResult
from vmtest.model.versions import KernelVersion
from vmtest.suites.known import for_guest
from vmtest.suites.payload import pack_suites, suites_root
from vmtest.suites.process import Run, Sink, pytest_argv

LIMITS = Limits(boot=10, silence=200, total=600)


class WatchedSuite:
    """A run of ``suite``, with everything that was told on the way; ``folder`` is for its state."""

    def __init__(self, folder: Path, suite: Suite, known: Sequence[KnownFailure] = ()) -> None:
        self.folder = folder
        self.suite = suite
        root = str(suites_root([self.suite]))
        entries = for_guest(known, KernelVersion.parse("6.1.9"), root, date(2026, 7, 1))
        self.payload = pack_suites([self.suite], [self.suite], {}, entries)
        self.guest = folder / "guest"
        self.session = HostSession({"/tmp/vmtest": self.guest})
        self.started: list[str] = []
        self.results = io.BytesIO()
        self.log = io.BytesIO()
        self.counts: list[int] = []
        self.finished: list[TestResult] = []
        self.listing = folder / "collected.json"
        sink = Sink(
            self.results,
            self.log,
            self.listing,
            lambda tests: self.counts.append(len(tests)),
            self.started.append,
            self.finished.append,
        )
        self.run = Run(self.payload, sink)

    def install(self) -> None:
        self.guest.mkdir()
        unpack = ["tar", "-xf", "-", "-C", str(self.guest)]
        subprocess.run(unpack, input=self.payload.archive, check=True)

    def execute(self, *options: str, limits: Limits = LIMITS) -> None:
        self.install()
        self.execute_installed(*options, limits=limits)

    def execute_installed(self, *options: str, limits: Limits = LIMITS) -> None:
        """Run what is in the guest already."""
        argv = pytest_argv(self.payload, sys.executable, options)
        # A guest has none of the plugins that are installed here, which take 3 s to import.
        variables = argv.index("-i") + 1
        alone = [*argv[:variables], "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", *argv[variables:]]
        self.run.execute(self.session, alone, limits, lambda: None, Kernelside())

    def result(self, name: str) -> TestResult:
        (found,) = (r for r in self.run.results() if r.test.endswith(f"::{name}"))
        return found

    def outcomes(self) -> dict[str, str]:
        return {r.test.split("::")[-1]: r.outcome.value for r in self.run.results()}


class Watched(WatchedSuite):
    """A run of ``text`` as a suite."""

    def __init__(
        self,
        folder: Path,
        text: str,
        known: Sequence[KnownFailure] = (),
        files: Mapping[str, str] | None = None,
    ) -> None:
        tests = folder / "project" / "test_it.py"
        tests.parent.mkdir()
        tests.write_text(textwrap.dedent(text))
        (tests.parent / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        for name, content in (files or {}).items():
            (tests.parent / name).parent.mkdir(exist_ok=True)
            (tests.parent / name).write_text(textwrap.dedent(content))
        super().__init__(folder, Suite("it", tests), known)


Watch = Callable[..., Watched]
