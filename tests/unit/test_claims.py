"""Every test of the repository can fail: it asserts something, whatever it finds.

Read from the sources. A test that calls a helper which asserts does so itself; helpers are
known by name. An assertion only counts where it is certain to be reached: not below an ``if``
without ``else`` or an ``except``, and not for each of something that may be empty.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
Function = ast.FunctionDef | ast.AsyncFunctionDef

RAISING = frozenset({"raises", "warns", "fail", "raises_only"})
"""What makes a test fail: pytest's own, and that of test_parsers_any.py."""

RAISES_NOTHING = frozenset(
    {
        "test_a_damaged_object_is_read_or_refused",
        "test_a_program_that_is_there_is_taken",
        "test_ends_that_differ_as_asked_are_accepted",
        "test_no_bytes_raise_anything_else",
        "test_no_json_raises_anything_else",
        "test_no_value_in_an_events_place_raises_anything_else",
        "test_such_modules_boot_in_a_plain_folder",
        "test_the_list_of_this_project_is_valid",
    }
)
"""Tests whose claim is that nothing, or nothing else, is raised."""


def called(node: ast.AST) -> Iterator[str]:
    """What is called in ``node``: ``name``, or ``.name`` for a method."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name):
            yield inner.func.id
        elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
            module = ast.unparse(inner.func.value) == "pytest"
            yield inner.func.attr if module else f".{inner.func.attr}"


def filled(looped: ast.expr) -> bool:
    """Whether what a loop goes over is certainly something: it is written out, or counted."""
    match looped:
        case ast.Tuple() | ast.List() | ast.Set() | ast.Dict():
            return True
        case ast.Constant():
            return bool(looped.value)
        case ast.BinOp():
            return filled(looped.left) or filled(looped.right)
        case ast.Call(func=ast.Name(id="range")):
            return True
        case ast.Call(func=ast.Name(id="zip" | "enumerate" | "sorted" | "product")):
            return any(filled(argument) for argument in looped.args)
        case ast.Call(func=ast.Attribute(attr="items" | "values", value=owner)):
            return filled(owner)
    return False


def vacuous(test: ast.expr) -> bool:
    """Whether it is true of an empty list: ``all(... for ... in found)``."""
    if not (isinstance(test, ast.Call) and ast.unparse(test.func) == "all"):
        return False
    looped = test.args[0]
    return isinstance(looped, ast.GeneratorExp) and not filled(looped.generators[0].iter)


def claims(node: ast.AST, asserting: frozenset[str]) -> bool:
    """Whether ``node`` asserts, or calls something that does."""
    return not asserting.isdisjoint(called(node)) or any(
        isinstance(inner, ast.Assert) and not vacuous(inner.test) for inner in ast.walk(node)
    )


def certain(body: Iterable[ast.stmt], asserting: frozenset[str]) -> bool:
    """Whether running ``body`` is certain to reach an assertion."""
    return any(_reaches(statement, asserting) for statement in body)


def _reaches(statement: ast.stmt, asserting: frozenset[str]) -> bool:
    match statement:
        case ast.If():
            return certain(statement.body, asserting) and certain(statement.orelse, asserting)
        case ast.Try():
            blocks = (*statement.body, *statement.orelse, *statement.finalbody)
            return certain(blocks, asserting)
        case ast.For():
            return filled(statement.iter) and certain(statement.body, asserting)
        case ast.With():
            heads = [item.context_expr for item in statement.items]
            return certain(statement.body, asserting) or any(claims(h, asserting) for h in heads)
        case ast.FunctionDef() | ast.ClassDef():
            return False
    return claims(statement, asserting)


def helpers(trees: Iterable[ast.AST]) -> frozenset[str]:
    """What asserts when it is called: functions, fixtures' methods as ``.name``."""
    every: list[tuple[str, Function]] = []
    for tree in trees:
        for node in ast.walk(tree):
            dot = "." if isinstance(node, ast.ClassDef) else ""
            if isinstance(node, ast.Module | ast.ClassDef):
                every += [(dot + f.name, f) for f in node.body if isinstance(f, Function)]
    found = RAISING
    while True:
        more = {name for name, f in every if name not in found and claims(f, found)}
        if not more:
            return found
        found |= more


def cases_of(tree: ast.AST) -> Iterator[Function]:
    """The tests of a file, also those in classes."""
    for node in ast.walk(tree):
        if isinstance(node, Function) and node.name.startswith("test_"):
            yield node


TREES = {path: ast.parse(path.read_text()) for path in sorted(TESTS.rglob("*.py"))}
FILES = [path for path in TREES if path.name.startswith("test_")]


@pytest.fixture(scope="module")
def asserting() -> frozenset[str]:
    return helpers(TREES.values())


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test_can_fail(file: Path, asserting: frozenset[str]) -> None:
    found = [test for test in cases_of(TREES[file]) if test.name not in RAISES_NOTHING]
    vain = [f"{t.name} (line {t.lineno})" for t in found if not certain(t.body, asserting)]
    assert not vain, "these tests can pass without asserting anything"
    assert found, "the file has no test"


def test_each_test_that_needs_no_assertion_is_still_there() -> None:
    assert {t.name for path in FILES for t in cases_of(TREES[path])} >= RAISES_NOTHING


@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "x = 1",
        "if x:\n        assert y",
        "for path in folder.glob('*'):\n        assert path",
        "for path in FILES:\n        assert path",
        "assert all(path for path in FILES)",
        "try:\n        f()\n    except E as e:\n        assert e",
        "subprocess.run(x)",
        "def inner():\n        assert x",
    ],
)
def test_one_that_cannot_fail_is_found(body: str) -> None:
    (test,) = cases_of(ast.parse(f"def test_x():\n    {body}\n"))
    assert not certain(test.body, RAISING | {"run"})


@pytest.mark.parametrize(
    "body",
    [
        "assert x",
        "for one in (1, 2):\n        assert one",
        "assert all(x for x in 'ab')",
        "with pytest.raises(E):\n        f()",
        "if x:\n        assert y\n    else:\n        assert z",
        "checked(x)",
        "said.refuses(2)",
    ],
)
def test_one_that_can_fail_is_not(body: str) -> None:
    (test,) = cases_of(ast.parse(f"def test_x():\n    {body}\n"))
    assert certain(test.body, RAISING | {"checked", ".refuses"})
