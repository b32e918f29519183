"""``vmtest schema``: the JSON Schemas of vmtest's files."""

from __future__ import annotations

from typing import Annotated

import typer

from vmtest.cli import common
from vmtest.errors import UsageError
from vmtest.schemas.generate import MAKERS, place_of

EXAMPLE = """Print the JSON Schema of a file: kernels.toml, matrix.json, run.json, events.jsonl.

Without NAME it lists the schema files.  With the schema of kernels.toml, an editor can
complete and check that file.

Example: [bold]vmtest schema kernels.toml > kernels.schema.json[/bold]
"""


def schema(
    name: Annotated[str | None, typer.Argument(help="The file whose schema is printed.")] = None,
) -> None:
    """Print; the module's EXAMPLE is its help."""
    with common.reported():
        if name is None:
            for known in MAKERS:
                common.say(f"{known:13} {place_of(known)}")
            return
        if name not in MAKERS:
            raise UsageError(f"{name}: there is no schema of that; name one of {', '.join(MAKERS)}")
        print(place_of(name).read_text(encoding="utf-8"), end="")
