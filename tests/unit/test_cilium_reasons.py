"""What cilium/ebpf itself says, as its releases said it of objects here, and what that means.

Recorded in Debian's kernels with the loader of `vmtest verify --loader cilium`, of cilium/ebpf
0.9.1, 0.11.0 and 0.22.0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_reasons import Answers

from vmtest.guest.failures import Failure, MapShape
from vmtest.guest.loader.ciliumrules import of_cilium
from vmtest.guest.loader.reasons import Reason

FILE = Path(__file__).parent / "data" / "cilium" / "messages.jsonl"
MESSAGES: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines()]


def named(message: dict[str, Any]) -> str:
    return f"{message['release']}-{message['object']}-{message['program'] or 'whole'}"


def reason_of(message: dict[str, Any]) -> Reason | None:
    failure = Failure(
        message["errno"],
        log=message["log"],
        program_type=message["type"],
        attach_type=message["attach_type"],
        maps=tuple(MapShape(*shape) for shape in message["maps"]),
    )
    return of_cilium(message["text"], failure, Answers(symbols={}))


@pytest.mark.parametrize("message", MESSAGES, ids=named)
def test_a_message_has_the_code_that_its_object_is_for(message: dict[str, Any]) -> None:
    found = reason_of(message)
    assert found is not None
    assert (found.code, message["words"] in found.text) == (message["code"], True), found
    assert found.evidence.startswith(f"log: {message['text']}")
    assert found.remedy


def test_the_messages_are_of_several_releases_and_codes() -> None:
    assert {message["release"] for message in MESSAGES} == {"0.9.1", "0.11.0", "0.22.0"}
    assert len({message["code"] for message in MESSAGES}) > 8


@pytest.mark.parametrize(
    "text",
    [
        "program p: load program: permission denied",
        "program p: load program: invalid argument (BTF disabled)",
        "map seen: something that nobody said before",
    ],
)
def test_what_the_verifier_says_and_what_is_new_has_no_rule(text: str) -> None:
    assert of_cilium(text, Failure("EACCES"), Answers()) is None
