"""``matrix.json``: a matrix as JSON and back, exactly, with a versioned schema.

``docs/reference/matrix-json.md`` documents every field.  Keys that this version does not know
are ignored: the schema's number is raised when a reader would misread a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vmtest.errors import UsageError
from vmtest.model.results import SCHEMA, KernelResult, Matrix
from vmtest.runs import indented

_ADAPTER = TypeAdapter(Matrix)
_KERNEL = TypeAdapter(KernelResult)
_SHOWN = 5


def pieces(matrix: Matrix) -> Iterator[bytes]:
    """``matrix`` as JSON in UTF-8, in pieces: of a large run it is hundreds of megabytes.

    Lone surrogates, which are not characters, become ``?``.
    """
    value = _ADAPTER.dump_python(replace(matrix, kernels=()), mode="json")
    value["kernels"] = (_KERNEL.dump_python(kernel, mode="json") for kernel in matrix.kernels)
    for piece in indented.pieces(value, deep=4):
        yield piece.encode("utf-8", "replace")
    yield b"\n"


def dumps(matrix: Matrix) -> str:
    """``matrix`` as JSON, as a whole."""
    return b"".join(pieces(matrix)).decode()


def loads(text: str | bytes, name: str = "matrix.json") -> Matrix:
    """The matrix in ``text``; ``name`` is the file to blame.

    Raises UsageError for text that is not JSON, has another schema or lacks fields.
    """
    cure = "run the tests again, or render it with the vmtest that wrote it"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        raise UsageError(
            f"{name}: not JSON: {error}; the file is truncated, or it is not a matrix.json: "
            "give another run, or run the tests again"
        ) from error
    if not isinstance(value, dict):
        raise UsageError(f"{name}: holds {_kind(value)}, not a matrix; {cure}")
    schema = value.get("schema")
    if type(schema) is not int:
        raise UsageError(
            f"{name}: schema: missing or not a number, so this is not a matrix.json; {cure}"
        )
    if schema != SCHEMA:
        whose = "a newer" if schema > SCHEMA else "an older"
        raise UsageError(
            f"{name}: schema: {schema}, but this vmtest reads {SCHEMA}; {whose} vmtest wrote it: "
            f"{'upgrade vmtest' if schema > SCHEMA else cure}"
        )
    try:
        return _ADAPTER.validate_json(text, strict=True)
    except ValidationError as error:
        raise UsageError("\n".join(_problems(error, name, cure))) from error


def read(file: Path) -> Matrix:
    """The matrix in ``file``; raises UsageError as :func:`loads`, and where it cannot be read."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}; give another run") from error
    return loads(text, str(file))


def _problems(error: ValidationError, name: str, cure: str) -> list[str]:
    problems = error.errors(include_url=False, include_context=False)
    lines = []
    for problem in problems[:_SHOWN]:
        message = problem["msg"].removeprefix("Input ")
        message = message[:1].lower() + message[1:]
        lines.append(f"{name}: {_place(problem['loc'])}: {message}{_got(problem)}")
    if len(problems) > _SHOWN:
        lines.append(f"{name}: and {len(problems) - _SHOWN} more")
    lines[-1] += f"; {cure}"
    return lines


def _place(where: tuple[int | str, ...]) -> str:
    """``kernels[2].tests[0].outcome``."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or "the whole file"


def _got(problem: Any) -> str:
    got = problem["input"]
    if problem["type"] == "missing" or isinstance(got, dict | list | bytes):
        return ""
    return f" (is {json.dumps(got)[:60]})"


def _kind(value: object) -> str:
    kinds: dict[type, str] = {list: "a list", str: "a string", type(None): "null"}
    return kinds.get(type(value), "a number")
