"""``vmtest docs``: the documentation, which comes with the package."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from vmtest.cli import common
from vmtest.manual.pages import page, pages

EXAMPLE = """Show a page of the documentation, or list the pages.

Example: [bold]vmtest docs kernels-toml[/bold]
"""


def docs(
    topic: Annotated[
        str | None, typer.Argument(metavar="[TOPIC]", help="The page; without it, all are listed.")
    ] = None,
) -> None:
    """Show; the module's EXAMPLE is its help."""
    with common.reported():
        if topic is not None:
            text = page(topic).text()
            if sys.stdout.isatty():
                Console().print(Markdown(text))
            else:
                common.say(text)
            return
        kind = ""
        width = max(len(one.topic) for one in pages())
        for one in pages():
            if one.kind != kind:
                kind = one.kind
                common.say(f"{kind}:")
            common.say(f"  {one.topic:{width}}  {one.title}")
