"""What the optional dependencies of a project are, by its pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from vmtest.config.requirement import parse_requirement
from vmtest.config.suggest import suggestion
from vmtest.errors import UsageError

_CURE = "correct [guest] extras in kernels.toml"


def of_extras(extras: Sequence[str], file: Path) -> tuple[str, ...]:
    """The requirements of ``extras`` of the project whose pyproject.toml is ``file``.

    An extra that another one names is followed.  Raises UsageError.
    """
    if not extras:
        return ()
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
        tables = {canonicalize_name(n): v for n, v in project["optional-dependencies"].items()}
    except OSError as error:
        raise UsageError(f"[guest] extras: {file}: {error.strerror}; {_CURE}") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise UsageError(
            f"[guest] extras: {file} has no [project.optional-dependencies] to read; {_CURE}"
        ) from error
    own = canonicalize_name(str(project.get("name", "")))
    found: dict[str, None] = {}
    left, seen = list(extras), set()
    while left:
        name = canonicalize_name(left.pop(0))
        if name in seen:
            continue
        seen.add(name)
        if name not in tables:
            hint = suggestion(name, set(tables))
            raise UsageError(f"[guest] extras: {file} has no extra {name!r}{hint}; {_CURE}")
        for text in tables[name]:
            try:
                needed = parse_requirement(text)
            except ValueError as error:
                raise UsageError(f"[guest] extras: {file}: {name}: {text!r} {error}") from error
            if canonicalize_name(needed.name) == own:
                left += sorted(needed.extras)
            else:
                found[text] = None
    return tuple(found)
