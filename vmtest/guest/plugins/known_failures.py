# SPDX-License-Identifier: MIT
"""Applies the `[[known_failure]]` entries that the host chose for this kernel: a pytest plugin.

`$VMTEST_KNOWN_FAILURES` names a JSON file: `root` as for patterns.matches(), and `entries` with
`test`, `reason`, `strict` and `expired`: the last day of one that does not count any more, else
null.

PYTEST_DONT_REWRITE: a saved guest has imported it before pytest could rewrite its asserts.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest

from vmtest.guest.plugin import EXPIRED, KNOWN, KNOWN_SOMETIMES
from vmtest.guest.plugins.patterns import matches

FILE_VARIABLE = "VMTEST_KNOWN_FAILURES"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that is known to fail is marked so, before anything is deselected or run."""
    file = os.environ.get(FILE_VARIABLE)
    if not file or not pathlib.Path(file).exists():
        return
    listed = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    for item in items:
        meant = [e for e in listed["entries"] if matches(e["test"], item.nodeid, listed["root"])]
        _apply(item, meant)


def _apply(item: pytest.Item, entries: Sequence[dict[str, Any]]) -> None:
    """Marks `item` by the first of its `entries` that still counts."""
    for entry in entries:
        if entry["expired"] is None:
            # In front: pytest takes the first xfail that a test has, and ours says if it is strict.
            marker = pytest.mark.xfail(strict=entry["strict"], reason=entry["reason"])
            item.add_marker(marker, append=False)
            known = KNOWN if entry["strict"] else KNOWN_SOMETIMES
            item.user_properties.append((known, entry["reason"]))
            return
    for entry in entries[:1]:
        said = f"known failure, expired {entry['expired']}: {entry['reason']}"
        item.user_properties.append((EXPIRED, said))
