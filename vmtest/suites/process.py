"""Suites in a guest: payload in, one pytest process, results out as they happen.

Knows the guest only as a ``Session``; knows no suite by name.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import vmtest
from vmtest.errors import BadLine, DeadlineExceeded, InfrastructureError, SessionLost, UsageError
from vmtest.host.files import FileContent, Files
from vmtest.host.write import append, write_file
from vmtest.matrix.follow import follow
from vmtest.matrix.wire import Hello, Lines
from vmtest.model.kernels import Library, Limits
from vmtest.model.project import Suite
from vmtest.model.results import TestResult
from vmtest.runs.rows import unfinished, write_result
from vmtest.suites.events import (
    EVENTS,
    LONGEST_LINE,
    OF_MODULES,
    Collected,
    Finish,
    Result,
    Start,
)
from vmtest.vm.session import Check, Session, Stream

GUEST_ROOT = "/tmp/vmtest"
"""Where the payload lies in the guest (a file system in its memory)."""
MODULES = "modules"
"""The payload's file with the names of the kernel's modules that are loaded before anything."""
PAYLOAD_LIMIT = 64 << 20
"""Bytes of the unpacked payload beyond which it is surely a mistake."""

_KNOWN_FAILURES = "known_failures.json"
_SKIPPED_FOLDERS = {"__pycache__", "node_modules"}


@dataclass(frozen=True, slots=True)
class Payload:
    """What goes into a guest: a tar archive, and where its parts lie once unpacked.

    ``suites`` are those of the configuration that were asked for; ``root`` is
    the folder that pytest's node ids are relative to, on the host; ``objects``
    has name and sha256 of each object.
    """

    archive: bytes
    suites: tuple[Suite, ...]
    root: Path
    objects: tuple[tuple[str, str], ...] = ()

    def guest_path(self, suite: Suite) -> str:
        """Where the tests of ``suite`` lie in the guest."""
        return str(PurePosixPath(GUEST_ROOT, "suites", suite.tests.relative_to(self.root)))

    def suite_of(self, test: str) -> str:
        """The name of the suite that the node id ``test`` belongs to, "" for none."""
        path = self.root / test.split("::", 1)[0]
        return next((s.name for s in self.suites if path == s.tests or s.tests in path.parents), "")


def suites_root(suites: Iterable[Suite]) -> Path:
    """The common folder of all suites: pytest's rootdir, whatever is selected of them.

    Without any suite it is /: nothing lies below it in a payload.
    """
    folders = [suite.tests if suite.tests.is_dir() else suite.tests.parent for suite in suites]
    common = folders[0] if folders else Path("/")
    while not all(common == folder or common in folder.parents for folder in folders):
        common = common.parent
    return common


def pack(
    suites: Sequence[Suite],
    chosen: Sequence[Suite],
    objects: Mapping[str, Path],
    known_failures: str = "",
    files: Files | None = None,
    modules: Sequence[str] = (),
) -> Payload:
    """The payload for ``chosen`` out of the configured ``suites``, with ``objects`` by name.

    Every file beside a suite's tests goes along (conftest.py, helpers, data), and
    ``known_failures``, which is JSON for ``vmtest.guest.known_failures``.
    ``files`` reads them all, for every kernel of a run; ``modules`` are loaded in the guest.
    Raises UsageError for a missing object or a payload over 64 MiB.
    """
    files = files or Files()
    for suite in chosen:
        if not suite.tests.exists():
            raise UsageError(
                f'kernels.toml: suite "{suite.name}": tests = "{suite.tests}" does not exist'
            )
    root = suites_root(suites)
    members: dict[str, FileContent | bytes] = {}
    for suite in suites:
        folder = suite.tests if suite.tests.is_dir() else suite.tests.parent
        for path in files.below(folder, _files):
            members[f"suites/{path.relative_to(root)}"] = files.read(path, "suites")
    digests: dict[str, str] = {}
    for suite in chosen:
        for name in suite.objects:
            if name not in objects:
                raise UsageError(
                    f'suite "{suite.name}": there is no object "{name}" for this kernel; '
                    f'add [[object]] name = "{name}" to kernels.toml or give --object {name}=PATH'
                )
            content = files.read(objects[name], "objects")
            members[f"objects/{name}.o"], digests[name] = content, content.sha256
    members |= guest_code(files)
    size = sum(map(_size, members.values()))
    if size > PAYLOAD_LIMIT:
        raise UsageError(
            f"the payload below {root} has {size >> 20} MiB, more than {PAYLOAD_LIMIT >> 20}: "
            "keep a suite's tests in a folder of their own"
        )
    if known_failures:
        members[_KNOWN_FAILURES] = known_failures.encode()
    members |= module_list(modules)
    return Payload(tar(members), tuple(chosen), root, tuple(sorted(digests.items())))


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(map(_skipped, path.relative_to(folder).parts))
    ]


def _skipped(part: str) -> bool:
    """Caches, environments, git's and our own state: nothing of it is a test's."""
    return part in _SKIPPED_FOLDERS or part.startswith(".")


def module_list(modules: Sequence[str]) -> dict[str, bytes]:
    """The member of a payload that has the modules to load; none for none."""
    return {MODULES: "".join(f"{name}\n" for name in modules).encode()} if modules else {}


def guest_code(files: Files) -> dict[str, FileContent | bytes]:
    """Our own code that every payload has, by its place in the archive."""
    package = Path(vmtest.__file__).parent
    paths = (package / "__init__.py", *sorted((package / "guest").rglob("*.py")))
    return {f"vmtest/{path.relative_to(package)}": files.read(path) for path in paths}


def _size(content: FileContent | bytes) -> int:
    return len(content if isinstance(content, bytes) else content.data)


def tar(members: Mapping[str, FileContent | bytes]) -> bytes:
    """An archive of files, or of what is to be in them, by their place in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else content.data
            executable = isinstance(content, FileContent) and content.executable
            info.mode = 0o755 if executable else 0o644
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


# Where distributions keep the kernel's config, and where libbpf looks for what __kconfig externs
# ask.  The guest's root is an image, in whose /boot is nothing that a test could miss; without the
# config everything else works as before.
LAY_CONFIG = (
    f"place=/boot/config-$(cat /proc/sys/kernel/osrelease); [ ! -f {GUEST_ROOT}/config ] || "
    "[ -e $place ] || { { [ -w /boot ] || mount -t tmpfs vmtest /boot; } && "
    f"ln -s {GUEST_ROOT}/config $place; }} || "
    'echo "vmtest: the kernel\'s config could not be laid at $place" >/dev/kmsg'
)
"""The shell's words that lay the config, if it came along, at /boot/config-RELEASE."""

# bpffs: mounting it loads a module on some kernels (0.15 s emulated), so it is
# left to here, off the way to the first SSH session.
_UNPACK = (
    f"mkdir -p {GUEST_ROOT} && tar -xf {GUEST_ROOT}.tar -C {GUEST_ROOT} && rm {GUEST_ROOT}.tar && "
    f"{{ [ ! -f {GUEST_ROOT}.config ] || mv {GUEST_ROOT}.config {GUEST_ROOT}/config; }} && "
    f"{{ {LAY_CONFIG}; }} && "
    "{ grep -q ' /sys/fs/bpf ' /proc/mounts || mount -t bpf bpf /sys/fs/bpf; } && "
    # What [[object]] modules and --module name; a kernel without one says so in its own log.
    f"for module in $(cat {GUEST_ROOT}/{MODULES} 2>/dev/null); do modprobe -q $module || "
    'echo "vmtest: this kernel has no module $module" >/dev/kmsg; done && '
    "cat /proc/sys/kernel/osrelease"
)
LIBRARY_FOLDERS = "/usr/lib/*-linux-gnu /lib/*-linux-gnu /usr/lib64 /lib64 /usr/lib /lib"
"""Where a guest's own libbpf.so.1 is searched: patterns, for a shell."""
_NO_LIBBPF = 9
# The versions in "$@" go to their folders, the guest's own libbpf is named, and the first version
# is laid over it.
_LIBBPF = (
    f"for version; do mkdir -p {GUEST_ROOT}/libbpf/$version && mv {GUEST_ROOT}-libbpf-$version "
    f"{GUEST_ROOT}/libbpf/$version/libbpf.so.1 || exit; done; "
    f"for place in {LIBRARY_FOLDERS}; do "
    "own=$place/libbpf.so.1; test -e $own || continue; readlink -f $own; test $# = 0 || "
    f'mount --bind {GUEST_ROOT}/libbpf/"$1"/libbpf.so.1 $own; exit; done; '
    f"test $# = 0 || exit {_NO_LIBBPF}"
)
_LIBBPF_FILE = re.compile(r"libbpf\.so\.(\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class Installed:
    """What a guest says: the ``release`` that it runs, and the version of its libbpf ("1.5").

    ``libbpf`` is "" where there is none, or its file's name does not say.
    """

    release: str
    libbpf: str


def install(
    session: Session,
    archive: bytes,
    check: Check,
    config: Path | None = None,
    libraries: Sequence[Library] = (),
) -> Installed:
    """Copy the payload ``archive`` into the guest by SFTP and unpack it.

    ``config`` is the kernel's, which is laid where libbpf and others look for it.  The first of
    ``libraries`` is laid over the guest's own libbpf; all are put where :func:`library_path` says.
    Raises SessionLost, InfrastructureError when the guest has no room, or OSError when ``config``
    cannot be read.
    """
    session.put(archive, f"{GUEST_ROOT}.tar")
    if config is not None:
        session.put(config.read_bytes(), f"{GUEST_ROOT}.config")
    for library in libraries:
        session.put(library.data, f"{GUEST_ROOT}-libbpf-{library.version}")
    versions = [library.version for library in libraries]
    script = f"{_UNPACK} && {{ {_LIBBPF}; }}"
    done = session.run(["sh", "-c", script, "sh", *versions], check=check)
    if done.status == _NO_LIBBPF:
        raise InfrastructureError(
            "[guest] libbpf is laid over the libbpf.so.1 of the guest's root, which has none; "
            "install one there"
        )
    if done.status != 0:
        raise InfrastructureError(
            f"cannot unpack the payload in the guest: {done.stderr.decode()[-400:]}; "
            "raise memory in kernels.toml"
        )
    release, _, own = done.stdout.decode().strip().partition("\n")
    named = _LIBBPF_FILE.search(own)
    return Installed(release, (*versions, named[1] if named else "")[0])


def library_path(version: str) -> str:
    """The folder in a guest with the libbpf of that version, for LD_LIBRARY_PATH."""
    return f"{GUEST_ROOT}/libbpf/{version}"


def guest_environment() -> dict[str, str]:
    """The environment that suites, commands and shells get in the guest."""
    return {
        "HOME": "/run/vmtest/home",
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": GUEST_ROOT,
        "PYTHONDONTWRITEBYTECODE": "1",
        # Not options of run.py: pytest started by hand in `vmtest shell` judges alike.
        "PYTEST_PLUGINS": "vmtest.guest.known_failures,vmtest.guest.needs",
        "VMTEST_KNOWN_FAILURES": f"{GUEST_ROOT}/{_KNOWN_FAILURES}",
        "VMTEST_OBJECTS": f"{GUEST_ROOT}/objects",
    }


def in_guest_environment(argv: Sequence[str]) -> list[str]:
    """``argv`` run with ``guest_environment`` and nothing else of the SSH server's."""
    return ["env", "-i", *(f"{k}={v}" for k, v in guest_environment().items()), *argv]


def pytest_argv(payload: Payload, python: str, options: Sequence[str]) -> list[str]:
    """The command that runs the suites of ``payload`` in one pytest process."""
    rootdir = f"{GUEST_ROOT}/suites"
    return in_guest_environment(
        [
            python,
            f"{GUEST_ROOT}/vmtest/guest/run.py",
            f"--rootdir={rootdir}",
            "-p",
            "no:cacheprovider",
            "--continue-on-collection-errors",
            *options,
            *(payload.guest_path(suite) for suite in payload.suites),
        ]
    )


@dataclass(frozen=True, slots=True)
class Sink:
    """Where a run's events go as they happen.

    ``results`` gets a JSON line a test, ``log`` what pytest prints, the file
    ``listing`` the ids of all tests; the callbacks run on the worker's thread.
    """

    results: IO[bytes]
    log: IO[bytes]
    listing: Path
    collected: Callable[[tuple[str, ...]], None]
    started: Callable[[str], None]
    finished: Callable[[TestResult], None]


class Run:
    """One pytest process in a guest, and everything it has said so far.

    ``payload`` is what it runs, ``tests`` are the collected ids, ``done`` the
    results in order, ``running`` the test that has started and not finished,
    ``exit_status`` pytest's own (None while it has not ended by itself),
    ``process_status`` its process's (-1 when a signal ended it, None while it has not ended),
    ``deselected`` the files of tests that an option or a plugin left out, ``begun`` whether it
    had come so far as to read a suite, ``bad_line`` why what it said was believed no longer ("").
    """

    def __init__(self, payload: Payload, sink: Sink) -> None:
        self.tests: tuple[str, ...] = ()
        self.deselected: tuple[str, ...] = ()
        self.done: list[TestResult] = []
        self.running: str | None = None
        self.exit_status: int | None = None
        self.process_status: int | None = None
        self.bad_line = ""
        self.log_tail = b""
        self.payload = payload
        self._sink = sink
        self._lines = Lines(LONGEST_LINE)
        self._pid = 0
        self._collected = False
        # How often each collected test is still to come: a plugin may have one run twice.
        self._left: Counter[str] = Counter()

    @property
    def begun(self) -> bool:
        """Whether pytest had said anything by itself: before that, no suite was read."""
        return self._pid != 0

    def execute(
        self,
        session: Session,
        argv: Sequence[str],
        limits: Limits,
        check: Check,
        last_console: Callable[[], float],
    ) -> None:
        """Run ``argv`` to its end, or to the first line that cannot be believed.

        ``limits`` are real seconds; ``last_console`` says when the console last
        spoke (time.monotonic()).  Raises DeadlineExceeded, SessionLost and
        whatever ``check`` raises; what had finished is in ``done`` all the same.
        """
        stream = session.stream(argv)
        try:
            status = follow(
                stream,
                lambda out, err: self._take((out, err), stream),
                limits,
                check,
                last_console,
                lambda: self.exit_status is not None,
            )
        except BadLine as error:
            self.bad_line = str(error)
        except DeadlineExceeded:
            self._where_it_hangs(session, stream)
            raise
        else:
            self.process_status = status if stream.exited() else None

    def _take(self, got: tuple[bytes, bytes], stream: Stream) -> None:
        out, err = got
        if err:
            append(self._sink.log, err)
            self.log_tail = (self.log_tail + err)[-8192:]
        for event in self._lines.feed(out, EVENTS):
            if self.exit_status is not None:
                raise self._lines.bad(event.event, "comes after the last event")
            match event:
                case Hello():
                    self._pid = event.pid
                case Collected():
                    self._list(event)
                case Start():
                    self._start(event.test)
                    stream.send(b"+")
                case Result():
                    self._record(event)
                case Finish():
                    self.exit_status = event.status

    def _list(self, event: Collected) -> None:
        if self._collected:
            raise self._lines.bad(", ".join(event.tests), "is a second list of the tests")
        self._collected = True
        self.tests, self.deselected = event.tests, event.deselected
        self._left = Counter(self.tests)
        listed = [(test, self.payload.suite_of(test)) for test in self.tests]
        write_file(self._sink.listing, json.dumps(listed))
        self._sink.collected(self.tests)

    def _start(self, test: str) -> None:
        if self.running is not None:
            raise self._lines.bad(test, f"starts a test while {self.running} runs")
        if self._left[test] <= 0:
            raise self._lines.bad(test, "starts a test that was not collected, or once more")
        self._left[test] -= 1
        self.running = test
        self._sink.started(test)

    def _record(self, event: Result) -> None:
        # A module that cannot be imported, or skips itself, has a result and never runs.
        module = not self._collected and event.outcome in OF_MODULES
        if event.test != self.running and not module:
            raise self._lines.bad(event.test, "is the result of a test that does not run")
        self.running = None
        result = event.result(self.payload.suite_of(event.test))
        self.done.append(result)
        write_result(self._sink.results, result)
        self._sink.finished(result)

    def _where_it_hangs(self, session: Session, stream: Stream) -> None:
        """Have the silent pytest print its stack into the log, as far as it still can."""
        if not self._pid:
            return
        # In a thread: a guest that is wedged may not even open a channel.
        asking = threading.Thread(target=self._ask, args=(session,), daemon=True)
        asking.start()
        asking.join(3.0)
        patience = time.monotonic() + 3.0
        try:
            while time.monotonic() < patience and (got := stream.receive(0.3)) and any(got):
                self._take(got, stream)
        except (SessionLost, BadLine):
            return

    def _ask(self, session: Session) -> None:
        with contextlib.suppress(SessionLost):
            session.run(["kill", "-USR1", str(self._pid)])

    def results(self, reason: str = "") -> tuple[TestResult, ...]:
        """All tests: what had finished, then what was lost (with ``reason``) and not run."""
        listed = tuple((test, self.payload.suite_of(test)) for test in self.tests)
        return (*self.done, *unfinished(listed, self.done, self.running, reason))

    @property
    def empty_suites(self) -> tuple[str, ...]:
        """The suites of which there is nothing: no test, and none that was left out on purpose."""
        there = {self.payload.suite_of(test) for test in (*self.tests, *self.deselected)}
        there |= {result.suite for result in self.done}
        return tuple(suite.name for suite in self.payload.suites if suite.name not in there)
