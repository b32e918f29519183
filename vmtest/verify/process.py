"""The loader process of ``vmtest verify`` in a guest, and the record of what it said.

The guest's side is ``vmtest/guest/loader/main.py``: it tells as JSON lines what it is about to
load and what came of it, and waits for an answer before.  The answer goes out once
everything before it is on disk: when a load takes the kernel along, the record is
complete and names the load.  Several programs may be announced together; when the
kernel dies under one of those, the next process loads them one by one.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import Enum, auto
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

from vmtest.errors import DeadlineExceeded, InfrastructureError
from vmtest.host.write import LimitedRows, append
from vmtest.matrix.wire import Hello, Lines
from vmtest.model.loads import LoadResult, Verdict, Visits, row_of
from vmtest.model.project import Loading
from vmtest.model.text import last_line
from vmtest.runs.folder import PROBE
from vmtest.runs.rows import LOADS, OTHER_LOADS
from vmtest.verify.ahead import PLAN, loader_argv, loader_member
from vmtest.verify.events import (
    EVENTS,
    Described,
    FeatureProbe,
    Finish,
    Load,
    Object,
    Start,
    Trace,
    Traced,
    longest_line,
)
from vmtest.verify.features import NO_FEATURES, Features
from vmtest.verify.missing import Modules, no_modules, with_module
from vmtest.verify.untold import with_type
from vmtest.verify.visits import LEVEL, visits
from vmtest.vm.session import Check, Session, Stream

LOG = "verify.log"
"""The file in a kernel's folder with what the loader wrote on standard error."""

LOGS_LIMIT = 1 << 30
"""Bytes of the verifier's logs of one kernel together."""

_GRACE = 10.0  # seconds for a killed process to end, times the deadlines' factor
_LONGEST_NAME = 80
_CUT = "\n[the log is cut here; the same at log level 4:]\n"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object that shall be loaded: its name in the reports, its file in the payload.

    ``other`` is true for a build that is only compared with (``--against``), ``path`` is
    its file on the host, ``libbpf`` the version that loads it where there are several, ``loader``
    what loads it in the place of libbpf.
    """

    name: str
    file: str
    loading: Loading = field(default_factory=Loading)
    required: bool = True
    other: bool = False
    path: Path | None = None
    libbpf: str = ""
    loader: str = ""

    @property
    def row(self) -> str:
        """What its loads are called: by its name, and by the loader where there are several."""
        by = self.loader or (f"libbpf {self.libbpf}" if self.libbpf else "")
        return row_of(self.name, by) if by else self.name


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be loaded, and how.

    ``programs`` are patterns, ``log_level`` is the verifier's (1, 2, 4),
    ``log_limit`` bytes of one log, ``timeout`` seconds of one load under KVM, ``config``
    the kernel's config in the payload ("" without one), ``modules`` what is loaded before,
    beside what the objects name; ``every_libbpf`` whether each libbpf that the guest has loads
    everything, and not the first one alone; ``loaders`` are the names of other loaders that do,
    and ``by_libbpf`` is whether libbpf does.
    """

    objects: tuple[Wanted, ...]
    programs: tuple[str, ...] = ("*",)
    attach: bool = False
    log_level: int = 4
    log_limit: int = 16 << 20
    timeout: float = 60.0
    config: str = ""
    modules: tuple[str, ...] = ()
    every_libbpf: bool = False
    loaders: tuple[str, ...] = ()
    by_libbpf: bool = True

    @property
    def whole(self) -> bool:
        """Whether each object is loaded as a whole too: not where only some programs are asked."""
        return "*" in self.programs

    def asks(self, program: str) -> bool:
        """Whether ``program`` is one of those to load."""
        return any(fnmatchcase(program, pattern) for pattern in self.programs)


class End(Enum):
    """How a loader process ended, the session still standing."""

    FINISHED = auto()
    DIED = auto()
    KILLED = auto()
    """It was over its time."""


class LoaderStuck(Exception):
    """A loader over its time cannot be killed: it is stuck in the kernel."""


def log_name(name: str) -> str:
    """``name`` as the name of a file: no separator, no shell character, not hidden, not long."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:_LONGEST_NAME]
    return f"_{plain}" if plain[:1] in ("", ".", "-") else plain


class Record:
    """What was loaded so far, in memory and in the kernel's folder; a context manager.

    ``loads`` are the results of the objects asked for, ``others`` of those compared with.
    A log that brings all of them over ``logs_limit`` bytes is not written: InfrastructureError,
    once its verdict is.
    """

    def __init__(self, folder: Path, order: Order, logs_limit: int = LOGS_LIMIT) -> None:
        self.loads: list[LoadResult] = []
        self.others: list[LoadResult] = []
        self._folder = folder
        self._order = order
        self._logs: dict[str, int] = {}  # bytes by path, in small letters
        self._logs_size = 0
        self._logs_limit = logs_limit
        self._files: dict[bool, IO[bytes]] = {}

    def __enter__(self) -> Record:
        self._files = {
            other: LimitedRows(self._folder / name)
            for other, name in ((False, LOADS), (True, OTHER_LOADS))
            if not other or any(wanted.other for wanted in self._order.objects)
        }
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, wanted: Wanted, result: LoadResult, log: str = "") -> LoadResult:
        """Write ``result`` and its ``log`` down, flushed; returns it with the log's path."""
        result = replace(result, object=wanted.row, required=wanted.required)
        no_room: InfrastructureError | None = None
        if log:
            try:
                result = replace(result, log=self._write_log(wanted, result.program, log))
            except InfrastructureError as error:
                no_room = error  # the verdict stays
        (self.others if wanted.other else self.loads).append(result)
        self._write_row(wanted, result)
        if no_room is not None:
            raise no_room
        return result

    def add_log(self, wanted: Wanted, program: str, log: str, cut: bool) -> None:
        """Write another ``log`` of the last load, of ``program``, in the place of the first one."""
        loads = self.others if wanted.other else self.loads
        self._put_log(loads[-1].log, log)
        assert loads[-1].program == program
        read = visits(log) if self._order.log_level == LEVEL else Visits()
        cut = cut or loads[-1].log_cut
        found = replace(loads[-1], log_cut=cut, visits=read if read.total else None)
        if found != loads[-1]:
            loads[-1] = found
            self._write_row(wanted, found)

    def _write_row(self, wanted: Wanted, result: LoadResult) -> None:
        row = json.dumps(asdict(result), ensure_ascii=False)
        append(self._files[wanted.other], row.encode("utf-8", "replace") + b"\n")

    def _write_log(self, wanted: Wanted, program: str, log: str) -> str:
        folder = "against" if wanted.other else "verifier"
        stem = f"{folder}/{log_name(wanted.row)}/{log_name(program or 'object')}"
        path, n = f"{stem}.log", 1
        # Names are compared as some file systems do: without regard to case.
        while path.lower() in self._logs:
            n += 1
            path = f"{stem}-{n}.log"
        (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
        self._put_log(path, log)
        return path

    def _put_log(self, path: str, log: str) -> None:
        """Write ``log``, also in the place of another one."""
        data = log.encode("utf-8", "replace")
        more = len(data) - self._logs.get(path.lower(), 0)
        if self._logs_size + more > self._logs_limit:
            raise InfrastructureError(
                f"{self._folder.name}: the verifier's logs of this kernel are over "
                f"{self._logs_limit >> 20} MiB together; load fewer programs at once (--program), "
                "or keep shorter logs (--log-level 4, --log-limit 1M)"
            )
        self._logs[path.lower()] = len(data)
        self._logs_size += more
        (self._folder / path).write_bytes(data)

    def keep_probe(self, text: str) -> None:
        """Write down what ``bpftool feature probe`` said."""
        (self._folder / PROBE).write_text(text, encoding="utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told of the loads, on the worker's thread: object's place, object, program."""

    started: Callable[[int, Wanted, str], None]
    finished: Callable[[LoadResult], None]


class LoaderProcess:
    """Has the objects of an ``Order`` loaded, by as many processes and boots as it takes.

    ``progress`` grows with every load that came to an end by itself, and with every
    group of programs of which it is not known which one was the last.  ``overtime`` says how
    long the last load ran that was killed, ``notes`` which logs were not had, and why;
    ``libbpf`` is the version that loads in the guest.  What bpftool says of the kernel is asked
    once, and not at all where ``features`` knows it.
    """

    def __init__(
        self,
        order: Order,
        record: Record,
        watch: Watch,
        modules: Modules = no_modules,
        features: Features = NO_FEATURES,
    ) -> None:
        self.progress = 0
        self.last_words = ""
        self.overtime = ""
        self.notes: list[str] = []
        self.libbpf = ""
        self.order = order
        self._record = record
        self._watch = watch
        self._modules = modules
        self._features = features
        if known := features.known:
            record.keep_probe(known)
        self._probed = bool(known)
        self._programs: dict[int, dict[str, Described]] = {}
        self._done: dict[tuple[int, str], Verdict] = {}
        self._complete: set[int] = set()
        self._begin()

    def _begin(self) -> None:
        """Forget what belongs to one process."""
        # What was announced and has not come to its end, as far as is known here.
        self._running: list[tuple[int, str]] = []
        self._opened: list[int] = []
        # The program whose log is taken, and the log of its verdict.
        self._tracing: tuple[int, str] | None = None
        self._log = ""
        self._asked = self._next
        self._pid = 0
        self._ended = False
        self._lines = Lines(longest_line(self.order.log_limit))

    @property
    def left(self) -> tuple[int, ...]:
        """The numbers of the objects that are not done with."""
        return tuple(n for n in range(len(self.order.objects)) if n not in self._complete)

    @property
    def _next(self) -> tuple[int, ...]:
        """Those of ``left`` that the next process loads: it has but one loader."""
        by = {n: (one.libbpf, one.loader) for n, one in enumerate(self.order.objects)}
        left = self.left
        return tuple(n for n in left if by[n] == by[left[0]])

    def plan(self) -> dict[str, Any]:
        """What the guest is told: the objects that are left, and what of them is done."""
        order, left = self.order, self._next
        loader = order.objects[left[0]].loader if left else ""
        return {
            "loader": loader_member(order.loaders.index(loader)) if loader else "",
            "objects": [self._entry(n) for n in left],
            "attach": order.attach,
            "log_level": order.log_level,
            "log_limit": order.log_limit,
            "timeout": order.timeout,
            "config": order.config,
            "probe": not self._probed,
            "done": [[str(n), name] for n, name in sorted(self._done) if n in left],
        }

    def _entry(self, number: int) -> dict[str, Any]:
        wanted = self.order.objects[number]
        loading = wanted.loading
        return {
            # Not the name: two objects may share one, and a name may hold anything.
            "key": str(number),
            "file": wanted.file,
            "programs": list(self.order.programs),
            "whole": self.order.whole,
            "types": dict(loading.types),
            "max_entries": dict(loading.max_entries),
            "globals": dict(loading.globals),
            "inner_maps": {name: dict(value) for name, value in loading.inner_maps.items()},
            "skip": list(loading.skip),
        }

    def execute(
        self,
        session: Session,
        python: str,
        log: IO[bytes],
        check: Check,
        *,
        factor: float,
        start_limit: float,
        ready: Stream | None = None,
    ) -> End:
        """Run one process until it ends.

        ``factor`` stretches the deadline of a load, ``start_limit`` is real seconds
        until the process says its first word, or another one while nothing is loaded.
        ``ready`` is a loader that waits in the guest.
        Raises SessionLost, LoaderStuck, InfrastructureError for a process that does not start,
        BadLine for one that says what it cannot, or ends without a verdict of every load, and
        what ``check`` raises.
        """
        self._begin()
        session.put(json.dumps(self.plan()).encode(), PLAN)
        libbpf = next((self.order.objects[n].libbpf for n in self._asked), "")
        stream = ready or session.stream(loader_argv(python, libbpf))
        if ready is not None:
            ready.send(b"+")
        heard = time.monotonic()
        killed = False
        while (got := stream.receive(0.2)) is not None:
            check()
            now = time.monotonic()
            out, err = got
            if err:
                append(log, err)
                self.last_words = last_line(err.decode(errors="replace")) or self.last_words
            if out:
                heard = now
                self._take(out, stream)
                heard = time.monotonic()  # what it took here is not the guest's silence
            limit = self.order.timeout * factor if self._pid else start_limit
            if not (self._running or self._tracing):
                limit = max(limit, start_limit)  # bpftool's probe, after the last load
            if killed:
                limit = _GRACE * factor
            if now - heard > limit:
                if self._pid and not killed:
                    self.overtime = _overtime(now - heard, self.order.timeout, factor)
                if killed or not self._pid:
                    raise LoaderStuck
                self._kill(session, _GRACE * factor, check)
                killed, heard = True, time.monotonic()
        if self._ended:
            return End.FINISHED
        if not self._pid:
            raise InfrastructureError(
                f"the loader did not start in the guest: {self.last_words or 'it said nothing'}"
            )
        return End.KILLED if killed else End.DIED

    def _kill(self, session: Session, limit: float, check: Check) -> None:
        deadline = time.monotonic() + limit

        def late() -> None:
            check()
            if time.monotonic() > deadline:
                raise LoaderStuck

        try:
            session.run(["kill", "-9", str(self._pid)], check=late)
        except DeadlineExceeded as error:
            raise LoaderStuck from error

    def _take(self, data: bytes, stream: Stream) -> None:
        for event in self._lines.feed(data, EVENTS):
            if self._ended:
                raise self._lines.bad(event.event, "comes after the last event")
            match event:
                case Hello():
                    self._pid = event.pid
                case Object():
                    number = self._number(event.object)
                    self._open(number)
                    self._programs[number] = {one.name: one for one in event.programs}
                    if not self.order.whole and (number, "") in self._running:
                        self._running.remove((number, ""))  # to open it was all that was to do
                case Start():
                    self._start(self._number(event.object), event.programs)
                    stream.send(b"+")
                case Load():
                    self._load(self._number(event.object), event)
                case Trace():
                    self._trace(self._number(event.object), event.program)
                    stream.send(b"+")
                case Traced():
                    self._traced(self._number(event.object), event)
                case FeatureProbe():
                    self._record.keep_probe(event.text)
                    self._features.keep(event.text)
                    self._probed = True
                case Finish():
                    self._finish(event.status)

    def _number(self, text: str) -> int:
        """The number of an object that this process was asked for."""
        for number in self._asked:
            if text == str(number):
                return number
        raise self._lines.bad(text, "is of an object that was not asked for")

    def _start(self, number: int, programs: tuple[str, ...]) -> None:
        if self._running or self._tracing:
            raise self._lines.bad(", ".join(programs), "starts a load while another one runs")
        known = self._programs.get(number, {})
        if programs != ("",) and not known.keys() >= set(programs):
            raise self._lines.bad(", ".join(programs), "starts what is not in the object")
        self._open(number)
        self._running = [(number, program) for program in programs]
        for program in programs:
            self._watch.started(number + 1, self.order.objects[number], program)

    def _load(self, number: int, event: Load) -> None:
        if (number, event.program) not in self._running:
            raise self._lines.bad(event.program, "is the verdict of a load that does not run")
        self._running.remove((number, event.program))
        self.progress += 1
        described = self._programs.get(number, {}).get(event.program)
        wanted = self.order.objects[number]
        told = with_module(event, self._modules)
        if wanted.path is not None:
            told = with_type(told, wanted.name, wanted.path)
        self._add(number, told.result(described), event.log)
        self._log = event.log

    def _trace(self, number: int, program: str) -> None:
        if self._running or self._tracing:
            raise self._lines.bad(program, "begins a log while another load runs")
        record = self._record
        loads = record.others if self.order.objects[number].other else record.loads
        if not loads or loads[-1].program != program or not loads[-1].log:
            raise self._lines.bad(program, "begins a log of what was not loaded just before")
        self._tracing = number, program

    def _traced(self, number: int, event: Traced) -> None:
        if self._tracing != (number, event.program):
            raise self._lines.bad(event.program, "is the log of a load that does not run")
        self._tracing = None
        log = f"{event.log}{_CUT}{self._log}" if event.log_cut else event.log
        self._record.add_log(self.order.objects[number], event.program, log, event.log_cut)

    def log_lost(self, why: str) -> str:
        """Note that the log which was being taken was not had; returns whose it was, else ""."""
        if self._tracing is None:
            return ""
        (number, program), self._tracing = self._tracing, None
        wanted = self.order.objects[number]
        words = f"the log at level {self.order.log_level} was not had: {why}"
        label = LoadResult(wanted.row, program, Verdict.NOT_LOADED).label
        self.notes.append(f"{label}: {words}")
        self._record.add_log(wanted, program, f"{self._log}\n[{words}]\n", False)
        return label

    def _finish(self, status: int) -> None:
        if status != 0:
            return
        if missing := self._missing():
            raise self._lines.bad(", ".join(missing), "ends without a verdict of")
        self._complete.update(self._asked)
        self._ended = True

    def _missing(self) -> list[str]:
        """What was asked of this process and has no verdict."""
        labels = []
        for number in self._asked:
            whole = self._done.get((number, ""))
            if number not in self._programs and whole is not None and not whole.bad:
                labels.append(f"the programs of {self.order.objects[number].name}")
            for name in self._wanted(number):
                if (number, name) not in self._done:
                    wanted = self.order.objects[number].name
                    labels.append(LoadResult(wanted, name, Verdict.NOT_LOADED).label)
        return labels

    def _wanted(self, number: int) -> list[str]:
        """The loads of an object, the whole among them where it is asked for.

        It also stands for an object that was not opened.
        """
        whole = self.order.whole or number not in self._programs
        return ([""] if whole else []) + self._chosen(number)

    def _chosen(self, number: int) -> list[str]:
        """The programs of an object that are to be loaded, as far as it was opened."""
        skip = self.order.objects[number].loading.skip
        return [
            name
            for name in self._programs.get(number, {})
            if self.order.asks(name) and not any(fnmatchcase(name, pattern) for pattern in skip)
        ]

    def _open(self, number: int) -> None:
        """The process has come to this object, so it is done with those before."""
        if number not in self._opened:
            self._complete.update(self._opened)
            self._opened.append(number)

    def _add(self, number: int, result: LoadResult, log: str = "") -> None:
        if (number, result.program) in self._done:
            return
        self._done[number, result.program] = result.verdict
        wanted = self.order.objects[number]
        libbpf = "" if wanted.loader else wanted.libbpf or self.libbpf
        told = replace(result, libbpf=libbpf, loader=wanted.loader)
        kept = self._record.add(wanted, told, log)
        self._watch.finished(kept)

    def blame(self, verdict: Verdict, line: str) -> bool:
        """Give ``verdict`` to the load that ran, or the object that was being opened.

        To none of several that were announced together: they are left for the next process.
        Returns whether there was one.
        """
        if len(self._running) > 1:
            self._running.clear()
            self.progress += 1
            return True
        if self._running:
            ((number, program),) = self._running
            self._running.clear()
        else:
            unopened = [n for n in self._next if n not in self._opened]
            if not unopened:
                return False
            number, program = unopened[0], ""
            self._complete.add(number)
        self._add(number, LoadResult("", program, verdict, line=line))
        return True

    def give_up(self, why: str) -> int:
        """Note what is left as not loaded, because of ``why``; returns how many loads."""
        before = len(self._done)
        for number in self.left:
            for program in self._wanted(number):
                self._add(number, LoadResult("", program, Verdict.NOT_LOADED, line=why))
            self._complete.add(number)
        return len(self._done) - before


def _overtime(seconds: float, timeout: float, factor: float) -> str:
    """``over 312 s``, and how that came of ``timeout``."""
    stretched = f" (--timeout {timeout:g}, stretched {factor:.1f} times)" if factor > 1 else ""
    return f"over {seconds:.0f} s{stretched}" if seconds >= 1 else f"over {seconds:.1f} s"
