"""The JSON Schemas, from the types that read and write the files.

    python -m vmtest.schemas.generate

writes them again into this folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vmtest.config.schema import SOURCES, FileTables
from vmtest.model.results import Matrix
from vmtest.runs.events import Stamped
from vmtest.schemas.facts import Facts

FOLDER = Path(__file__).parent
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _kernels() -> dict[str, Any]:
    schema = FileTables.model_json_schema(by_alias=True)
    _as_written(schema)
    sources = [{"required": [source]} for source in SOURCES]
    schema["$defs"]["KernelTable"]["oneOf"] = sources
    return schema


def _as_written(node: Any) -> None:
    """Give defaults the form that the file has: ``30s`` and not 30.0."""
    if isinstance(node, list):
        for part in node:
            _as_written(part)
    if isinstance(node, dict):
        kinds = [kind for kind in node.get("anyOf", []) if kind != {"type": "null"}]
        if len(kinds) == 1:  # TOML has no null: a key is there or not
            del node["anyOf"]
            node.pop("default", None)
            node |= kinds[0]
        default, pattern = node.get("default"), str(node.get("pattern", ""))
        if node.get("type") == "string" and isinstance(default, int | float):
            node["default"] = f"{default:g}s" if "(s|m|h)" in pattern else f"{default}M"
        elif isinstance(default, dict):
            del node["default"]  # a table that is left out has its own keys' defaults
        for part in node.values():
            _as_written(part)


MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    "kernels.toml": _kernels,
    "matrix.json": TypeAdapter(Matrix).json_schema,
    "run.json": TypeAdapter(Facts).json_schema,
    "events.jsonl": TypeAdapter(Stamped).json_schema,
}
"""What makes the schema of a file; that of events.jsonl is of one line."""


def text_of(name: str) -> str:
    """The schema of the file called ``name``, as its own file has it."""
    schema = {"$schema": _DIALECT, **MAKERS[name](), "title": name}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def place_of(name: str) -> Path:
    """The file that has the schema of the file called ``name``."""
    return FOLDER / f"{name}.schema.json"


if __name__ == "__main__":
    for each in MAKERS:
        place_of(each).write_text(text_of(each), encoding="utf-8")
