"""The order of .rpm versions is rpm's own."""

from __future__ import annotations

import itertools
import subprocess

import pytest

from vmtest.host.cache import find_tool
from vmtest.kernels.dnf.version import RpmVersion

PARTS = (
    "1.0",
    "1.00",
    "1.0.1",
    "1.0~rc1",
    "1.0~~",
    "1.0^git1",
    "1.0^",
    "1.0a",
    "1.a",
    "10",
    "9",
    "a",
    "A",
    "2_0",
    "2.0",
    "427.13.1.el9_4",
    "427.el9",
    "150600.23.7.3",
    "0007",
    "7",
    "99999999999999999999999999",
    "1.0.",
)


def test_of_two_versions_the_newer_one_is_the_one_that_rpm_takes() -> None:
    rpm = find_tool("rpm")
    if rpm is None:
        pytest.skip("rpm is not installed on this host")
    pairs = list(itertools.product(PARTS, PARTS))
    lua = "".join(f'print(rpm.vercmp("{one}", "{other}"), " ")' for one, other in pairs)
    done = subprocess.run(
        [rpm, "--eval", f"%{{lua: {lua}}}"], check=True, capture_output=True, text=True
    )
    theirs = [int(word) for word in done.stdout.split()]
    ours = [RpmVersion(f"1-{one}").compare(RpmVersion(f"1-{other}")) for one, other in pairs]
    assert dict(zip(pairs, ours, strict=True)) == dict(zip(pairs, theirs, strict=True))


def test_an_epoch_goes_before_all_and_a_release_comes_last() -> None:
    texts = ["6.1-9", "6.12-1", "6.12-10", "1:5.0-1"]
    versions = [RpmVersion(text) for text in texts]
    assert sorted(reversed(versions)) == versions


def test_versions_that_rpm_takes_for_equal_are_one_in_a_set() -> None:
    assert len({RpmVersion("0:1.0-1"), RpmVersion("1.00-01")}) == 1
