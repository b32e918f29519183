"""``vmtest build``: bpf/*.bpf.c -> build/*.bpf.o."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vmtest.cli import common
from vmtest.objects.compile import SOURCE, TARGET, build_all

EXAMPLE = """Compile the BPF programs (*.bpf.c) that changed.  A warning is an error.

Example: [bold]vmtest build --source bpf --target build[/bold]
"""


def build(
    source: Annotated[Path, typer.Option(help="The folder with *.bpf.c and include/.")] = Path(
        SOURCE
    ),
    target: Annotated[Path, typer.Option(help="The folder for the object files.")] = Path(TARGET),
) -> None:
    """Compile; the module's EXAMPLE is its help."""
    with common.reported():
        for made in build_all(source, target):
            common.say(str(made))
