"""A host of another shape: its own /etc/os-release, apt sources and keys over ours."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Host:
    """A host's shape: the files that lie over ours, all below ``folder``."""

    folder: Path
    os_release: str
    sources: dict[str, str]
    keyrings: tuple[str, ...] = ()

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` where these files are the host's; skips where that may not be."""
        apt, keys = self.folder / "apt", self.folder / "keyrings"
        for place in (apt / "sources.list.d", keys):
            place.mkdir(parents=True, exist_ok=True)
        (self.folder / "os-release").write_text(self.os_release)
        for name, text in self.sources.items():
            (apt / name).write_text(text)
        for name in self.keyrings:
            (keys / name).touch()
        mounts = {
            self.folder / "os-release": Path("/etc/os-release").resolve(),
            apt: Path("/etc/apt"),
            keys: Path("/usr/share/keyrings"),
        }
        binds = [f"mount --bind {shlex.quote(str(a))} {b}" for a, b in mounts.items()]
        script = " && ".join([*binds, f"exec {shlex.join(command)}"])
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        namespace = ["unshare", "--mount", *user]
        if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
            pytest.skip("a mount namespace of its own may not be made here")
        return subprocess.run(
            [*namespace, "sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **(environment or {})},
        )
