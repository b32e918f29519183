"""Hosts that make it hard: many runners at once, a project that nobody may write to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import vmtest

pytest_plugins = ("test_cli_bad_input",)


def test_eight_runners_on_an_empty_cache_fill_it_once(
    project: Path, mirrored: Callable[[str], Path]
) -> None:
    mirrored("6.1.*")
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(vmtest, "kernels", "fetch", cwd=project) for _ in range(8)]
        said = [one.result() for one in asked]
    assert [one.status for one in said] == [0] * 8, said
    (kernel,) = (project.parent / "cache" / "kernels").iterdir()
    assert "6.1.10" in kernel.name
    listed = vmtest("kernels", "list", "--json", cwd=project)
    assert json.loads(listed.out)["kernels"][0]["cached"] is True


def test_a_project_that_nobody_may_write_to_is_named(
    project: Path, mirrored: Callable[[str], Path]
) -> None:
    mirrored("6.1.*")
    config = project / "kernels.toml"
    config.write_text(
        config.read_text().replace('command = ["vmtest", "build"]', 'command = ["true"]')
    )
    for arguments in (["--bind", str(project)], ["-o", "remount,ro,bind"]):
        done = subprocess.run(["mount", *arguments, str(project)], capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip("mounting needs root")
    try:
        said = vmtest("run", cwd=project)
    finally:
        subprocess.run(["umount", "--lazy", str(project)], check=True)
    said.refuses(3, ".vmtest", "Read-only file system")
