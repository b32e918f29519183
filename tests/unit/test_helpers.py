"""The table of helpers: as the header and the real bpftool have them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from vmtest.guest import helpers
from vmtest.host.cache import find_tool

HEADER = Path("/usr/include/linux/bpf.h")


def test_the_names_and_numbers_are_the_headers() -> None:
    if not HEADER.exists():
        pytest.skip(f"this host has no {HEADER}")
    text = HEADER.read_text()
    # Before 6.2 the numbers are the places in the list, from 0 on; then they are written.
    told = re.findall(r"^\tFN\((\w+)(?:, (\d+))?", text, re.MULTILINE)
    numbers = {name: int(number or place) for place, (name, number) in enumerate(told)}
    assert len(numbers) > 200
    for name, number in numbers.items():
        if name != "unspec":
            assert helpers.name_of(number) == f"bpf_{name}"


def test_the_names_are_bpftools_whatever_its_list_begins_with() -> None:
    if (bpftool := find_tool("bpftool")) is None:
        pytest.skip("this host has no bpftool")
    listed = [bpftool, "feature", "list_builtins", "helpers"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    known = [name for name in names if name != "bpf_unspec"]
    assert known == [helpers.name_of(number) for number in range(1, len(known) + 1)]


def test_a_helper_has_the_version_that_it_came_with() -> None:
    assert helpers.since("bpf_loop") == "5.17"
    assert helpers.since("bpf_never_was") is None
    assert helpers.name_of(0) is None
    assert helpers.name_of(10_000) is None
