# SPDX-License-Identifier: MIT
"""Loads objects as a plan says, and tells the host what became of each load. A script of its own.

    python3 main.py PLAN [wait]

Standard input carries the host's answers, one byte a `start`; standard output events only, as JSON
lines: `hello`, then of each object `object`, and `start` and `load` of it as a whole (program "")
and of each program, then `probe`, unless the host knows that already, and `finish`. A `start` names
several programs where the object was taken as a whole: see `GROUP`. Where the plan asks for another
log level than 4, the `load` of a program is followed by `trace`, which is answered as `start` is,
and `traced` with that log. Where the plan names a `loader`, that program loads, with cilium/ebpf.
With a second argument, `wait`, the plan is read after an answer.
docs/reference/verify.md describes loads and verdicts.
"""

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # run by its path: what lies in this folder must hide nobody's modules

import ctypes
import dataclasses
import fnmatch
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vmtest.guest import libbpf
from vmtest.guest.failures import Failure, Reason
from vmtest.guest.loader import kinds, verifierlog
from vmtest.guest.loader.autoattach import Attachment, try_to_attach
from vmtest.guest.loader.cilium import CiliumLoader, GoProgram, NotOpenedError, survives
from vmtest.guest.loader.kernel import RunningKernel
from vmtest.guest.loader.loads import STATISTICS, Loaded, Loader, MisconfiguredError, Wishes, go_on
from vmtest.guest.loader.why import explain
from vmtest.guest.objects import BpfObject, Program
from vmtest.guest.wire import Wire

# The verifier takes no smaller buffer.
_SMALLEST_LOG = 128

# An answer of the host costs the guest as much as loading something small. So the programs of an
# object that was taken as a whole, and quickly, are announced together: this many, after no more
# than these seconds. If one of them takes the process or the kernel along all the same, the next
# process finds the whole done and announces what is left of the object one by one.
GROUP = 16
_QUICK = 5.0


class Verification:
    """One run over a plan."""

    def __init__(self, plan: Mapping[str, Any], folder: pathlib.Path, wire: Wire) -> None:
        """`folder` is what the files of the plan are relative to."""
        self._plan = plan
        self._folder = folder
        self._wire = wire
        self._done = {(key, program) for key, program in plan.get("done", [])}
        self._kernel = RunningKernel(_config(plan, folder))
        self._level = int(plan.get("log_level", STATISTICS))
        limit = max(int(plan.get("log_limit", 1 << 24)), _SMALLEST_LOG)
        self._limit = limit
        self._buffer = ctypes.create_string_buffer(limit)
        self._go = GoProgram(folder / plan["loader"]) if plan.get("loader") else None

    def run(self) -> None:
        """Every load that is not done yet."""
        for item in self._plan["objects"]:
            self._object(item)
        if self._plan.get("probe", True):
            self._wire.send("probe", text=_feature_probe())

    def _object(self, item: Mapping[str, Any]) -> None:
        key = item["key"]
        # Opening it may be what the last process died of: then nothing more is asked of it.
        if (key, "") in self._done and not self._opens(self._folder / item["file"]):
            self._wire.send("object", object=key, programs=[], maps=[])
            return
        first = (key, "") not in self._done
        if first:
            # To open it may be what this process dies of, whether the whole is loaded or not.
            self._wire.send("start", object=key, programs=[""])
            self._wire.wait()
        if (loader := self.open(item)) is None:
            return
        size = 1
        if first and item.get("whole", True):
            began = time.monotonic()
            whole = loader.whole()
            self._tell(key, whole)
            quick = time.monotonic() - began < _QUICK
            alike = not self._plan.get("attach") and self._level == STATISTICS
            if whole.verdict == "accepted" and quick and alike:
                size = GROUP
        globs, skips = item.get("programs", ["*"]), loader.wishes.skips
        names = [
            name
            for name in loader.programs
            if any(fnmatch.fnmatchcase(name, glob) for glob in globs)
            and not skips(name)
            and (key, name) not in self._done
        ]
        for place in range(0, len(names), size):
            self.load(loader, key, names[place : place + size])

    def _opens(self, path: pathlib.Path) -> bool:
        return _opens(path) if self._go is None else survives(self._go, path)

    def open(self, item: Mapping[str, Any]) -> Loader | CiliumLoader | None:
        """The loader of an object of the plan; None, and the host knows why, if there is none."""
        key, path = item["key"], self._folder / item["file"]
        try:
            loader = self._loader(path, _wishes(item))
        except NotOpenedError as error:
            self._tell(key, error.loaded)
            return None
        except libbpf.LoadError as error:
            self._tell(key, _open_failed(error, self._kernel))
            return None
        except MisconfiguredError as error:
            self._tell(key, _misconfigured(error))
            return None
        self._wire.send(
            "object",
            object=key,
            programs=[dataclasses.asdict(program) for program in loader.programs.values()],
            maps=[list(pair) for pair in loader.maps.items()],
        )
        return loader

    def _loader(self, path: pathlib.Path, wishes: Wishes) -> Loader | CiliumLoader:
        if self._go is None:
            return Loader(path, wishes, self._kernel, self._buffer)
        return CiliumLoader(self._go, path, wishes, self._kernel, self._limit)

    def load(self, loader: Loader | CiliumLoader, key: str, names: Sequence[str]) -> None:
        """Load each of the programs `names` alone, announced before all and told after each."""
        self._wire.send("start", object=key, programs=names)
        use = self._attach if self._plan.get("attach") else _leave
        # The host takes it down while the first object is opened.
        ready: Callable[[], None] = self._wire.wait
        for name in names:
            result = loader.alone(name, use, ready)
            self._tell(key, result)
            ready = go_on
            if self._level != STATISTICS and _verified(result):
                self._trace(loader, key, name)

    def _trace(self, loader: Loader | CiliumLoader, key: str, name: str) -> None:
        """Load `name` once more, for a longer log; the verdict has been told."""
        self._wire.send("trace", object=key, program=name)
        self._wire.wait()
        log, cut = loader.log_at(name, self._level)
        self._wire.hold("traced", object=key, program=name, log=log, log_cut=cut)

    def _attach(self, opened: BpfObject, program: Program) -> Attachment | None:
        return try_to_attach(opened, program, self._kernel)

    def _tell(self, key: str, result: Loaded) -> None:
        # With the announcement of the next load, before which nothing can go wrong; the host reads
        # the figures in the log.
        told: dict[str, Any] = {}
        if result.errno or result.reason:
            told = {"errno": result.errno, "line": result.line, "reason": _reason(result.reason)}
        if result.attachment:
            told["attachment"] = _attachment(result.attachment)
        self._wire.hold(
            "load",
            object=key,
            program=result.program,
            verdict=result.verdict,
            translated_size=result.translated_size,
            jited_size=result.jited_size,
            log=result.log,
            log_cut=result.log_cut,
            **told,
        )


def _verified(result: Loaded) -> bool:
    """Whether the verifier read the program: only then it has more to say."""
    accepted = result.verdict == "accepted"
    return bool(result.log) and (accepted or bool(verifierlog.findings(result.log)))


def _leave(_opened: BpfObject, _program: Program) -> None:
    return None


def _attachment(attachment: Attachment) -> dict[str, Any]:
    return {**attachment._asdict(), "reason": _reason(attachment.reason)}


def _reason(reason: Reason | None) -> dict[str, str] | None:
    return reason._asdict() if reason else None


def _wishes(item: Mapping[str, Any]) -> Wishes:
    return Wishes(
        types=item.get("types", {}),
        max_entries=item.get("max_entries", {}),
        variables=item.get("globals", {}),
        inner_maps=item.get("inner_maps", {}),
        skip=item.get("skip", []),
    )


def _open_failed(error: libbpf.LoadError, kernel: RunningKernel) -> Loaded:
    name = libbpf.errno_name(error.errno or 0)
    return Loaded(
        "",
        "open failed",
        errno=name,
        line=verifierlog.last_line("", error.log),
        log=error.log,
        reason=explain(Failure(name, error.log), kernel),
    )


def _misconfigured(error: MisconfiguredError) -> Loaded:
    text = str(error)
    reason = Reason("configuration", "the object has not what its configuration names", "", text)
    return Loaded("", "refused as a whole", line=text, log=text, reason=reason)


def _opens(path: pathlib.Path) -> bool:
    """Whether libbpf survives opening `path`, tried in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            libbpf.library().bpf_object__open_file(os.fsencode(path), None)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) >= 0


def _config(plan: Mapping[str, Any], folder: pathlib.Path) -> pathlib.Path | None:
    """The kernel's config, which came with the payload."""
    return folder / str(plan["config"]) if plan.get("config") else None


def _feature_probe() -> str:
    try:
        done = subprocess.run(
            ["bpftool", "feature", "probe"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except OSError as error:
        return f"bpftool: {error.strerror}\n"
    return done.stdout


def _warm_up() -> None:
    """Have libbpf and the verifier run once: an emulator translates code at its first use."""
    number = kinds.program_types().get("socket_filter")
    if number is not None:
        libbpf.library().libbpf_probe_bpf_prog_type(number, None)


def main(plan: str, waits: bool = False) -> int:
    """Carry out the plan in the file `plan`; returns the exit status."""
    wire = Wire.on_standard_streams()
    try:
        libbpf.library()
    except libbpf.LibbpfError as error:
        cure = "name another [guest] libbpf, or a newer [guest] suite"
        print(f"{error.strerror}; {cure}", file=sys.stderr)
        return 1
    wire.hello()
    if waits:
        _warm_up()
        wire.wait()
    path = pathlib.Path(plan)
    Verification(json.loads(path.read_text()), path.parent, wire).run()
    wire.send("finish", status=0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:] == ["wait"]))
