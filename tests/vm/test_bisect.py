"""``vmtest bisect`` over real kernels: the first that has a kfunc, and how to see it again."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from command import Said, vmtest
from real_kernels import PROJECT, image_of

from vmtest import config as configuration
from vmtest.bisection import JOURNAL
from vmtest.model import RootImage
from vmtest.objects import build_all

CONFIG = """
schema = 1
[guest]
root = "{root}"
[apt.debian]
suites = ["bullseye-security", "bookworm-security", "trixie-security"]
[[kernel]]
name = "6.1"
apt = "debian"
version = "6.1.*"
suites = ["bookworm-security"]
"""
KFUNC = "kfunc.bpf.o:reads_by_pointer"


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    root: RootImage,
    settings: configuration.Config,
    cache: Path,
) -> Path:
    for name in ("5.10", "6.1", "6.12"):
        image_of(name, settings, cache)  # what --cached will find
    made = tmp_path_factory.mktemp("bisect")
    build_all(PROJECT / "tests" / "verify", made)
    (made / "kernels.toml").write_text(CONFIG.format(root=root.path))
    return made


@pytest.fixture(scope="module")
def said(folder: Path) -> Said:
    ends = ("--bad", "5.10", "--good", "6.12", "--find", "fixed", "--cached")
    return vmtest("bisect", *ends, "--verify", KFUNC, "--jobs", "1", cwd=folder, timeout=900)


@pytest.fixture(scope="module")
def journal(folder: Path, said: Said) -> list[dict[str, Any]]:
    assert said.status == 0, said
    (file,) = folder.glob(f".vmtest/runs/*/{JOURNAL}")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_first_kernel_with_the_kfunc_is_found(journal: list[dict[str, Any]]) -> None:
    # bpf_dynptr_from_skb: 6.4, commit b5964b968ac6; the suites hold nothing between 6.1 and 6.12.
    answer = journal[-1]
    assert (answer["last"][:4], answer["first"][:5]) == ("6.1.", "6.12.")


def test_no_kernel_was_booted_twice(journal: list[dict[str, Any]]) -> None:
    told = [line["kernel"] for line in journal if line["event"] == "told"]
    assert len(told) == len(set(told)) >= 3


def test_the_end_shows_both_verdicts_side_by_side(said: Said) -> None:
    assert re.search(r"\n    6\.1\.\d+ +unsupported \(kfunc\): .*bpf_dynptr_from_skb", said.out)
    assert re.search(r"\n    6\.12\.\d+ +accepted, \d+ instructions", said.out)


def test_a_bisect_is_a_run_that_can_be_reported_with_all_its_rounds(
    folder: Path, journal: list[dict[str, Any]]
) -> None:
    shown = vmtest("report", cwd=folder)
    told = {line["kernel"] for line in journal if line["event"] == "told"}
    assert [name for name in told if name not in shown.out] == []
    assert "UNSUPPORTED" in shown.out
    assert shown.status == 1


def test_the_command_that_it_names_reproduces_an_end(folder: Path, said: Said) -> None:
    named = re.search(r"^  6\.1\.\d+ \(bad\): vmtest (.*)$", said.out, re.MULTILINE)
    assert named is not None, said
    again = vmtest(*shlex.split(named.group(1)), cwd=folder, timeout=600)
    assert again.status == 1, again
    assert "has no kfunc bpf_dynptr_from_skb" in again.out
