# SPDX-License-Identifier: MIT
"""Loading an object as a whole, and each of its programs alone: verdict, cost and reason."""

import contextlib
import ctypes
import dataclasses
import fnmatch
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vmtest.guest import libbpf
from vmtest.guest.failures import LACKING, NEEDING_BTF, Failure, Kernel, Reason
from vmtest.guest.loader import kinds, verifierlog
from vmtest.guest.loader.autoattach import Attachment
from vmtest.guest.loader.structops import zeroed_members
from vmtest.guest.loader.why import explain, shared_prog_array
from vmtest.guest.maps import TYPE_PROG_ARRAY, OwnMap
from vmtest.guest.objects import BpfObject, LogBuffer, Program

STATISTICS = 4
"""The log level of bpf(2) that asks for figures; errors are in such a log too."""
# Bytes that a log of figures and errors is given when it did not fit.
_MORE_ROOM = (1 << 20, 1 << 24)
# A refused program is loaded once more at level 1, whose log shows the source line and what libbpf
# makes of a relocation: where the first log had no more instructions than this, in that much room.
_TRACED, _TRACE_ROOM = 50_000, 1 << 22
_CUT = "\n[the log is cut here; the same at log level 4:]\n"

_PROGRAM_FAILED = re.compile(
    r"^libbpf: prog '(?P<program>[^']*)': BPF program load failed: ", re.MULTILINE
)
_NAMED = re.compile(r"^libbpf: prog '(?P<program>[^']*)': ", re.MULTILINE)
_SLOT_FAILED = re.compile(r"^libbpf: map '[^']*': failed to initialize slot ", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """How an object wants to be loaded.

    `types` has `TYPE[:ATTACH]` by program name or glob, `max_entries` a number or "cpus" by map,
    `variables` the values of globals, `inner_maps` the templates (type, key_size, value_size,
    max_entries) by map of maps, `skip` the programs (or globs) that are not to be loaded.
    """

    types: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_entries: Mapping[str, int | str] = dataclasses.field(default_factory=dict)
    variables: Mapping[str, int] = dataclasses.field(default_factory=dict)
    inner_maps: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    skip: Sequence[str] = ()

    def skips(self, program: str) -> bool:
        """Whether `program` is not to be loaded."""
        return any(fnmatch.fnmatchcase(program, pattern) for pattern in self.skip)

    def type_of(self, program: str) -> str | None:
        """`TYPE[:ATTACH]` of `program`, if it is told: by its name before any glob."""
        if program in self.types:
            return self.types[program]
        return next((t for g, t in self.types.items() if fnmatch.fnmatchcase(program, g)), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Described:
    """A program of an object: libbpf's names, `instructions` without its subprograms."""

    name: str
    section: str
    type: str
    attach_type: str
    instructions: int

    @property
    def kind(self) -> str:
        """Both types in words."""
        return f"{self.type}:{self.attach_type}".removesuffix(":")


class Loaded(NamedTuple):
    """What became of one load; `program` is "" for the object as a whole.

    `errno` is a name, "" for an accepted one; sizes are bytes, 0 for the whole. `line` is the last
    meaningful line of the log, `log` all that was said, the verifier's words last; `log_cut`
    whether the kernel had more to say than the limit.
    """

    program: str
    verdict: str
    errno: str = ""
    translated_size: int = 0
    jited_size: int = 0
    line: str = ""
    log: str = ""
    log_cut: bool = False
    reason: Reason | None = None
    attachment: Attachment | None = None


def go_on() -> None:
    """Nothing has to be waited for."""


Use = Callable[[BpfObject, Program], Attachment | None]
"""What is done with an accepted program while it is loaded."""


class _Attempt(NamedTuple):
    """One call of bpf_object__load(): an empty `errno` for success.

    `program` is the one that was refused, "" where none was to blame; `log` is the verifier's,
    `messages` are libbpf's; `cut` is what there was room for of another log, of the level that was
    asked for, if it did not fit. `code` are the instructions of the program that was refused, with
    those of its subprograms.
    """

    errno: str
    log: str
    program: str = ""
    messages: str = ""
    cut: str = ""
    code: bytes = b""

    @property
    def text(self) -> str:
        """All that the verifier said, as far as it is known."""
        return self.cut + _CUT + self.log if self.cut else self.log

    @property
    def out_of_room(self) -> bool:
        """Whether the log did not fit: whatever became of the program, this errno hides it."""
        return self.errno == "ENOSPC" and bool(self.program)

    @property
    def unexplained(self) -> bool:
        """Whether it was refused and the verifier said nothing of it."""
        return bool(self.errno) and not verifierlog.findings(self.log)


class MisconfiguredError(Exception):
    """The object has not what its configuration names."""


class Loader:
    """Loads one object file in all ways that are asked of it."""

    def __init__(
        self,
        path: pathlib.Path,
        wishes: Wishes,
        kernel: Kernel,
        buffer: LogBuffer,
    ) -> None:
        """Opens `path` once, to see what is in it: `programs`, and types of `maps`, by name.

        `buffer` limits a log, and may serve many loaders one after the other. Raises LoadError if
        libbpf cannot open it, MisconfiguredError if it is to be loaded in a way that it cannot be.
        """
        self._path = path
        self.wishes = wishes
        self._kernel = kernel
        self._buffer = buffer
        with BpfObject(path) as opened, contextlib.ExitStack() as stack:
            self._adjust(opened, stack)
            self.programs = {name: _described(p) for name, p in opened.programs.items()}
            self._shapes = tuple(
                shape._replace(inner=True) if shape.name in wishes.inner_maps else shape
                for shape in opened.map_shapes()
            )
            self.maps = {shape.name: shape.kind for shape in self._shapes}
            self._default = [name for name, p in opened.programs.items() if p.autoload]
        self._first = opened
        self._traces: dict[str, str] = {}
        self._places = {name: place for place, name in enumerate(self.programs)}

    def whole(self) -> Loaded:
        """Loads all programs together that the object loads by default, except those to skip."""
        names = [name for name in self._default if not self.wishes.skips(name)]
        with self._loaded(names, STATISTICS) as (_, _, attempt):
            if not attempt.errno:
                return Loaded("", "accepted")
        return self._refused("", attempt, self._shared_prog_array(attempt, names))

    def alone(
        self,
        name: str,
        use: Use = lambda _opened, _program: None,
        ready: Callable[[], None] = go_on,
    ) -> Loaded:
        """Loads the program `name` and no other, with a log of figures and errors.

        `ready` is called when the kernel is about to see it; `use` gets it, if it is accepted.
        """
        with self._loaded([name], STATISTICS, ready) as (opened, (program,), attempt):
            if not attempt.errno:
                info = program.info()
                return Loaded(
                    name,
                    "accepted",
                    translated_size=info.translated_size,
                    jited_size=info.jited_size,
                    log=attempt.text,
                    log_cut=bool(attempt.cut),
                    attachment=self._used(opened, program, use),
                )
        if not attempt.program and _SLOT_FAILED.search(attempt.messages):
            # libbpf fills PROG_ARRAYs once every program is loaded; those of the slots are not.
            return Loaded(name, "accepted", log=attempt.text, log_cut=bool(attempt.cut))
        return self._refused(name, attempt, None)

    def log_at(self, name: str, level: int) -> tuple[str, bool]:
        """The log of loading the program `name` alone once more, and whether it was cut.

        `level` is 1 or 2, whose logs show the way through the program.
        """
        with self._opened([name]) as (opened, programs):
            attempt = _load_in_silence(opened, programs, level | STATISTICS, self._buffer)
        return attempt.log, attempt.out_of_room

    def _used(self, opened: BpfObject, program: Program, use: Use) -> Attachment | None:
        if self.programs[program.name].type != "struct_ops":
            return use(opened, program)
        # The kernel takes the operations of a map together, as far as they are required.
        names = [n for n, described in self.programs.items() if described.type == "struct_ops"]
        with self._loaded(names, STATISTICS) as (together, _, attempt):
            return None if attempt.errno else use(together, together.programs[program.name])

    @contextlib.contextmanager
    def _loaded(
        self, names: Sequence[str], level: int, ready: Callable[[], None] = go_on
    ) -> Iterator[tuple[BpfObject, list[Program], _Attempt]]:
        """The object, its programs `names`, and what became of loading these.

        Listening to libbpf costs as much as loading something small. So a single program is loaded
        in silence, and again to hear what libbpf says only if the verifier did not say why not.

        A log that does not fit turns whatever the verifier thought into ENOSPC: then it is loaded
        again, at a level and with a buffer that leave room.
        """
        buffer, rooms = self._buffer, iter(_MORE_ROOM)
        listening, cut = len(names) != 1, ""
        while True:
            with self._opened(names) as (opened, programs):
                ready()
                ready = go_on
                load = _load if listening else _load_in_silence
                attempt = load(opened, programs, level, buffer)
                if attempt.out_of_room and (room := next(rooms, 0)):
                    cut = cut or attempt.log
                    level, buffer = STATISTICS, ctypes.create_string_buffer(room)
                elif attempt.unexplained and not listening:
                    listening = True
                else:
                    code = _code(programs, attempt)
                    yield opened, programs, attempt._replace(cut=cut, code=code)
                    return

    @contextlib.contextmanager
    def _opened(self, names: Sequence[str]) -> Iterator[tuple[BpfObject, list[Program]]]:
        """The object anew, and its programs `names`, which are the only ones to be loaded."""
        with BpfObject(self._path, self._first) as opened, contextlib.ExitStack() as stack:
            self._adjust(opened, stack)
            yield opened, opened.choose([self._places[name] for name in names])

    def _adjust(self, opened: BpfObject, stack: contextlib.ExitStack) -> None:
        wishes = self.wishes
        for name, program in opened.programs.items() if wishes.types else ():
            if (told := wishes.type_of(name)) is not None:
                _set_type(program, told)
        try:
            for name, count in wishes.max_entries.items():
                opened.set_max_entries(name, possible_cpus() if count == "cpus" else int(count))
            for name, value in wishes.variables.items():
                opened.set_global(name, value)
            for name, template in wishes.inner_maps.items():
                inner = stack.enter_context(_inner_map(name, template))
                opened.set_inner_map(name, inner)
        except (libbpf.LibbpfError, KeyError, OverflowError) as error:
            raise MisconfiguredError(str(error.args[-1])) from error

    def _refused(self, program: str, attempt: _Attempt, reason: Reason | None) -> Loaded:
        named = _NAMED.search(attempt.messages)
        blamed = attempt.program or program or (named["program"] if named else "")
        concerned = self.programs.get(blamed)
        reason = reason or self._explained(attempt, concerned)
        return Loaded(
            program,
            _verdict(attempt, reason),
            errno=attempt.errno,
            line=verifierlog.last_line(attempt.log, attempt.messages),
            log=attempt.messages + attempt.text,
            log_cut=bool(attempt.cut),
            reason=reason,
        )

    def _explained(self, attempt: _Attempt, concerned: Described | None) -> Reason:
        failure = Failure(
            errno=attempt.errno,
            messages=attempt.messages,
            log=attempt.log,
            program_type=concerned.type if concerned else "",
            attach_type=concerned.attach_type if concerned else "",
            maps=self._shapes,
            section=concerned.section if concerned else "",
            code=attempt.code,
            trace=self._trace(attempt),
            libbpf=libbpf.version(),
            skipped=self._first.skipped_sections,
            zeroed=zeroed_members(self._path, attempt.messages),
        )
        reason = explain(failure, self._kernel)
        if reason.code in NEEDING_BTF and attempt.program and not attempt.messages:
            # Nobody listened: what libbpf says of the object's BTF takes another load.
            with self._opened([attempt.program]) as (opened, programs):
                buffer = ctypes.create_string_buffer(_TRACE_ROOM)
                again = _load(opened, programs, STATISTICS, buffer)
            reason = explain(dataclasses.replace(failure, messages=again.messages), self._kernel)
        return reason

    def _trace(self, attempt: _Attempt) -> str:
        """The log of the refused program at level 1; "" where it would be too long, or differs."""
        name = attempt.program
        findings = verifierlog.findings(attempt.log)
        if not name or not findings:
            return ""
        if verifierlog.statistics(attempt.log).instructions > _TRACED:
            return ""
        if name not in self._traces:
            buffer = ctypes.create_string_buffer(_TRACE_ROOM)
            with self._opened([name]) as (opened, programs):
                again = _load_in_silence(opened, programs, 1, buffer)
            self._traces[name] = again.log if again.errno else ""
        return self._traces[name]

    def _shared_prog_array(self, attempt: _Attempt, names: Sequence[str]) -> Reason | None:
        """Shows that the refused program is accepted alone, and not beside another of its array."""
        name = attempt.program
        if attempt.errno != "EINVAL" or not name or verifierlog.findings(attempt.log):
            return None
        own = self._prog_arrays(name)
        for partner in names[: names.index(name)] if own else ():
            arrays = own & self._prog_arrays(partner)
            if not arrays:
                continue
            with self._loaded([partner, name], STATISTICS) as (_, _, pair):
                if (pair.program, pair.errno) == (name, attempt.errno):
                    kinds_of = (self.programs[name].kind, self.programs[partner].kind)
                    array = min(arrays)
                    return shared_prog_array(name, partner, array, attempt.errno, kinds_of)
        return None

    def _prog_arrays(self, name: str) -> set[str]:
        """The PROG_ARRAYs that a program uses; none if it is refused alone."""
        with self._loaded([name], STATISTICS) as (opened, (program,), attempt):
            if attempt.errno:
                return set()
            used = program.map_ids()
            arrays = (m for m in opened.maps.values() if m.kind == TYPE_PROG_ARRAY)
            return {array.name for array in arrays if array.id() in used}


def _load(
    opened: BpfObject, programs: Sequence[Program], level: int, buffer: LogBuffer
) -> _Attempt:
    _keep_logs(programs, level, buffer)
    try:
        opened.load()
    except libbpf.LoadError as error:
        found = _PROGRAM_FAILED.search(error.log)
        return _Attempt(
            libbpf.errno_name(error.errno or 0),
            _text(buffer),
            found["program"] if found else "",
            error.log,
        )
    return _Attempt("", _text(buffer))


def _load_in_silence(
    opened: BpfObject, programs: Sequence[Program], level: int, buffer: LogBuffer
) -> _Attempt:
    """The same for one program, which is to blame when its verifier said something."""
    _keep_logs(programs, level, buffer)
    number = opened.load_in_silence()
    log = _text(buffer)
    if not number:
        return _Attempt("", log)
    return _Attempt(libbpf.errno_name(number), log, programs[0].name if log else "")


def _code(programs: Sequence[Program], attempt: _Attempt) -> bytes:
    """The instructions of the program that was refused; of the only one, if none was named."""
    if not attempt.errno:
        return b""
    named = [p for p in programs if p.name == attempt.program] if attempt.program else programs
    return named[0].code if len(named) == 1 else b""


def _keep_logs(programs: Sequence[Program], level: int, buffer: LogBuffer) -> None:
    buffer[0] = b"\0"
    for program in programs:
        program.keep_log(level, len(buffer), buffer)


def _text(buffer: LogBuffer) -> str:
    return buffer.value.decode(errors="replace")


def _verdict(attempt: _Attempt, reason: Reason) -> str:
    if reason.code in LACKING:
        return "unsupported"
    if reason.code == "libbpf-too-old":
        return "refused as a whole"  # also where the verifier complains of what libbpf left out
    # Of some global functions the verifier says nothing that counts as a finding elsewhere.
    said = verifierlog.findings(attempt.log) or reason.code == "global-function"
    return "rejected" if attempt.program and said else "refused as a whole"


def _described(program: Program) -> Described:
    return Described(
        name=program.name,
        section=program.section,
        type=kinds.program_type_name(program.kind),
        attach_type=kinds.described_attach_type(program.kind, program.attach_type),
        instructions=program.instructions,
    )


def _set_type(program: Program, told: str) -> None:
    try:
        kind, attach_type = kinds.parse_types(told)
    except ValueError as error:
        raise MisconfiguredError(f"type of {program.name}: {error}") from error
    if attach_type is None:
        attach_type = program.attach_type if program.kind == kind else 0
    program.set_kind(kind, attach_type)


def _inner_map(outer: str, template: Mapping[str, Any]) -> OwnMap:
    kind = kinds.map_types().get(str(template.get("type", "")))
    if kind is None:
        known = ", ".join(kinds.map_types())
        raise MisconfiguredError(f"inner map of {outer}: its type is not one of {known}")
    return OwnMap.create(
        kind,
        "inner",
        int(template.get("key_size", 4)),
        int(template.get("value_size", 4)),
        int(template.get("max_entries", 1)),
    )


def possible_cpus() -> int:
    """How many CPUs the kernel may have: the entries of a map with one for each."""
    count: int = libbpf.library().libbpf_num_possible_cpus()
    return libbpf.check(count, "counting CPUs")
