"""What the plugin does in place of pytest's own loop: all tests of a kernel in its guest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from vmtest.api.project import load_config_or_builtin, name_kernels
from vmtest.api.run import Run, run_suites
from vmtest.api.suites import SuitesRequest
from vmtest.errors import InfrastructureError, UsageError, VmtestError
from vmtest.matrix.runner import Stop
from vmtest.model.events import Event, KernelFinished, TestFinished
from vmtest.model.project import Config, Suite, network_of
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.model.text import one_line
from vmtest.model.versions import unique
from vmtest.plugin import reports
from vmtest.plugin.items import MARK, KernelItem, files_of

_INFRASTRUCTURE = 3
_NOTHING_TO_SAY = (Status.PASSED, Status.CANCELLED)
_OPTIONS = {"kernels": "--vmtest-kernel", "objects": "--vmtest-object", "jobs": "--vmtest-jobs"}


class Guests:
    """The plugin of one pytest session, for the kernels that ``--vmtest-kernel`` named."""

    def __init__(self, config: pytest.Config, patterns: Sequence[str]) -> None:
        if config.getoption("numprocesses", None):
            raise pytest.UsageError(
                "-n runs tests in processes of this host; with --vmtest-kernel leave it out: the "
                "kernels run at once by themselves (--vmtest-jobs)"
            )
        if config.getoption("setuponly") or config.getoption("setupplan"):
            raise pytest.UsageError(
                "--setup-only and --setup-plan show what pytest would do here; with "
                "--vmtest-kernel there is: --collect-only"
            )
        if config.getoption("usepdb"):
            raise pytest.UsageError(
                "--pdb needs the test here; for a shell in the guest of a failed test there is: "
                "vmtest run --shell-on-failure"
            )
        self._config = config
        self._patterns = patterns
        self._left: dict[tuple[str, str], KernelItem] = {}
        self._failed: set[str] = set()
        self._really_failed = False
        self._infrastructure = False
        self._stop = Stop()
        self._run: Run | None = None
        with _told():
            self._settings = load_config_or_builtin()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Each test once a kernel, before -k, -m and --lf choose."""
        marked = any(item.get_closest_marker(MARK) for item in items)
        with _told():
            kernels = name_kernels(self._settings, self._patterns, marked)
            items[:] = [
                KernelItem.of(item, kernel, version)
                for item in items
                for kernel, version in kernels.items()
            ]
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:  # it has counted what was collected
            terminal._numcollected = len(items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run what was chosen; raises what pytest's own loop raises."""
        option = session.config.option
        if session.testsfailed and not option.continue_on_collection_errors:
            raise session.Interrupted(f"{session.testsfailed} error(s) during collection")
        if option.collectonly:
            return True
        chosen = [item for item in session.items if isinstance(item, KernelItem)]
        for item in chosen:
            if item.unwanted:
                reports.tell(item, reports.skipped(item, item.unwanted))
        wanted = [item for item in chosen if not item.unwanted]
        if wanted:
            self._in_guests(session, wanted)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        return True

    def _in_guests(self, session: pytest.Session, items: Sequence[KernelItem]) -> None:
        self._left = {(item.kernel, item.original.nodeid): item for item in items}
        root = self._config.rootpath
        with _told():
            names = {file: _suite_name(file, root) for file in files_of(items)}
        tests: dict[str, set[tuple[str, str]]] = {}
        for item in items:
            named = (names[item.original.path], item.original.nodeid)
            tests.setdefault(item.kernel, set()).add(named)
        settings = _with_suites(self._settings, names, root)
        request = SuitesRequest(
            kernels=tuple(tests),
            objects=tuple(self._config.getoption("vmtest_objects")),
            options=self._passed_on(),
            narrowed=True,
            jobs=self._config.getoption("vmtest_jobs"),
            tests={kernel: frozenset(names) for kernel, names in tests.items()},
        )

        def hear(event: Event) -> None:
            if isinstance(event, TestFinished):
                self._finished(event.kernel, event.result)
            elif isinstance(event, KernelFinished):
                self._ended(event.result)
            if session.shouldfail or session.shouldstop:
                self._stop.request()

        with _told():
            self._run = run_suites(settings, request, hear, stop=self._stop)
        if self._run.matrix.interrupted and not self._stop.requested:
            raise KeyboardInterrupt

    def _passed_on(self) -> tuple[str, ...]:
        option = self._config.option
        first = (f"--maxfail={option.maxfail}",) if option.maxfail else ()
        settings = (f"--override-ini={one}" for one in option.override_ini or ())
        return (*first, *settings, *shlex.split(option.vmtest_args))

    def _finished(self, kernel: str, result: TestResult) -> None:
        for item in self._concerned(kernel, result.test):
            told = reports.of_result(item, result)
            if any(report.failed for report in told):
                self._failed.add(kernel)
            if result.outcome.bad or result.outcome is Outcome.LOST:
                self._really_failed = True
            reports.tell(item, told)

    def _concerned(self, kernel: str, test: str) -> list[KernelItem]:
        """The items that a result is about, each once: a test, or all that a module has left.

        In a guest a module may be skipped, or fail, before its tests are known.  Of a test that
        a plugin had run twice the first result is told.
        """
        known = [(kernel, test)]
        if (kernel, test) not in self._left:
            known = [
                key for key in self._left if key[0] == kernel and key[1].startswith(f"{test}::")
            ]
        return [self._left.pop(key) for key in known if key in self._left]

    def _ended(self, result: KernelResult) -> None:
        if self._stop.requested or result.status is Status.CANCELLED:
            return
        for test in result.tests:
            if test.outcome is Outcome.NOT_RUN and not test.message:
                test = replace(test, message=f"{result.status}: {result.reason}")
            self._finished(result.kernel, test)
        ours = result.status in (Status.BOOT_FAILED, Status.INFRA_ERROR)
        self._infrastructure = self._infrastructure or ours
        self._really_failed = self._really_failed or not (ours or result.status is Status.PASSED)
        why = f"{result.kernel}: {result.status}: {result.reason}"
        for (kernel, _), item in list(self._left.items()):
            if kernel == result.kernel:
                del self._left[kernel, item.original.nodeid]
                self._failed.add(kernel)
                reports.tell(item, reports.not_run(item, why))
        if result.status not in _NOTHING_TO_SAY and result.kernel not in self._failed:
            reports.tell_of_kernel(self._config, result.kernel, why)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Exit with 3 when a kernel could not be had or booted, and nothing else failed."""
        only = self._infrastructure and not self._really_failed
        if only and exitstatus == pytest.ExitCode.TESTS_FAILED:
            session.exitstatus = _INFRASTRUCTURE

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the logs are, and what there is to act on."""
        if self._run is not None:
            for note in self._run.matrix.notes:
                terminalreporter.write_line(f"vmtest: note: {one_line(note, 1000)}")
            terminalreporter.write_line(f"vmtest: logs of the kernels: {self._run.folder}")


def _with_suites(settings: Config, files: Mapping[Path, str], root: Path) -> Config:
    """``settings`` whose suites are ``files`` by name, with what its own suites take along."""
    own = settings.suites
    at_home = [suite for suite in own if suite.root == root]
    template = at_home[0] if at_home else Suite("", root, ())
    template = replace(
        template,
        objects=unique(name for suite in own for name in suite.objects),
        network=network_of(own),
        root=root,
    )
    suites = tuple(replace(template, name=name, tests=file) for file, name in files.items())
    return replace(settings, suites=suites)


def _suite_name(file: Path, root: Path) -> str:
    if not file.is_relative_to(root):
        raise UsageError(
            f"{file} is not below pytest's rootdir {root}, which goes into the guests as a whole; "
            "name a folder above both with --rootdir"
        )
    return file.relative_to(root).as_posix()


@contextmanager
def _told() -> Iterator[None]:
    """vmtest's errors as pytest has them."""
    try:
        yield
    except InfrastructureError as error:
        pytest.exit(f"vmtest: {_words(error)}", _INFRASTRUCTURE)
    except UsageError as error:
        raise pytest.UsageError(f"vmtest: {_words(error)}") from error


def _words(error: VmtestError) -> str:
    return re.sub(r"`([a-z]+)`", lambda match: _OPTIONS.get(match[1], match[0]), str(error))
