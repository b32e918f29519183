"""Signals reach the main thread, whichever thread the kernel gave them to.

Python runs a signal's handler on the main thread alone.  While another thread starts a command,
Python blocks signals there, and one that comes meanwhile may go to that thread as it unblocks them:
the main thread, asleep on a lock, is never woken, and the handler waits for something else to do
so.  Seen once in about 50 of the signals that came at such a moment.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection

_PAUSE = 0.05  # seconds for the handler to run


def wake_main_thread(numbers: Collection[int], handled: Callable[[], bool]) -> None:
    """Have the first signal of ``numbers`` wake the main thread, until ``handled`` says True.

    To be called on the main thread, once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    main = threading.main_thread().ident
    assert main is not None

    def carry() -> None:
        while not handled():
            for number in os.read(reader, 64):
                while number in numbers and not handled():
                    signal.pthread_kill(main, number)
                    time.sleep(_PAUSE)

    threading.Thread(target=carry, name="signals", daemon=True).start()
