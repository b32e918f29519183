"""What the workflows of this repository do, where the rest of it has to agree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vmtest.config import file as configuration
from vmtest.config import presets

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / ".github/workflows/kernels.yml"


def test_every_preset_boots_once_a_week() -> None:
    block = KERNELS.read_text(encoding="utf-8").partition("        preset:\n")[2]
    listed = re.match(r"(?: {10}- \S+\n)+", block)
    assert listed is not None
    assert [line.split()[1] for line in listed[0].splitlines()] == list(presets.presets())


def prepared(folder: Path, preset: str, **variables: str) -> str:
    """What .ci/preset.py tells the workflow, run in ``folder``."""
    (folder / "kernels.toml").write_text((ROOT / "kernels.toml").read_text())
    output = folder / "output"
    environment = {"VARIABLES": json.dumps(variables), "GITHUB_OUTPUT": str(output)}
    command = [sys.executable, str(ROOT / ".ci/preset.py"), preset]
    subprocess.run(command, cwd=folder, env={**os.environ, **environment}, check=True)
    return output.read_text().strip()


def test_a_preset_gets_the_suites_of_this_repository_and_only_its_own_kernels(
    tmp_path: Path,
) -> None:
    mirror = {"VMTEST_EL9_MIRROR": "https://example.org/9", "VMTEST_EL9_KEY": "a key"}
    assert prepared(tmp_path, "el9", **mirror) == "ready=true"
    config = configuration.load(tmp_path / "preset.toml")
    assert [kernel.name for kernel in config.kernels] == ["el9"]
    assert "log" in [suite.name for suite in config.suites]
    archive = tomllib.loads((tmp_path / "preset.toml").read_text())["dnf"]["el9"]
    assert archive["mirror"] == "https://example.org/9"
    assert Path(archive["keyring"]).read_text() == "a key\n"


def test_a_preset_without_a_mirror_boots_nothing_and_is_no_fault(tmp_path: Path) -> None:
    assert prepared(tmp_path, "el9") == "ready=false"


@pytest.mark.parametrize(
    "file",
    [*(ROOT / ".github/workflows").glob("*.yml"), ROOT / "action.yml"],
    ids=lambda file: file.name,
)
def test_actions_are_pinned_by_commit(file: Path) -> None:
    """A tag can be moved to other code."""
    used = re.findall(r"^\s*(?:- )?uses: (.*)$", file.read_text(), re.MULTILINE)
    assert used
    assert [one for one in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v[\d.]+", one)] == []
