"""No wait of vmtest's follows the clock that an administrator, or NTP, may step."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vmtest

ROOT = Path(vmtest.__file__).parent

STAMPS = {
    "api/history.py": "how old runs are",
    "cli/kernels/prune.py": "how old entries are",
    "cli/runs.py": "how old runs are",
    "cluster/worker.py": "how old is what nobody fetched",
    "kernels/archive/kept.py": "when an index was read",
    "rootfs/libbpf.py": "when the newest version was asked for",
    "host/cache.py": "how old a record is",
    "vm/accel.py": "when a probe was made",
    "vm/machine.py": "the date that a guest is told",
    "vm/snapshot.py": "when a guest was saved",
}
"""Where the date is meant, which the clock has; a record from the future is asked for again."""


def asks_for_the_date(source: str) -> bool:
    """Whether it calls ``time.time`` or ``time.time_ns``, under whatever name."""
    dates = {"time", "time_ns"}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr=attribute) if attribute in dates:
                return True
            case ast.ImportFrom(module="time", names=names) if dates & {n.name for n in names}:
                return True
    return False


def test_every_wait_and_limit_is_of_the_clock_that_nobody_steps() -> None:
    found = {
        str(file.relative_to(ROOT))
        for file in ROOT.rglob("*.py")
        if asks_for_the_date(file.read_text(encoding="utf-8"))
    }
    assert found - STAMPS.keys() == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import time\ntime.time()", True),
        ("import time\nclock = time.time_ns", True),
        ("from time import time as now", True),
        ("import time\ntime.monotonic()", False),
        ("from time import monotonic", False),
    ],
)
def test_a_clock_that_may_be_stepped_is_found(source: str, expected: bool) -> None:
    assert asks_for_the_date(source) == expected
