"""The codes of reasons: what the source gives, what the documentation lists, what is cured."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "reference" / "reason-codes.md").read_text(encoding="utf-8")
EXPECTED = tomllib.loads((PROJECT / "tests" / "verify" / "expected.toml").read_text("utf-8"))
MAKERS = {"Reason", "WireReason", "said"}


def called(node: ast.Call) -> str:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else name


def given(tree: ast.Module) -> Iterator[str]:
    """The codes that stand as they are where a reason is made."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or called(node) not in MAKERS:
            continue
        named = [word.value for word in node.keywords if word.arg == "code"]
        for code in (node.args[:1] or named)[:1]:
            choices = (code.body, code.orelse) if isinstance(code, ast.IfExp) else (code,)
            for choice in choices:
                if isinstance(choice, ast.Constant) and isinstance(choice.value, str):
                    yield choice.value


def in_the_source() -> set[str]:
    folders = (PROJECT / "vmtest" / "guest", PROJECT / "vmtest" / "verify")
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    return {code for path in sources for code in given(ast.parse(path.read_text("utf-8")))}


def documented() -> set[str]:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    alone = re.findall(r"^`([a-z-]+)`: ", PAGE, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([a-z-]+)`", row)} | set(alone)


def test_every_code_is_documented_and_every_documented_one_is_given() -> None:
    assert in_the_source() == documented()
    assert len(documented()) > 60


def test_every_code_has_a_program_with_its_remedy_or_says_where_the_cure_is() -> None:
    cured = {entry["code"] for entry in EXPECTED["load"] if "cured" in entry}
    elsewhere = EXPECTED["cured_elsewhere"]
    assert cured | set(elsewhere) == documented()
    assert not cured & set(elsewhere)
    assert all(elsewhere.values())
