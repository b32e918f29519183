"""The GitHub Action: its inputs, the command that they come to, and its comment."""

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
    passed = set(re.findall(r"^        ([A-Z_]+): \$\{\{ inputs\.", text, re.MULTILINE)) - {"NAME"}
    assert passed == {"COMMAND", *INPUTS}


GH = """#!/usr/bin/env python3
import json, pathlib, sys
store = pathlib.Path(__file__).with_name("comments.json")
comments = json.loads(store.read_text())
words = sys.argv[1:]
method = words[words.index("--method") + 1] if "--method" in words else "GET"
place = next(word for word in words if word.startswith("repos/"))
body = next((word[5:] for word in words if word.startswith("body=")), None)
if method == "GET":
    print(json.dumps(comments))
elif method == "POST":
    comments.append({"id": 99, "body": body})
else:
    (found,) = (one for one in comments if place.endswith(f"/issues/comments/{one['id']}"))
    if method == "PATCH":
        found["body"] = body
    else:
        comments.remove(found)
store.write_text(json.dumps(comments))
"""
OTHER = {"id": 1, "body": "coverage: 93%"}
OURS = {"id": 2, "body": "<!-- vmtest: run -->\nold"}
LATER = {"id": 3, "body": "another job"}


@pytest.fixture
def pull_request(tmp_path: Path) -> Path:
    """A program in the place of gh, which keeps the comments of a pull request here."""
    program = tmp_path / "gh"
    program.write_text(GH)
    program.chmod(0o755)
    return tmp_path


def commented(folder: Path, before: list[dict[str, object]], text: str | None) -> list[object]:
    (folder / "comments.json").write_text(json.dumps(before))
    file = folder / "comment.md"
    if text is not None:
        file.write_text(text)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "FILE": "" if text is None else str(file),
        "NAME": "run",
        "PR": "7",
        "GH_REPO": "o/r",
    }
    script = ROOT / ".github" / "comment.sh"
    subprocess.run(["bash", str(script)], env=environment, check=True)
    after: list[object] = json.loads((folder / "comments.json").read_text())
    return after


def test_the_first_comment_is_made(pull_request: Path) -> None:
    made = {"id": 99, "body": "<!-- vmtest: run -->\n2 failed"}
    assert commented(pull_request, [OTHER], "2 failed") == [OTHER, made]


def test_our_comment_is_renewed_and_no_other(pull_request: Path) -> None:
    renewed = {"id": 2, "body": "<!-- vmtest: run -->\n2 failed"}
    assert commented(pull_request, [OTHER, OURS, LATER], "2 failed") == [OTHER, renewed, LATER]


def test_our_comment_goes_when_there_is_nothing_to_say(pull_request: Path) -> None:
    assert commented(pull_request, [OTHER, OURS, LATER], "") == [OTHER, LATER]


def test_nothing_of_others_goes_when_there_is_nothing_to_say(pull_request: Path) -> None:
    assert commented(pull_request, [OTHER, LATER], "") == [OTHER, LATER]


def test_a_run_that_came_to_nothing_leaves_the_comment(pull_request: Path) -> None:
    assert commented(pull_request, [OTHER, OURS], None) == [OTHER, OURS]
