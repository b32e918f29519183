"""What the commands share: messages, the configuration, exit statuses."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn, TextIO

import typer

from vmtest.config import file as configuration
from vmtest.errors import (
    InfrastructureError,
    Interrupted,
    UsageError,
    VmtestError,
    bug_words,
    os_words,
)
from vmtest.host import interrupt
from vmtest.model.project import Config
from vmtest.model.text import printable

USAGE, INFRASTRUCTURE, BUG, INTERRUPTED = 2, 3, 70, 130
_MOST_LINES = 12
_IMPATIENCE = 3.0
_signalled: list[float] = []

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="kernels.toml; else the nearest one upwards."),
]

ObjectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--object",
        metavar="NAME=PATH[@RANGE]",
        help="Use this build of an object, on kernels within RANGE; the first that holds.",
    ),
]

JobsOption = Annotated[
    int | None, typer.Option(min=1, help="VMs at once; default what CPUs and memory allow.")
]

WarmOption = Annotated[
    bool, typer.Option("--warm", help="Restore booted guests from snapshots; save new ones.")
]

AccelOption = Annotated[str, typer.Option("--accel", help="auto, kvm or tcg.")]

JunitOption = Annotated[
    Path | None, typer.Option("--junit", "--junitxml", metavar="FILE", help="JUnit XML.")
]

MarkdownOption = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Markdown.")
]

JsonOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="JSON.")]

LockedOption = Annotated[
    bool, typer.Option("--locked", help="Use exactly what kernels.lock names.")
]


def fail(error: BaseException, *, own: int | None = None) -> NoReturn:
    """Say ``error`` on standard error and exit: 2 (user's), 3 (machine's), or ``own``."""
    lines = str(error).splitlines() or [type(error).__name__]
    if len(lines) > _MOST_LINES:
        more = len(lines) - _MOST_LINES
        lines = [*lines[:_MOST_LINES], f"... and {more} more"]
    say("\n".join([f"vmtest: error: {lines[0]}", *lines[1:]]), sys.stderr)
    status = INFRASTRUCTURE if isinstance(error, InfrastructureError | OSError) else USAGE
    raise typer.Exit(status if own is None else own)


def say(text: str, stream: TextIO | None = None) -> None:
    """Print ``text`` on ``stream``, standard output by default, as far as that knows its letters.

    Nothing of a guest or of a stranger's file can move the cursor or set a title.
    """
    stream = sys.stdout if stream is None else stream
    encoding = stream.encoding or "utf-8"
    print(printable(text).encode(encoding, "replace").decode(encoding), file=stream, flush=True)


def bug(error: BaseException, *, own: int | None = None) -> NoReturn:
    """Show the traceback of what nobody expected, say where it belongs, and exit: 70 or ``own``.

    Python itself would end with 1, which says that tests failed.
    """
    trace = "".join(traceback.format_exception(error))
    say(f"{trace}vmtest: {bug_words(error)}, with the lines above", sys.stderr)
    raise typer.Exit(BUG if own is None else own)


@contextmanager
def reported(own: int | None = None) -> Iterator[None]:
    """Turn errors into messages and an exit status: ours, the system's, and bugs of ours."""
    clean_up_on_signals()
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except Interrupted:
        _end_interrupted()
    except VmtestError as error:
        fail(error, own=own)
    except OSError as error:
        fail(InfrastructureError(os_words(error)), own=own)
    except KeyboardInterrupt:
        _end_interrupted()
    except Exception as error:
        bug(error, own=own)


def _end_interrupted() -> NoReturn:
    say("vmtest: interrupted", sys.stderr)
    raise typer.Exit(INTERRUPTED) from None


def load_config(file: Path | None) -> Config:
    """The configuration in ``file``, or the nearest kernels.toml upwards."""
    return configuration.load(file if file is not None else configuration.find(Path.cwd()))


def load_config_or_builtin(file: Path | None) -> Config:
    """As ``load_config``, or the built-in matrix where there is no kernels.toml at all."""
    if file is None and not any((f / "kernels.toml").is_file() for f in _upwards(Path.cwd())):
        return configuration.builtin(Path.cwd())
    return load_config(file)


def _upwards(folder: Path) -> tuple[Path, ...]:
    return (folder, *folder.parents)


def clean_up_on_signals() -> None:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt once, and leave the clean-up alone.

    Commands, waits and connections of every thread are ended before.

    tox hands a terminal's Ctrl-C on to us, who have had it already: a second one
    that comes at once is the same.  One that comes later means impatience: this
    process ends, and the supervisors end its VMs.  A signal that was ignored when
    we started (a background job) stays so.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if not _signalled:
            _signalled.append(time.monotonic())
            interrupt.interrupt()
            raise KeyboardInterrupt
        if time.monotonic() - _signalled[0] > _IMPATIENCE:
            interrupt.kill()
            os._exit(INTERRUPTED)

    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


def check_accelerator(name: str) -> None:
    """Raise UsageError unless ``name`` is one that ``--accel`` takes."""
    if name not in ("auto", "kvm", "tcg"):
        raise UsageError(f"--accel {name}: is none of auto, kvm, tcg")


def dump(value: object) -> str:
    """``value`` as the indented JSON that ``--json`` prints."""
    return json.dumps(value, indent=1)
