# SPDX-License-Identifier: MIT
"""Runs pytest in the guest with its events on standard output.  A script of its own.

Standard input carries the host's answers, standard output events only, and
everything that pytest or a test prints goes to standard error.
"""

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # run by its path: what lies in this folder must hide nobody's modules

import faulthandler
import json
import os
import signal
from pathlib import Path

import pytest

from vmtest.guest.bytecode import Bytecode
from vmtest.guest.plugin import HostReporter, whole_assertions
from vmtest.guest.wire import Wire

DONE = "--done="


def main(folder: str, arguments: list[str], wire: Wire | None = None) -> int:
    """Run pytest in ``folder`` with ``arguments``; returns its exit status.

    A first one of ``--done=FILE`` has the tests, a JSON list, that ran in an earlier guest.
    Events go over ``wire``, by default the port that is there for them.
    """
    os.chdir(folder)
    done: list[str] = []
    if arguments and arguments[0].startswith(DONE):
        done = json.loads(Path(arguments.pop(0).removeprefix(DONE)).read_text(encoding="utf-8"))
    wire = wire or Wire.on_port()
    # The host asks where a silent test hangs before it gives up.
    faulthandler.register(signal.SIGUSR1, file=os.fdopen(os.dup(2), "w"), all_threads=True)
    bytecode = Bytecode.of(Path(__file__).parents[3])
    # With the first word, before which nothing of the project's has run: what comes later may be
    # the project's.
    wire.hello(code=bytecode.compile())
    bytecode.use()
    options = [*whole_assertions(), *arguments]
    status = int(pytest.main(options, plugins=[HostReporter(wire, done)]))
    wire.send("finish", status=status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
