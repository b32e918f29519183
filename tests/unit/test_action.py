"""The GitHub Action: its inputs, and the command that they come to."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".github" / "action.sh"
INPUTS = ("KERNELS", "SUITES", "OBJECTS", "BASELINE", "FAIL_ON", "SHARD", "ARGUMENTS")


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A program in vmtest's place that writes its arguments into this file."""
    program = tmp_path / "vmtest"
    listing = tmp_path / "arguments.json"
    program.write_text(
        f"#!/usr/bin/env python3\nimport json, sys\n"
        f"json.dump(sys.argv[1:], open({str(listing)!r}, 'w'))\n"
    )
    program.chmod(0o755)
    return listing


def command(told: Path, name: str, **inputs: str) -> list[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "VMTEST": str(told.parent / "vmtest"),
        "JUNIT": "junit.xml",
        "COMMAND": name,
        **dict.fromkeys(INPUTS, ""),
        **inputs,
    }
    subprocess.run(["bash", str(SCRIPT)], env=environment, check=True, cwd=told.parent)
    words: list[str] = json.loads(told.read_text())
    assert words[:3] == [name, "--junit", "junit.xml"]
    return words[3:]


def test_without_inputs_it_is_the_plain_command(told: Path) -> None:
    assert command(told, "run") == []


def test_each_line_is_a_value(told: Path) -> None:
    words = command(told, "run", KERNELS="6.12\n  >=6.1,<6.12 \n\n", SUITES="one\n")
    assert words == ["--kernel", "6.12", "--kernel", ">=6.1,<6.12", "--suite", "one"]


def test_objects_of_verify_are_its_arguments(told: Path) -> None:
    words = command(told, "verify", OBJECTS="a.o\nb c.o", BASELINE="b.json", FAIL_ON="rejected")
    assert words == ["--baseline", "b.json", "--fail-on", "rejected", "a.o", "b c.o"]


def test_objects_of_run_are_builds(told: Path) -> None:
    assert command(told, "run", OBJECTS="mine=a.o") == ["--object", "mine=a.o"]


def test_nothing_in_an_input_is_run(told: Path) -> None:
    words = command(
        told, "run", KERNELS="$(touch hurt)", ARGUMENTS="-k 'a or b' $(touch hurt) `id`"
    )
    assert words[:2] == ["--kernel", "$(touch hurt)"]
    assert words[2:6] == ["-k", "a or b", "$(touch", "hurt)"]
    assert not (told.parent / "hurt").exists()


def test_every_input_reaches_the_script() -> None:
    text = (ROOT / "action.yml").read_text()
    passed = set(re.findall(r"^        ([A-Z_]+): \$\{\{ inputs\.", text, re.MULTILINE))
    assert passed == {"COMMAND", *INPUTS}
