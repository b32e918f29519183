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
from types import FrameType
from typing import NoReturn, TextIO

import typer

from vmtest.cli.options import spelled
from vmtest.cli.streams import UNREAD, give_up, is_unread
from vmtest.errors import (
    InfrastructureError,
    Interrupted,
    UsageError,
    VmtestError,
    bug_words,
    os_words,
    starved,
)
from vmtest.host import attempts, interrupt
from vmtest.host.signals import wake_main_thread
from vmtest.model.text import printable

USAGE, INFRASTRUCTURE, BUG, INTERRUPTED = 2, 3, 70, 130
_MOST_LINES = 12
_IMPATIENCE = 3.0
_signalled: list[float] = []
_awake: list[bool] = []


def fail(error: BaseException, *, own: int | None = None) -> NoReturn:
    """Say ``error`` on standard error and exit: 2 (user's), 3 (machine's), or ``own``."""
    lines = spelled(str(error)).splitlines() or [type(error).__name__]
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

    Python itself would end with 1, which says that tests failed.  Where this process has too
    little memory, that is nobody's bug.
    """
    if words := starved(error):
        fail(InfrastructureError(words), own=own)
    trace = "".join(traceback.format_exception(error))
    say(f"{trace}vmtest: {bug_words(error)}, with the lines above", sys.stderr)
    raise typer.Exit(BUG if own is None else own)


@contextmanager
def reported(own: int | None = None) -> Iterator[None]:
    """Turn errors into messages and an exit status: ours, the system's, and bugs of ours."""
    clean_up_on_signals()
    try:
        with attempts.told(lambda line: say(f"vmtest: {line}", sys.stderr)):
            yield
    except (typer.Exit, typer.Abort):
        raise
    except Interrupted:
        _end_interrupted()
    except VmtestError as error:
        fail(error, own=own)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and is_unread():
            give_up()
            raise typer.Exit(UNREAD) from None
        fail(InfrastructureError(os_words(error)), own=own)
    except KeyboardInterrupt:
        _end_interrupted()
    except Exception as error:
        bug(error, own=own)


def _end_interrupted() -> NoReturn:
    say("vmtest: interrupted", sys.stderr)
    raise typer.Exit(INTERRUPTED) from None


def clean_up_on_signals() -> None:
    """Have SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt once, and leave the clean-up alone.

    Commands, waits and connections of every thread are ended before.

    tox hands a terminal's Ctrl-C on to us, who have had it already: a second one
    that comes at once is the same.  One that comes later means impatience: this
    process ends, and supervisors and reaper end what it had started.  A signal
    that was ignored when we started (a background job, nohup) stays so.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if not _signalled:
            _signalled.append(time.monotonic())
            interrupt.interrupt()
            interrupt.keyboard_interrupt()
            return
        if time.monotonic() - _signalled[0] > _IMPATIENCE:
            os._exit(INTERRUPTED)

    if threading.current_thread() is not threading.main_thread():
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ours = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    for number in ours:
        signal.signal(number, handle)
    if not _awake:
        _awake.append(True)
        wake_main_thread(ours, lambda: bool(_signalled))


def check_accelerator(name: str) -> str:
    """``name`` if it is one that ``--accel`` takes; raises UsageError."""
    if name not in ("auto", "kvm", "tcg"):
        raise UsageError(f"--accel {name}: write auto, kvm or tcg")
    return name


def dump(value: object) -> str:
    """``value`` as the indented JSON that ``--json`` prints."""
    return json.dumps(value, indent=1)
