"""``vmtest ssh-worker``: what ``--on ssh:HOST`` starts there; nobody types it."""

from __future__ import annotations

import sys

import typer

from vmtest.cli import common

HELP = "Be a worker for `vmtest run --on ssh:HOST`, which starts this there."


def ssh_worker() -> None:
    """Work for whoever is at standard input, until that ends."""
    from vmtest.cluster.host import serve

    if sys.stdin.isatty():
        common.say("vmtest: ssh-worker is started by --on ssh:HOST, on that host", sys.stderr)
        raise typer.Exit(common.USAGE)
    with common.reported():
        serve(sys.stdin.fileno(), common.say)
