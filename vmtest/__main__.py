"""``vmtest`` and ``python -m vmtest``."""

from __future__ import annotations

import atexit
import gc
import resource
import signal
import sys
from contextlib import suppress
from typing import NoReturn

_MACHINE = 3
_BUG = 70
_GIT_STOPS = 128
_LEAST = 96
"""MiB of memory that it takes to import what every command needs."""


def main() -> None:
    """Run the command; also what breaks before it has begun never exits with 1."""
    try:
        from vmtest.cli import streams

        streams.guard()
        _check_memory()
        # What is imported stays: to look for garbage in it takes a third of the start's time.
        gc.disable()
        from vmtest.cli.main import app

        gc.freeze()
        gc.enable()
        try:
            app(prog_name="vmtest")
        except SystemExit as ended:
            # All is said: a second Ctrl-C while Python ends must not be how this process ended.
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
            # click and rich end what nobody reads with 1, which says that tests failed.
            if isinstance(ended.__context__, BrokenPipeError) or not streams.arrived():
                streams.give_up()
                sys.exit(streams.UNREAD)
            if not ended.code and (error := streams.lost()):
                from vmtest.errors import os_words

                _end(f"error: standard output: {os_words(error)}", _MACHINE)
            raise
    except Exception as error:
        if words := _of_memory(error):
            _end(f"error: {words}", _MACHINE)
        import traceback

        traceback.print_exc()
        _end("a bug in vmtest, or a broken installation: please report it", _BUG)


def _check_memory() -> None:
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= most < _LEAST << 20:
        have = f"may have {most >> 20} MiB of memory here, and needs {_LEAST}"
        # Nothing may be imported for that.
        cure = "give vmtest or its container more memory, or raise its limit (ulimit -v)"
        _end(f"error: vmtest {have}; {cure}", _MACHINE)


def _of_memory(error: Exception) -> str:
    """That there is too little, "" where ``error`` means something else."""
    with suppress(Exception):  # what is broken may be what says so
        from vmtest.errors import starved

        return starved(error)
    return ""


def _end(words: str, status: int) -> NoReturn:
    with suppress(OSError):  # Python would end with 1
        print(f"vmtest: {words}", file=sys.stderr, flush=True)
    # To git, which runs `vmtest bisect step`, others would say that a commit is bad.
    sys.exit(_GIT_STOPS if sys.argv[1:3] == ["bisect", "step"] else status)


if __name__ == "__main__":
    main()
