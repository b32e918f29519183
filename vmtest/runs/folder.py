"""The folder of a run, ``.vmtest/runs/<UTC time>-<hex>/``: what happened, on disk as it happens."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from vmtest.errors import InfrastructureError, UsageError
from vmtest.host.write import Data, write_file

STATE = ".vmtest"
"""The project's folder for everything vmtest writes there."""

BUILD_LOG = f"{STATE}/build.log"
"""What the last ``[build]`` command that failed had said, in the project's folder."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder; a folder a kernel below it."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name, sortable by time."""
        return self.path.name

    def kernel(self, name: str) -> Path:
        """The folder of the kernel ``name``, made when it is not there."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder

    def put_aside(self, name: str, attempt: str) -> None:
        """Move what the kernel ``name`` has written into a folder ``attempt`` of its own."""
        folder = self.kernel(name)
        (folder / attempt).mkdir(exist_ok=True)
        for path in folder.iterdir():
            if path.name != attempt:
                path.rename(folder / attempt / path.name)

    def write(self, name: str, data: Data) -> None:
        """Write the file ``name`` so that a reader sees the whole of it or the old one."""
        write_file(self.path / name, data)

    def become_latest(self) -> None:
        """Have ``.vmtest/latest`` point here; a run that is nowhere in a project changes nothing.

        Raises nothing: the run is complete without it.
        """
        state = self.path.parent.parent
        if self.path.parent.name != "runs" or state.name != STATE:
            return
        link = state / f".latest-{self.name}"
        with suppress(OSError):
            link.unlink(missing_ok=True)
            link.symlink_to(Path("runs") / self.name)
            link.rename(state / "latest")

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Write run.json."""
        self.write("run.json", described(facts))


def described(facts: Mapping[str, Any]) -> str:
    """``facts`` as run.json has them."""
    return json.dumps(facts, indent=1, sort_keys=True) + "\n"


def utc_today() -> date:
    """Today's date, UTC."""
    return datetime.now(UTC).date()


def utc_now(precision: str = "seconds") -> str:
    """The time, UTC, ISO 8601, to the second or to ``milliseconds``."""
    return datetime.now(UTC).isoformat(timespec=precision)


def create(project: Path) -> RunFolder:
    """A new run folder in ``project``; raises InfrastructureError when it cannot be written.

    ``.vmtest/latest`` points to it once something ran: ``become_latest``.
    """
    state = project / STATE
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = state / "runs" / f"{stamp}-{secrets.token_hex(3)}"
    try:
        path.mkdir(parents=True)
        (state / ".gitignore").write_text("*\n")
    except OSError as error:
        raise InfrastructureError(
            f"cannot write the run's folder {path}: {error.strerror}; "
            "make room or make the project's folder writable"
        ) from error
    return RunFolder(path)


def kept(project: Path) -> list[RunFolder]:
    """The runs of ``project``, the oldest first; none where there is no such folder."""
    try:
        paths = sorted((project / STATE / "runs").iterdir())
    except OSError:
        return []
    return [RunFolder(path) for path in paths if path.is_dir()]


def before(folder: RunFolder) -> list[RunFolder]:
    """The runs that its project began before this one, the oldest first."""
    state = folder.path.parent.parent
    if state.name != STATE:
        return []
    return [run for run in kept(state.parent) if run.name < folder.name]


def find(project: Path, run: str | None) -> RunFolder:
    """The run called ``run`` (a name, its beginning, or a path), the latest without; UsageError."""
    runs = project / STATE / "runs"
    if run is None:
        latest = project / STATE / "latest"
        if not latest.exists():
            nothing = f" (of {len(kept(project))} that are kept none ran anything)"
            raise UsageError(
                f"there is no run in {project / STATE} yet{nothing if kept(project) else ''}; "
                "start one with: vmtest run"
            )
        return RunFolder(latest.resolve())
    if Path(run).is_dir():
        return RunFolder(Path(run).resolve())
    found = sorted(runs.glob(f"{run}*")) if runs.is_dir() and "/" not in run else []
    if len(found) == 1:
        return RunFolder(found[0])
    if found:
        raise UsageError(
            f'"{run}" is the beginning of {len(found)} runs in {runs}; write more of it'
        )
    recent = ", ".join(path.name for path in sorted(runs.glob("*"))[-3:]) or "none"
    raise UsageError(f'there is no run "{run}" in {runs} (the latest: {recent})')


LOG = "command.log"
"""The file in a kernel's folder that holds all the command wrote."""
PROBE = "feature-probe.txt"
"""The file in a kernel's folder that holds the output of ``bpftool feature probe``."""
JUNIT_COPY = "command.xml"
"""The file in a kernel's folder that holds the JUnit file of the command's."""
