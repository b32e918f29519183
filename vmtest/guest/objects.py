# SPDX-License-Identifier: MIT
"""BPF objects: opened, adjusted, loaded, and their programs and maps by name."""

import contextlib
import ctypes
import functools
import os
import pathlib
import re
import struct
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from vmtest.guest import libbpf
from vmtest.guest.btf import Btf, Variable
from vmtest.guest.closing import Closing
from vmtest.guest.failures import Failure, MapShape
from vmtest.guest.loader import kinds, verifierlog
from vmtest.guest.loader.kernel import running_kernel
from vmtest.guest.loader.structops import zeroed_members
from vmtest.guest.loader.why import explain
from vmtest.guest.maps import Map

# From linux/bpf.h: enum bpf_stats_type, and struct bpf_prog_info up to run_cnt (5.1, commit
# 5f8f8b93aeb8).
_STATS_RUN_TIME = 0
_PROG_INFO = struct.Struct("=16xII176xQ")  # jited_prog_len, xlated_prog_len, run_cnt
_PROG_INFO_MAP_COUNT = 52  # nr_map_ids, with the address of map_ids behind
_OUTER_MAPS = (12, 13)  # enum bpf_map_type: array and hash of maps
_INSTRUCTION_SIZE = 8
_MOST_MAPS = 64  # MAX_USED_MAPS of the verifier

_SKIPPED = re.compile(r"elf: skipping unrecognized data section\(\d+\) (\S+)")

LogBuffer = ctypes.Array[ctypes.c_char]


class ProgramInfo(NamedTuple):
    """What the kernel tells of a loaded program.

    Sizes in bytes, of the JITed (0 where there is no JIT) and of the translated instructions;
    `runs` are counted while counted_runs() is in force.
    """

    jited_size: int
    translated_size: int
    runs: int


class Program:
    """A program of an object that is open.

    What is called at every load asks for the name only where something failed.
    """

    def __init__(self, handle: int) -> None:
        """`handle` is a `struct bpf_program *`."""
        self.handle = handle
        self._log: LogBuffer | None = None

    def __repr__(self) -> str:
        return f"<Program {self.name}>"

    @functools.cached_property
    def name(self) -> str:
        """The C function's name."""
        return _text(libbpf.library().bpf_program__name(self.handle))

    @property
    def section(self) -> str:
        """The ELF section, `cgroup/connect4` for instance."""
        return _text(libbpf.library().bpf_program__section_name(self.handle))

    @property
    def kind(self) -> int:
        """The type, as in `enum bpf_prog_type`."""
        return int(libbpf.library().bpf_program__type(self.handle))

    @property
    def attach_type(self) -> int:
        """What it may be attached to, as in `enum bpf_attach_type`."""
        return int(libbpf.library().bpf_program__expected_attach_type(self.handle))

    @property
    def fd(self) -> int:
        """The file descriptor. Raises LibbpfError if the program is not loaded."""
        result: int = libbpf.library().bpf_program__fd(self.handle)
        if result < 0:
            libbpf.check(result, f"{self.name} is not loaded")
        return result

    def set_kind(self, kind: int, attach_type: int) -> None:
        """Before load: the types, if the section's name does not tell. Raises LibbpfError."""
        lib = libbpf.library()
        libbpf.check(lib.bpf_program__set_type(self.handle, kind), f"{self.name}: type {kind}")
        libbpf.check(
            lib.bpf_program__set_expected_attach_type(self.handle, attach_type),
            f"{self.name}: attach type {attach_type}",
        )

    @property
    def autoload(self) -> bool:
        """Whether the object's load() includes this program."""
        return bool(libbpf.library().bpf_program__autoload(self.handle))

    @property
    def instructions(self) -> int:
        """How many instructions it has, subprograms only once it is loaded."""
        return int(libbpf.library().bpf_program__insn_cnt(self.handle))

    @property
    def code(self) -> bytes:
        """Its instructions, those of subprograms only once it was loaded, accepted or not."""
        address = libbpf.library().bpf_program__insns(self.handle)
        return ctypes.string_at(address, self.instructions * _INSTRUCTION_SIZE) if address else b""

    def keep_log(self, level: int, size: int = 1 << 20, buffer: LogBuffer | None = None) -> None:
        """Before load: has the verifier's log kept for log(), of a success too.

        `level` as in bpf(2), 4 for statistics; `size` in bytes, which the verifier wants to be at
        least 128. A `buffer` of at least that size, if given, may serve one program after the
        other: log() is then that of the last one loaded. Raises LibbpfError.
        """
        lib = libbpf.library()
        self._log = buffer if buffer is not None else ctypes.create_string_buffer(size)
        result = lib.bpf_program__set_log_level(self.handle, level)
        if result < 0:
            libbpf.check(result, f"{self.name}: log level")
        result = lib.bpf_program__set_log_buf(self.handle, self._log, size)
        if result < 0:
            libbpf.check(result, f"{self.name}: log buffer")

    def log(self) -> str:
        """What keep_log() kept; empty before load."""
        return self._log.value.decode(errors="replace") if self._log else ""

    def info(self) -> ProgramInfo:
        """What the kernel tells of it. Raises LibbpfError if it is not loaded."""
        return ProgramInfo(*_PROG_INFO.unpack(self._info(b"")))

    def map_ids(self) -> list[int]:
        """The ids of the maps that it uses. Raises LibbpfError if it is not loaded."""
        ids = (ctypes.c_uint32 * _MOST_MAPS)()
        asked = struct.pack("=52xIQ", _MOST_MAPS, ctypes.addressof(ids))
        (count,) = struct.unpack_from("=I", self._info(asked), _PROG_INFO_MAP_COUNT)
        return ids[:count]

    def _info(self, asked: bytes) -> bytes:
        info = ctypes.create_string_buffer(asked, _PROG_INFO.size)
        size = ctypes.c_uint32(_PROG_INFO.size)
        result = libbpf.library().bpf_obj_get_info_by_fd(self.fd, info, ctypes.byref(size))
        if result < 0:
            libbpf.check(result, f"{self.name}: information")
        return info.raw

    def run_count(self) -> int:
        """How often the kernel ran it while counted_runs() was in force. Raises LibbpfError."""
        return self.info().runs


class BpfObject(Closing):
    """An object file, opened and perhaps loaded; a context manager that closes it.

    What programs and maps were used for must have ended before: see vmtest.guest.attach.
    """

    def __init__(self, path: pathlib.Path, like: "BpfObject | None" = None) -> None:
        """Opens `path`. Raises LoadError if libbpf cannot read it.

        `like`: the same file as it was opened before; what is known of it is not asked again, and
        nobody listens to what libbpf says of it.

        `skipped_sections` are those of data that this libbpf does not recognise.

        Maps that ask to be pinned are not: two loads would share them, and a pin outlives its test.
        Sharing is reuse_maps()'s.
        """
        libbpf.raise_memlock_limit()
        lib = libbpf.library()
        self.path = path
        self._loaded = False
        self._maps: dict[str, Map] | None = None
        self._handle: int | None = None
        if like is not None:
            self._handle = lib.bpf_object__open_file(os.fsencode(path), None)
        self.skipped_sections: tuple[str, ...] = like.skipped_sections if like else ()
        if self._handle is None:
            with libbpf.captured_messages() as messages:
                self._handle = lib.bpf_object__open_file(os.fsencode(path), None)
            self.skipped_sections = tuple(_SKIPPED.findall("".join(messages)))
            if not self._handle:
                raise libbpf.LoadError(
                    ctypes.get_errno(), f"{path.name}: cannot open", "".join(messages)
                )
        # Not all: with some versions unpinning what has no path is an error.
        self._pinned: list[int] = like._pinned if like else self._places_of_pinned_maps()
        there = self._map_handles() if self._pinned else []
        for place in self._pinned:
            libbpf.check(lib.bpf_map__set_pin_path(there[place], None), f"{path.name}: pin path")

    @functools.cached_property
    def programs(self) -> dict[str, Program]:
        """The programs by name, in the file's order."""
        handles = _walk(libbpf.library().bpf_object__next_program, self._open())
        return {program.name: program for program in map(Program, handles)}

    def choose(self, places: Collection[int]) -> list[Program]:
        """Before load: has load() include the programs at these places of the file, no others.

        Returns them, in the file's order. Raises LibbpfError.
        """
        # As plain as can be: of an object with many programs this runs often.
        lib = libbpf.library()
        following, set_autoload = lib.bpf_object__next_program, lib.bpf_program__set_autoload
        outer, chosen, place = self._open(), [], 0
        handle: int | None = following(outer, None)
        while handle:
            wanted = place in places
            if (result := set_autoload(handle, wanted)) < 0:
                libbpf.check(result, f"{Program(handle).name}: autoload")
            if wanted:
                chosen.append(Program(handle))
            handle = following(outer, handle)
            place += 1
        return chosen

    def close(self) -> None:
        """Closes all programs and maps of the object; a second time it does nothing."""
        if self._handle:
            libbpf.library().bpf_object__close(self._handle)
            self._handle = None

    def load_in_silence(self) -> int:
        """As load(), with nobody listening to what libbpf says. Returns the errno, 0 for success.

        What was refused cannot be loaded again.
        """
        result: int = libbpf.library().bpf_object__load(self._open())
        self._loaded = result >= 0
        return max(-result, 0)

    def load(self) -> None:
        """Makes the maps and has every program verified.

        Raises LoadError, with the reason that `vmtest verify` would give and the end of the
        verifier's log in its message, and all of that log as `log`.
        """
        lib = libbpf.library()
        with libbpf.captured_messages() as messages:
            result = lib.bpf_object__load(self._open())
        if result < 0:
            log = "".join(messages)
            why = self._why(-result, log)
            raise libbpf.LoadError(-result, f"{self.path.name}: cannot load", log, why)
        self._loaded = True

    def _why(self, number: int, messages: str) -> str:
        """Reason, remedy and evidence of a load that was refused."""
        program = next((p for p in self.programs.values() if _refused(p.name, messages)), None)
        failure = Failure(
            errno=libbpf.errno_name(number),
            messages=messages,
            log=verifierlog.embedded(messages),
            program_type=kinds.program_type_name(program.kind) if program else "",
            attach_type=(
                kinds.described_attach_type(program.kind, program.attach_type) if program else ""
            ),
            maps=tuple(self.map_shapes()),
            section=program.section if program else "",
            code=program.code if program else b"",
            trace=verifierlog.embedded(messages),
            libbpf=libbpf.version(),
            skipped=self.skipped_sections,
            zeroed=zeroed_members(self.path, messages),
        )
        reason = explain(failure, running_kernel())
        told = [f"{program.name if program else 'reason'}: {reason.code}: {reason.text}"]
        told += [f"remedy: {reason.remedy}"] if reason.remedy else []
        return "\n".join([*told, *([f"evidence: {reason.evidence}"] if reason.evidence else [])])

    @property
    def maps(self) -> dict[str, Map]:
        """The maps by name. Raises RuntimeError before load()."""
        if not self._loaded:
            raise RuntimeError(f"{self.path.name} is not loaded: it has no maps yet")
        if self._maps is None:
            lib = libbpf.library()
            self._maps = {
                _text(lib.bpf_map__name(handle)): Map(
                    fd=lib.bpf_map__fd(handle),
                    name=_text(lib.bpf_map__name(handle)),
                    kind=lib.bpf_map__type(handle),
                    key_size=lib.bpf_map__key_size(handle),
                    value_size=lib.bpf_map__value_size(handle),
                    max_entries=lib.bpf_map__max_entries(handle),
                    flags=lib.bpf_map__map_flags(handle),
                )
                for handle in self._map_handles()
            }
        return self._maps

    def map_names(self) -> list[str]:
        """The names of the maps, loaded or not."""
        lib = libbpf.library()
        return [_text(lib.bpf_map__name(found)) for found in self._map_handles()]

    def map_kinds(self) -> dict[str, int]:
        """The types of the maps by name, as in `enum bpf_map_type`, loaded or not."""
        lib = libbpf.library()
        return {_text(lib.bpf_map__name(h)): int(lib.bpf_map__type(h)) for h in self._map_handles()}

    def map_shapes(self) -> list[MapShape]:
        """What the maps are to be made with, as it stands now."""
        lib = libbpf.library()
        return [
            MapShape(
                name=_text(lib.bpf_map__name(handle)),
                kind=kinds.map_type_name(lib.bpf_map__type(handle)),
                key_size=lib.bpf_map__key_size(handle),
                value_size=lib.bpf_map__value_size(handle),
                max_entries=lib.bpf_map__max_entries(handle),
                flags=lib.bpf_map__map_flags(handle),
                inner=lib.bpf_map__type(handle) not in _OUTER_MAPS
                or bool(lib.bpf_map__inner_map(handle)),
                map_extra=lib.bpf_map__map_extra(handle),
            )
            for handle in self._map_handles()
        ]

    def btf(self) -> Btf:
        """The object's BTF. Raises LibbpfError if it was compiled without (`clang -g` makes it)."""
        handle = libbpf.library().bpf_object__btf(self._open())
        return Btf(libbpf.check_pointer(handle, f"{self.path.name}: BTF"))

    def set_max_entries(self, name: str, count: int) -> None:
        """Before load: the size of a map (of a ring buffer in bytes). Raises LibbpfError."""
        result = libbpf.library().bpf_map__set_max_entries(self._map(name), count)
        libbpf.check(result, f"{name}: {count} entries")

    def set_inner_map(self, name: str, template: Map) -> None:
        """Before load: what the maps inside a map of maps look like. Raises LibbpfError."""
        result = libbpf.library().bpf_map__set_inner_map_fd(self._map(name), template.fd)
        libbpf.check(result, f"{name}: inner map")

    def attach_struct_ops(self, name: str) -> int | None:
        """After load: registers a struct_ops map. Returns a `struct bpf_link *`, as libbpf does."""
        link: int | None = libbpf.library().bpf_map__attach_struct_ops(self._map(name))
        return link

    def reuse_maps(self, other: "BpfObject", names: Iterable[str] | None = None) -> list[str]:
        """Before load: takes maps of a loaded object instead of making its own.

        `names`: those named; otherwise each that both objects define, those of global variables
        excepted. Returns the names. Raises LibbpfError.
        """
        common = names
        if common is None:
            common = [n for n in self.map_names() if n in other.maps and "." not in n]
        taken = list(common)
        for name in taken:
            result = libbpf.library().bpf_map__reuse_fd(self._map(name), other.maps[name].fd)
            libbpf.check(result, f"{name} of {other.path.name} for {self.path.name}")
        return taken

    def get_global(self, name: str) -> int:
        """The global variable `name`, as an unsigned integer; before load its initial value.

        Raises KeyError if there is none.
        """
        variable = self._variable(name)
        end = variable.offset + variable.size
        return int.from_bytes(self._section(variable.section)[variable.offset : end], "little")

    def set_global(self, name: str, value: int) -> None:
        """Sets the global variable `name`, of whatever integer type.

        After load, not of `.rodata`: the kernel freezes it (LibbpfError). Raises KeyError if there
        is no such variable and OverflowError if the value does not fit.
        """
        variable = self._variable(name)
        new = value.to_bytes(variable.size, "little", signed=value < 0)
        if not self._loaded:
            address, _ = self._initial(variable.section)
            ctypes.memmove(address + variable.offset, new, len(new))
            return
        section = bytearray(self._section(variable.section))
        section[variable.offset : variable.offset + variable.size] = new
        self._section_map(variable.section).update(bytes(4), bytes(section))

    def _variable(self, name: str) -> Variable:
        if name not in self._variables:
            there = ", ".join(sorted(self._variables))
            raise KeyError(f"{self.path.name} has no variable {name} (there: {there})")
        return self._variables[name]

    @functools.cached_property
    def _variables(self) -> dict[str, Variable]:
        # Once: every type of the object has to be looked at, 10 ms and more on an emulated CPU.
        return self.btf().variables()

    def _section(self, section: str) -> bytes:
        if not self._loaded:
            return ctypes.string_at(*self._initial(section))
        value = self._section_map(section).lookup(bytes(4))
        assert value is not None, f"{section}: an array always has its only entry"
        return value

    def _section_map(self, section: str) -> Map:
        # The map of `.data` is named after the object as well: "cgroup_s.data".
        return self.maps[_text(libbpf.library().bpf_map__name(self._map(section)))]

    def _initial(self, section: str) -> tuple[int, int]:
        size = ctypes.c_size_t()
        address = libbpf.library().bpf_map__initial_value(self._map(section), ctypes.byref(size))
        return libbpf.check_pointer(address, f"{section}: initial value"), size.value

    def _map(self, name: str) -> int:
        handle = libbpf.library().bpf_object__find_map_by_name(self._open(), name.encode())
        return libbpf.check_pointer(handle, f"{self.path.name}: map {name}")

    def _places_of_pinned_maps(self) -> list[int]:
        pin_path = libbpf.library().bpf_map__pin_path
        return [place for place, found in enumerate(self._map_handles()) if pin_path(found)]

    def _map_handles(self) -> list[int]:
        return list(_walk(libbpf.library().bpf_object__next_map, self._open()))

    def _open(self) -> int:
        if not self._handle:
            raise RuntimeError(f"{self.path.name} is closed")
        return self._handle


def load_sharing(objects: Iterable[BpfObject]) -> None:
    """Loads objects that are open, one after the other.

    Maps are shared by name: the first object that has a map makes it, and all later ones take that
    one instead of making their own. Global variables are not shared: a switch that several objects
    have is to be set in each. Raises LibbpfError if a map differs from its namesake, LoadError.
    """
    owners: dict[str, BpfObject] = {}
    for loading in objects:
        names = [name for name in loading.map_names() if "." not in name]
        for owner in set(owners.values()):
            loading.reuse_maps(owner, [name for name in names if owners.get(name) is owner])
        loading.load()
        for name in names:
            owners.setdefault(name, loading)


@contextlib.contextmanager
def counted_runs() -> Iterator[None]:
    """Has the kernel count the runs of every program (BPF_ENABLE_STATS, 5.8).

    Raises LibbpfError.
    """
    libbpf.raise_memlock_limit()
    fd = libbpf.check(libbpf.library().bpf_enable_stats(_STATS_RUN_TIME), "counting runs")
    try:
        yield
    finally:
        os.close(fd)


def _refused(program: str, messages: str) -> bool:
    return f"libbpf: prog '{program}': BPF program load failed: " in messages or (
        f"libbpf: prog '{program}': failed to find " in messages
    )


def _walk(following: "ctypes._NamedFuncPointer", outer: int) -> Iterator[int]:
    handle: int | None = following(outer, None)
    while handle:
        yield handle
        handle = following(outer, handle)


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
