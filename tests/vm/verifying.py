"""Runs the guest's loader without the host's side of `vmtest verify`: files in, events out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import vmtest
from vmtest.matrix.payload import LAY_CONFIG, guest_environment, in_guest_environment
from vmtest.verify.events import EVENTS, Load, Object, Traced
from vmtest.vm.guest_code import GUEST_ROOT
from vmtest.vm.session import SshSession

Event = Mapping[str, Any]
# One guest starts many loaders: each but the first finds its modules compiled.
ENVIRONMENT = {**guest_environment(), "PYTHONPYCACHEPREFIX": "/tmp/compiled"}
del ENVIRONMENT["PYTHONDONTWRITEBYTECODE"]


class Loading:
    """A guest with the loader and the objects in ``folder`` in it."""

    def __init__(self, session: SshSession, objects: Mapping[str, bytes], config: bytes) -> None:
        self.session = session
        self.names = tuple(objects)
        package = Path(vmtest.__file__).parent
        files = {
            str(path.relative_to(package.parent)): path for path in package.glob("guest/**/*.py")
        }
        folders = {f"{GUEST_ROOT}/{Path(name).parent}" for name in files}
        session.run(["mkdir", "-p", *folders, f"{GUEST_ROOT}/objects"])
        session.put(b"", f"{GUEST_ROOT}/vmtest/__init__.py")
        session.put(config, f"{GUEST_ROOT}/config")
        session.run(["sh", "-c", LAY_CONFIG])
        for name, path in files.items():
            session.put(path.read_bytes(), f"{GUEST_ROOT}/{name}")
        for name, data in objects.items():
            session.put(data, f"{GUEST_ROOT}/objects/{name}.o")

    def run(
        self,
        names: Sequence[str],
        wishes: Mapping[str, Mapping[str, Any]] | None = None,
        before: Sequence[str] = (),
        **plan: Any,
    ) -> list[Event]:
        """The events of one process over the objects ``names``.

        ``wishes`` are more keys of an object's entry, ``plan`` of the plan, ``before`` words
        that the command begins with.
        """
        entries = [
            {"key": name, "file": f"objects/{name}.o", **(wishes or {}).get(name, {})}
            for name in names
        ]
        # The probe of the kernel's features takes longer than most of what is loaded here.
        told = {"objects": entries, "config": "config", "probe": False, **plan}
        self.session.put(json.dumps(told).encode(), f"{GUEST_ROOT}/verify.json")
        script = [f"{GUEST_ROOT}/vmtest/guest/loader/main.py", f"{GUEST_ROOT}/verify.json"]
        stream = self.session.stream(
            in_guest_environment([*before, "python3", *script], ENVIRONMENT)
        )
        events: list[Event] = []
        rest, errors = b"", b""
        while (got := stream.receive(120)) is not None:
            assert any(got), "the loader has been silent for two minutes"
            errors += got[1]
            *lines, rest = (rest + got[0]).split(b"\n")
            for line in lines:
                events.append(json.loads(line))
                if events[-1]["event"] in ("start", "trace"):
                    stream.send(b"+")
        assert stream.status() == 0, errors.decode()
        return events


def loads(events: Sequence[Event]) -> dict[tuple[str, str], Event]:
    """What the host makes of the ``load`` events, by object and program, with the log's text."""
    read = [EVENTS.validate_json(json.dumps(event)) for event in events]
    described = {
        (event.object, program.name): program
        for event in read
        if isinstance(event, Object)
        for program in event.programs
    }
    found = [event for event in read if isinstance(event, Load)]
    by_name: dict[tuple[str, str], Event] = {}
    for event in found:
        name = event.object, event.program
        by_name[name] = {**asdict(event.result(described.get(name))), "log": event.log}
    for traced in read:
        if isinstance(traced, Traced):
            load = by_name[traced.object, traced.program]
            by_name[traced.object, traced.program] = {
                **load,
                "log": traced.log + load["log"],
                "log_cut": traced.log_cut,
            }
    assert len(by_name) == len(found), "a load was told twice"
    return by_name
