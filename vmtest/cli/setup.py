"""``vmtest setup``: install what the host lacks."""

from __future__ import annotations

import typer

from vmtest.cli import common
from vmtest.host import requirements

EXAMPLE = """Install the system packages that a run needs and this host lacks.

It says which and why, and uses sudo if you are not root.  `vmtest doctor` only shows them.

Example: [bold]vmtest setup[/bold]
"""


def setup() -> None:
    """Install; exits 3 when something is missing afterwards."""
    with common.reported():
        if requirements.main([]) != 0:
            raise typer.Exit(common.INFRASTRUCTURE)
