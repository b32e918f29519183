"""Running the real command in a subprocess, and what every error of it must keep to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MOST_LINES = 15


@dataclass(frozen=True)
class Said:
    """What a command ended with."""

    status: int
    out: str
    err: str

    def refuses(self, status: int, *parts: str) -> None:
        """Assert an error: its status, no traceback, short, with every one of ``parts``."""
        assert self.status == status, self
        assert "Traceback" not in self.out + self.err, self.err
        assert len(self.err.splitlines()) <= MOST_LINES, self.err
        for part in parts:
            assert part in self.err, f"{part!r} is not in:\n{self.err}"


def vmtest(
    *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None, timeout: float = 300
) -> Said:
    """Run ``vmtest`` with ``arguments`` in ``cwd``."""
    done = subprocess.run(
        [sys.executable, "-m", "vmtest", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)
