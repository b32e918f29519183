"""Runs in the guest: one pytest that has collected everything forks itself for every mutant.

A script of its own, and the pytest plugin that it loads (standard library, pytest
and vmtest.guest only).  Standard input has one JSON line an order: ``objects``
(base64 by name) replace those of the payload, ``loading`` names those that the
kernel has to load first, ``suites`` are the paths whose tests run then and
``first`` the tests to begin with.  vmtest.guest.plugin talks as always, and last
comes an event of ours, ``done``; before it one ``refused`` for each object that
the kernel does not load, and then no test runs.
"""

import base64
import hashlib
import json
import os
import pathlib
import shutil
import sys
from typing import Any

import pytest

from vmtest.guest import libbpf
from vmtest.guest.objects import BpfObject
from vmtest.guest.payload import OBJECTS_VARIABLE
from vmtest.guest.plugin import HostReporter
from vmtest.guest.plugins import run
from vmtest.guest.wire import Wire

_WIRE = "VMTEST_MUTANTS_WIRE"
"""Names two descriptors: where orders come from and where events go."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """In the parent: take orders until there are no more.  In a child: go on and run the tests."""
    orders, events = map(int, os.environ[_WIRE].split())
    originals = pathlib.Path(os.environ[OBJECTS_VARIABLE])
    while line := _line(orders):
        child = os.fork()
        if not child:
            _prepare(json.loads(line), session, originals, events)
            return
        _, ended = os.waitpid(child, 0)
        _say(events, event="done", status=os.waitstatus_to_exitcode(ended))
    os._exit(0)


def _prepare(
    order: dict[str, Any], session: pytest.Session, originals: pathlib.Path, events: int
) -> None:
    folder = originals.with_name("mutant")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(originals, folder)
    os.environ[OBJECTS_VARIABLE] = str(folder)
    for name, data in order["objects"].items():
        (folder / f"{name}.o").write_bytes(base64.b64decode(data))
    refused = {name: why for name in order["loading"] if (why := _refusal(folder / f"{name}.o"))}
    for name, why in refused.items():
        _say(events, event="refused", object=name, message=why[-2000:])
    if refused or not order["suites"]:
        os._exit(0)
    suites = [pathlib.Path(path) for path in order["suites"]]
    first = {test: rank for rank, test in enumerate(order["first"])}
    modules = {
        path: place for place, path in enumerate(dict.fromkeys(i.path for i in session.items))
    }
    session.items = sorted(
        (item for item in session.items if any(map(item.path.is_relative_to, suites))),
        # Tests of one thing stand together; mixed, one that sees the fault comes sooner. Not across
        # modules, because each loads its objects once.
        key=lambda item: (
            first.get(item.nodeid, len(first)),
            modules[item.path],
            hashlib.sha256(item.nodeid.encode()).digest(),
        ),
    )
    # From here on the child is the one that talks to the host.
    manager = session.config.pluginmanager
    (reporter,) = (one for one in manager.get_plugins() if isinstance(one, HostReporter))
    reporter.wire.hello()
    reporter.pytest_collection_finish(session)


def _refusal(path: pathlib.Path) -> str:
    """Why the kernel does not load the object at `path`, "" if it does."""
    try:
        with BpfObject(path) as opened:
            opened.load()
    except libbpf.LoadError as error:
        return str(error)
    return ""


def _say(events: int, **event: Any) -> None:
    data = (json.dumps(event) + "\n").encode()
    while data:
        data = data[os.write(events, data) :]


def _line(orders: int) -> bytes:
    """One line; unbuffered, because what follows may be the child's."""
    got = bytearray()
    while not got.endswith(b"\n"):
        data = os.read(orders, 1 << 16)
        if not data:
            return b""
        got += data
    return bytes(got)


if __name__ == "__main__":
    os.environ[_WIRE] = f"{os.dup(0)} {os.dup(1)}"
    # Beside the orders: the host reads both as one stream.
    wire = Wire.on_standard_streams()
    sys.exit(run.main(sys.argv[1], [*sys.argv[2:], "-p", pathlib.Path(__file__).stem], wire))
