"""Every benchmark still runs: both sides once, as small as they can be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from real_kernels import PROJECT, image_of

from vmtest.model.project import Config

BENCHMARKS = PROJECT / "benchmarks"
RUNS = {
    "bisected_kernels.py": [["--smoke"]],
    "cluster.py": [["--smoke"]],
    "datapath.py": [["--smoke"]],
    "limit.py": [["--smoke"]],
    "load.py": [["--smoke"]],
    "matrix.py": [["--smoke"]],
    "reasons.py": [["smoke"]],
    "reports.py": [["--smoke"]],
    "snapshots.py": [["--smoke"]],
    "soak.py": [["--smoke"], ["--cold", "--smoke"]],
    "transport.py": [["--smoke"]],
    "watch.py": [["--smoke"]],
    "verify.py": [["--smoke"], ["--matrix", "--smoke"]],
}
CASES = [(name, options) for name, runs in RUNS.items() for options in runs]


@pytest.fixture(scope="module", autouse=True)
def kernels(settings: Config, cache: Path) -> None:
    """Brings the kernels into the cache that `bisected_kernels.py --smoke` asks of it."""
    for name in ("6.1", "6.12"):
        image_of(name, settings, cache)


@pytest.mark.parametrize(("name", "options"), CASES, ids=[" ".join((n, *o)) for n, o in CASES])
def test_a_benchmark_runs(name: str, options: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *options],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert done.stdout.strip()


def test_every_benchmark_is_among_them() -> None:
    assert {path.name for path in BENCHMARKS.glob("*.py")} - {"smoke.py"} == set(RUNS)
