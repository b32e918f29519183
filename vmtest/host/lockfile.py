"""Reading a lock that vmtest wrote, and that somebody may have merged or damaged since."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vmtest.errors import UsageError

Found = TypeVar("Found")


def read_lock(
    file: Path,
    read: Callable[[], str],
    parse: Callable[[dict[str, Any]], Found],
    *,
    schema: int,
    cure: str,
) -> Found:
    """What ``parse`` makes of the JSON that ``read`` reads from ``file``.

    Raises FileNotFoundError where there is none, and UsageError with the ``cure`` for one that
    cannot be understood, or has another schema.
    """
    try:
        value = json.loads(read())
        if value["schema"] == schema:
            return parse(value)
        found = value["schema"]
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}; check what it is") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{file}: cannot be understood ({type(error).__name__}: {error}): it is damaged or "
            f"holds a merge conflict; remove it and {cure}"
        ) from error
    raise UsageError(
        f"{file}: its schema is {found}, this vmtest reads {schema}; "
        f"{cure}, or use the vmtest that wrote it"
    )
