"""The other end of ``--on ssh:HOST``: a worker that lives no longer than its coordinator's words.

Its standard input is the lifeline.  When that ends, or is silent for too long, the coordinator or
the connection is gone: what runs here ends then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from vmtest.cluster.hello import SILENCE, Begin, Hello, installed
from vmtest.cluster.order import RESOURCE
from vmtest.cluster.place import SSH
from vmtest.host import interrupt
from vmtest.matrix.slots import memory_available_mib

LOOPBACK = "127.0.0.1"
NO_PAGES = {f"distributed.{role}.http.routes": () for role in ("scheduler", "worker")}
"""Dask's configuration: its pages ask for no certificate, and show what runs and its logs."""
# Those to which Dask gives a level of their own.
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado.application")
_JOIN = 60.0
_END = 20.0
_LINE = 1 << 16


def hush() -> None:
    """Have Dask log nothing: what users should know of it, vmtest says."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


class _Lifeline:
    """Reads a descriptor: lines, and then whether anything comes at all."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def line(self) -> str | None:
        """The next line that is not empty; None when there will be none."""
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if newline:
                self._rest = rest
                if line:
                    return line.decode(errors="replace")
                continue
            more = self._more()
            if not more or len(self._rest) > _LINE:
                return None
            self._rest += more

    def wait(self) -> None:
        """Return when it has ended or is silent."""
        while self._more():
            pass

    def _more(self) -> bytes:
        end = time.monotonic() + SILENCE
        if not select.select([self._descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
            return b""
        with suppress(OSError):
            return os.read(self._descriptor, _LINE)
        return b""


def serve(descriptor: int, say: Callable[[str], None]) -> None:
    """Be a worker for whoever writes to ``descriptor``, until that ends.

    ``say`` prints a line for the coordinator.
    """
    # What reads standard input anywhere in here must not take the coordinator's words.
    line = _Lifeline(os.dup(descriptor))
    os.dup2(os.open(os.devnull, os.O_RDONLY), descriptor)
    with socket.socket() as place:
        # Bound and not listening: the worker may bind the port as well, and nobody else gets it.
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((LOOPBACK, 0))
        port = place.getsockname()[1]
        cpus = len(os.sched_getaffinity(0))
        say(Hello(installed(), cpus, memory_available_mib(), port).line())
        told = line.line()
        if told is None:
            return
        begin = Begin.read(told)
        with tempfile.TemporaryDirectory(prefix="vmtest-worker-") as folder:
            asyncio.run(_work(begin, port, folder, line))


async def _work(begin: Begin, port: int, folder: str, line: _Lifeline) -> None:
    distributed = import_module("distributed")
    hush()
    import_module("dask.config").set(NO_PAGES)
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, over.set)

    def follow() -> None:
        line.wait()
        with suppress(RuntimeError):  # the loop may have ended by itself
            loop.call_soon_threadsafe(over.set)

    threading.Thread(target=follow, daemon=True).start()
    worker = distributed.Worker(
        f"tls://{LOOPBACK}:{begin.scheduler}",
        nthreads=begin.vms,
        resources={RESOURCE: begin.vms},
        name=f"{SSH}{begin.name}",
        host=LOOPBACK,
        port=port,
        protocol="tls://",
        contact_address=f"tls://{LOOPBACK}:{begin.contact}",
        security=begin.secret.security(),
        local_directory=folder,
        memory_limit=0,  # what takes memory are the VMs, which Dask does not see
        death_timeout=_JOIN,
    )
    async with worker:
        ends = [asyncio.ensure_future(worker.finished()), asyncio.ensure_future(over.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        _end_after(_END)
        interrupt.interrupt()
        await worker.close(timeout=_END / 2)
        for one in ends:
            one.cancel()


def _end_after(seconds: float) -> None:
    """Have this process end, whatever it waits for; supervisors end the VMs then."""
    last = threading.Timer(seconds, os._exit, [1])
    last.daemon = True
    last.start()
