# SPDX-License-Identifier: MIT
"""Runs only, or first, the tests that did not pass before: a pytest plugin.

`$VMTEST_FAILED` names a JSON file: `tests` are node ids (that of a module or class means
all of its tests), `only` says whether the others are left out.

PYTEST_DONT_REWRITE: a saved guest has imported it before pytest could rewrite its asserts.
"""

import json
import os
import pathlib

import pytest

FILE_VARIABLE = "VMTEST_FAILED"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What other plugins chose stays chosen, in their order among those that failed."""
    file = os.environ.get(FILE_VARIABLE)
    if not file or not pathlib.Path(file).exists():
        return
    listed = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    wanted = set(listed["tests"])
    first = [item for item in items if {node.nodeid for node in item.listchain()} & wanted]
    kept = set(map(id, first))
    rest = [item for item in items if id(item) not in kept]
    if listed["only"] and rest:
        config.hook.pytest_deselected(items=rest)
        rest = []
    items[:] = [*first, *rest]
