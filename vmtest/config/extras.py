"""What the optional dependencies of a project are, by its pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vmtest.config.requirement import parse_requirement
from vmtest.config.suggest import suggestion
from vmtest.errors import UsageError

_CURE = "correct [guest] extras in kernels.toml"


def of_extras(extras: Sequence[str], file: Path) -> tuple[str, ...]:
    """The requirements of ``extras`` of the project whose pyproject.toml is ``file``.

    An extra that another one names is followed, and what has that one's marker has both: only the
    guest's Python tells whether it holds.  Raises UsageError.
    """
    if not extras:
        return ()
    own, tables = _read(file)
    found: dict[str, None] = {}
    left: list[tuple[tuple[str, ...], str]] = [((canonicalize_name(one),), "") for one in extras]
    while left:
        way, marker = left.pop(0)
        name = way[-1]
        if name in way[:-1]:
            continue
        if name not in tables:
            hint = suggestion(name, set(tables))
            raise UsageError(f"[guest] extras: {file} has no extra {name!r}{hint}; {_CURE}")
        for needed in _requirements(file, name, tables[name]):
            text = _with(needed, marker)
            if canonicalize_name(needed.name) == own:
                _, _, both = text.partition("; ")
                left += [
                    ((*way, canonicalize_name(extra)), both) for extra in sorted(needed.extras)
                ]
            else:
                found[text] = None
    return tuple(found)


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    """The name of the project in ``file``, and its extras by theirs."""
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        tables: dict[str, Any] = {
            canonicalize_name(n): v for n, v in project["optional-dependencies"].items()
        }
        return canonicalize_name(str(project.get("name", ""))), tables
    except OSError as error:
        raise UsageError(f"[guest] extras: {file}: {error.strerror}; {_CURE}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"[guest] extras: {file} has no [project.optional-dependencies] to read; {_CURE}"
        ) from error


def _requirements(file: Path, name: str, texts: object) -> list[Requirement]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError(
            f"[guest] extras: {file}: {name} is not a list of strings; write for example "
            f'{name} = ["hypothesis>=6"]'
        )
    found = []
    for text in texts:
        try:
            found.append(parse_requirement(text))
        except ValueError as error:
            raise UsageError(f"[guest] extras: {file}: {name}: {text!r} {error}") from error
    return found


def _with(needed: Requirement, marker: str) -> str:
    """``needed`` where its own marker holds and ``marker`` too."""
    if not marker or needed.marker is None:
        return f"{needed}{f'; {marker}' if marker else ''}"
    own = f"({needed.marker}) and ({marker})"
    needed.marker = None
    return f"{needed}; {own}"
