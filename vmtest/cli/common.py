"""What the commands share: messages, the configuration, exit statuses."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from vmtest import config as configuration
from vmtest.config import Config
from vmtest.errors import InfrastructureError, UsageError, VmtestError

USAGE, INFRASTRUCTURE, INTERRUPTED = 2, 3, 130
_MOST_LINES = 12

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="kernels.toml; else the nearest one upwards."),
]


def fail(error: BaseException, *, own: int | None = None) -> NoReturn:
    """Say ``error`` on standard error and exit: 2 (user's), 3 (machine's), or ``own``."""
    lines = str(error).splitlines() or [type(error).__name__]
    if len(lines) > _MOST_LINES:
        more = len(lines) - _MOST_LINES
        lines = [*lines[:_MOST_LINES], f"... and {more} more"]
    print(f"vmtest: error: {lines[0]}", *lines[1:], sep="\n", file=sys.stderr)
    status = INFRASTRUCTURE if isinstance(error, InfrastructureError | OSError) else USAGE
    raise typer.Exit(status if own is None else own)


@contextmanager
def reported(own: int | None = None) -> Iterator[None]:
    """Turn our errors into messages and an exit status; a traceback means a bug of ours."""
    try:
        yield
    except VmtestError as error:
        fail(error, own=own)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(InfrastructureError(f"{where}{error.strerror or error}"), own=own)
    except KeyboardInterrupt:
        print("vmtest: interrupted", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def load_config(file: Path | None) -> Config:
    """The configuration in ``file``, or the nearest kernels.toml upwards."""
    return configuration.load(file if file is not None else configuration.find(Path.cwd()))


def interrupt_on_sigterm() -> None:
    """Have SIGTERM clean up as Ctrl-C does (tox sends it when its patience ends)."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def parse_objects(given: list[str]) -> dict[str, Path]:
    """``NAME=PATH`` of ``--object``, by name; raises UsageError."""
    parsed = {}
    for item in given:
        name, separator, path = item.partition("=")
        if not (name and separator and path):
            raise UsageError(f"--object {item}: write NAME=PATH, for example sendmsg=build/x.o")
        parsed[name] = Path(path).absolute()
    return parsed
