# SPDX-License-Identifier: MIT
"""Loading with cilium/ebpf: what `loads` does with libbpf, through our Go program.

That one (vmtest/guest/golang/cilium.go) opens and loads as it is told; what is loaded, how it is
judged and explained is the same for both.
"""

import ctypes
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Container, Sequence
from typing import Any, NoReturn

from vmtest.guest import libbpf
from vmtest.guest.failures import LACKING, Failure, Kernel, MapShape, Reason
from vmtest.guest.loader import kinds, verifierlog
from vmtest.guest.loader.loads import (
    STATISTICS,
    Described,
    Loaded,
    MisconfiguredError,
    Use,
    Wishes,
    go_on,
    possible_cpus,
)
from vmtest.guest.loader.why import explain, of_cilium

_ROOM = 1 << 20  # bytes for a log of figures and errors
# A refused program is loaded once more at level 1, for the source line.
_TRACED, _TRACE_ROOM = 50_000, 1 << 22
_PDEATHSIG = 1  # PR_SET_PDEATHSIG
_LAST_STATUS = 95
_OWN_FIELD = re.compile(r"^(?:assign values: )?field F\d+: ")
# The log is of the object's BTF, and not of the program.
_OF_BTF = re.compile(r": load BTF: ")
# Of the program itself, and not of a map that it needs.
_OF_PROGRAM = re.compile(r"^program \S+: (?!map )")


class NotOpenedError(Exception):
    """cilium/ebpf cannot read the object; `loaded` is what to tell of it."""

    def __init__(self, loaded: Loaded) -> None:
        super().__init__(loaded.line)
        self.loaded = loaded


class Died(Exception):
    """The Go program ended without an answer."""


class GoProgram:
    """One process that loads for all objects; it goes when this one goes."""

    def __init__(self, program: pathlib.Path) -> None:
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, **request: Any) -> dict[str, Any]:
        """Its answer; raises Died when there is none."""
        if self._process is None:
            self._process = subprocess.Popen(
                [str(self._program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                preexec_fn=_go_with_parent,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            status = self._process.wait()
            self._process = None
            raise Died(f"the loader with cilium/ebpf ended with status {status}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _go_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)


class CiliumLoader:
    """Loads one object file in all ways that are asked of it, as `loads.Loader` does."""

    def __init__(
        self, go: GoProgram, path: pathlib.Path, wishes: Wishes, kernel: Kernel, log_limit: int
    ) -> None:
        """Opens `path` once: `programs`, and types of `maps`, by name.

        Raises NotOpenedError, and MisconfiguredError if it is to be loaded in a way that it cannot
        be.
        """
        self.wishes = wishes
        self._go = go
        self._kernel = kernel
        self._limit = log_limit
        self._adjusted: dict[str, Any] = {"file": str(path)}
        said = self._ask()
        if said["error"]:
            # Where it lies in the guest says nothing to anybody.
            said["error"] = said["error"].replace(f"file {path}: ", "")
            raise NotOpenedError(self._not_opened(said))
        self._adjusted |= _adjustments(wishes, said["programs"])
        said = self._ask()
        if said["error"]:
            raise MisconfiguredError(said["error"])
        self._kinds = {one["name"]: one["type"] for one in said["programs"]}
        self.programs = {one["name"]: _described(one) for one in said["programs"]}
        self._shapes = tuple(_shape(one) for one in said["maps"])
        self.maps = {shape.name: shape.kind for shape in self._shapes}

    def whole(self) -> Loaded:
        """Loads all programs together that have a type, and all maps, except programs to skip."""
        names = [
            name
            for name, program in self.programs.items()
            if self._kinds[name]
            and not program.section.startswith("?")
            and not self.wishes.skips(name)
        ]
        if not names:
            return Loaded("", "accepted")
        said = self._ask(programs=names, level=STATISTICS, log_size=_ROOM)
        return self._refused("", said) if said["error"] else Loaded("", "accepted")

    def alone(
        self,
        name: str,
        _use: Use = lambda _opened, _program: None,
        ready: Callable[[], None] = go_on,
    ) -> Loaded:
        """Loads the program `name` and no other, and all maps, with a log of figures and errors.

        `ready` is called before the kernel sees it. Nothing is attached.
        """
        ready()
        if not self._kinds[name]:
            return self._untold(name)
        said = self._ask(programs=[name], level=STATISTICS, log_size=_ROOM)
        if said["error"]:
            return self._refused(name, said)
        return Loaded(
            name,
            "accepted",
            translated_size=said["translated"],
            jited_size=said["jited"],
            log=said["log"],
        )

    def log_at(self, name: str, level: int) -> tuple[str, bool]:
        """The log of loading the program `name` alone once more, and whether it was cut."""
        said = self._ask(programs=[name], level=level | STATISTICS, log_size=self._limit)
        return said["log"], said["cut"]

    def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            return self._go.ask(**self._adjusted, **request)
        except Died as error:
            _end(str(error))

    def _untold(self, name: str) -> Loaded:
        section = self.programs[name].section
        line = f"the section {section} is none whose type cilium/ebpf knows"
        reason = Reason("type-not-told", line, "tell it with --type", f"log: {line}", name=name)
        return Loaded(name, "refused as a whole", "EINVAL", line=line, log=line, reason=reason)

    def _not_opened(self, said: dict[str, Any]) -> Loaded:
        text = _words(said["error"])
        reason = self._explained(said, None)
        return Loaded("", "open failed", _errno(said), line=text, log=text, reason=reason)

    def _refused(self, program: str, said: dict[str, Any]) -> Loaded:
        concerned = self.programs.get(program or _blamed(said["error"], self.programs))
        reason = self._explained(said, concerned)
        found = verifierlog.findings(said["log"])
        text = _words(said["error"])
        read = found and concerned and not _OF_BTF.search(text)
        verdict = "rejected" if read else "refused as a whole"
        return Loaded(
            program,
            "unsupported" if reason.code in LACKING else verdict,
            errno=_errno(said),
            line=found[-1] if found else text,
            log=f"cilium/ebpf: {text}\n{said['log']}",
            log_cut=said["cut"],
            reason=reason,
        )

    def _explained(self, said: dict[str, Any], concerned: Described | None) -> Reason:
        text, log = _words(said["error"]), said["log"]
        # What `explain` takes for a program that the kernel saw and said nothing of.
        seen = said["errno"] and _OF_PROGRAM.match(text)
        messages = "BPF program load failed" if seen else ""
        failure = Failure(
            errno=_errno(said),
            messages=messages,
            log=log,
            program_type=concerned.type if concerned else "",
            attach_type=concerned.attach_type if concerned else "",
            maps=getattr(self, "_shapes", ()),
            section=concerned.section if concerned else "",
            trace=self._trace(concerned.name, log) if concerned else "",
        )
        if own := of_cilium(text, failure, self._kernel):
            return own
        reason = explain(failure, self._kernel)
        if reason.code == "unknown" and not verifierlog.findings(log):
            words = f"no rule of vmtest explains what cilium/ebpf said: {text}"
            return Reason("unknown", words, "read the whole log")
        return reason

    def _trace(self, name: str, log: str) -> str:
        if not verifierlog.findings(log):
            return ""
        if verifierlog.statistics(log).instructions > _TRACED:
            return ""
        said = self._ask(programs=[name], level=1, log_size=_TRACE_ROOM)
        return str(said["log"]) if said["error"] else ""


def survives(go: GoProgram, path: pathlib.Path) -> bool:
    """Whether the Go program survives opening `path`."""
    try:
        go.ask(file=str(path))
    except Died:
        return False
    return True


def _adjustments(wishes: Wishes, programs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `wishes` mean for these `programs`; raises MisconfiguredError."""
    told = {}
    for one in programs:
        if (text := wishes.type_of(one["name"])) is not None:
            try:
                kind, attach = kinds.parse_types(text)
            except ValueError as error:
                raise MisconfiguredError(f"type of {one['name']}: {error}") from error
            same = one["attach_type"] if one["type"] == kind else 0
            told[one["name"]] = [kind, same if attach is None else attach]
    entries = {
        name: possible_cpus() if count == "cpus" else int(count)
        for name, count in wishes.max_entries.items()
    }
    inner = {}
    for name, template in wishes.inner_maps.items():
        kind_of = kinds.map_types().get(str(template.get("type", "")))
        if kind_of is None:
            known = ", ".join(kinds.map_types())
            raise MisconfiguredError(f"inner map of {name}: its type is not one of {known}")
        sizes = (template.get("key_size", 4), template.get("value_size", 4))
        inner[name] = [kind_of, *map(int, (*sizes, template.get("max_entries", 1)))]
    return {
        "types": told,
        "max_entries": entries,
        "globals": {name: _signed(name, value) for name, value in wishes.variables.items()},
        "inner_maps": inner,
    }


def _signed(name: str, value: int) -> int:
    """`value` as it is in 64 bits with a sign."""
    if not -(1 << 63) <= value < 1 << 64:
        raise MisconfiguredError(f"{value} does not fit in {name}")
    return value - (1 << 64) if value >= 1 << 63 else value


def _described(one: dict[str, Any]) -> Described:
    kind = one["type"]
    return Described(
        name=one["name"],
        section=one["section"],
        type=kinds.program_type_name(kind),
        attach_type=kinds.described_attach_type(kind, one["attach_type"]),
        instructions=one["instructions"],
    )


def _shape(one: dict[str, Any]) -> MapShape:
    return MapShape(
        name=one["name"],
        kind=kinds.map_type_name(one["type"]),
        key_size=one["key_size"],
        value_size=one["value_size"],
        max_entries=one["max_entries"],
        flags=one["flags"],
        inner=one["inner"],
    )


def _blamed(error: str, programs: Container[str]) -> str:
    """The program that a refusal of the whole is about: `field F3: program NAME: load program`."""
    for part in error.split(": "):
        if part.startswith("program ") and part.removeprefix("program ") in programs:
            return part.removeprefix("program ")
    return ""


def _words(error: str) -> str:
    """The message of an error in one line, without the field of our own struct."""
    return _OWN_FIELD.sub("", " ".join(error.split()))


def _errno(said: dict[str, Any]) -> str:
    return libbpf.errno_name(said["errno"]) if said["errno"] else ""


def _end(why: str) -> NoReturn:
    """End this process: the host sees which load it was about."""
    print(f"vmtest: {why}", file=sys.stderr, flush=True)
    os._exit(_LAST_STATUS)
