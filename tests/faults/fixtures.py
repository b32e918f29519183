"""What tests of faults have beside their own claims: nothing is left, and when it was noticed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults import left
from tests.faults.rows import tests_of_faults
from vmtest.runs.events import Stamped, read_events

NOTICED = "noticed"
"""The property of a test in JUnit: the seconds from the injection until vmtest had noticed."""
LEFT = "left"
"""The property of a test in JUnit that looked for what is left, and found nothing."""


def events_of(project: Path) -> tuple[Stamped, ...]:
    """What the project's last run has told so far, also if it came to nothing."""
    runs = sorted((project / ".vmtest" / "runs").glob("*"), key=lambda run: run.stat().st_mtime_ns)
    return read_events(runs[-1]) if runs else ()


@dataclass(frozen=True)
class Noticed:
    """Puts down how many seconds passed from the injection of a fault until it was noticed."""

    properties: list[tuple[str, Any]]

    def after(self, seconds: float) -> None:
        """It was noticed after ``seconds``."""
        self.properties.append((NOTICED, f"{seconds:.2f}"))

    @contextmanager
    def here(self) -> Iterator[None]:
        """It is injected where this begins, and noticed where this ends."""
        began = time.monotonic()
        yield
        self.after(time.monotonic() - began)

    def in_run(self, project: Path, begins: str, kernel: str | None = None) -> None:
        """By the events of the project's last run.

        It is injected when the test ``begins`` begins, or at an event of this name; it is noticed
        when that test is given up, or the kernel (the only one, or ``kernel``) as a whole.
        """
        began = None
        for event in events_of(project):
            if kernel is not None and event.kernel != kernel:
                continue
            test = event.test.rpartition("::")[2].partition("[")[0]
            if began is None and begins in (event.event, test):
                began = event.at
            elif began is not None and (
                event.event == "finished" or (event.event == "test finished" and test == begins)
            ):
                self.after(event.at - began)
                return
        raise AssertionError(f"the run's events say not both when {begins} began and ended")


@pytest.fixture
def noticed(request: pytest.FixtureRequest) -> Noticed:
    """Puts down how soon a fault was noticed: see ``python -m tests.faults``."""
    return Noticed(request.node.user_properties)


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test of faults.toml that leaves something behind."""
    leaves = tests_of_faults().get(request.node.nodeid.partition("[")[0])
    if leaves is None:
        yield
        return
    own: Path = request.getfixturevalue("tmp_path")  # and so that lies outside of the TMPDIR
    with left.watched(own, leaves) as before:
        yield
        found = before.wait(left.PATIENCE)
    if found:
        pytest.fail("\n".join(["the test left behind:", *found]), pytrace=False)
    request.node.user_properties.append((LEFT, "nothing"))
