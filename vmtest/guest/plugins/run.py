"""Runs pytest in the guest with its events on standard output.  A script of its own.

Standard input carries the host's answers, standard output events only, and
everything that pytest or a test prints goes to standard error.
"""

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # run by its path: what lies in this folder must hide nobody's modules

import faulthandler
import os
import signal

import pytest

from vmtest.guest.plugin import HostReporter
from vmtest.guest.wire import Wire


def main(folder: str, arguments: list[str]) -> int:
    """Run pytest in ``folder`` with ``arguments``; returns its exit status."""
    os.chdir(folder)
    wire = Wire.on_standard_streams()
    # The host asks where a silent test hangs before it gives up.
    faulthandler.register(signal.SIGUSR1, file=os.fdopen(os.dup(2), "w"), all_threads=True)
    wire.hello()
    status = int(pytest.main(arguments, plugins=[HostReporter(wire)]))
    wire.send("finish", status=status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
