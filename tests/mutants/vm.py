"""A VM that judges one mutant after the other, and the fleet of them."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

from tests.mutants.build import Built
from tests.mutants.operators import Mutant
from tests.mutants.verdicts import Judged, Killers, Verdict, judge
from vmtest.errors import DeadlineExceeded, InfrastructureError, SessionLost, UsageError
from vmtest.matrix.bench import Cancellation
from vmtest.matrix.follow import Kernelside
from vmtest.matrix.payload import install
from vmtest.model.kernels import Kernel, KernelImage, Limits, RootImage
from vmtest.model.project import Suite, network_of
from vmtest.suites.payload import Payload
from vmtest.suites.process import Run, Sink, pytest_argv
from vmtest.vm.accel import Probe
from vmtest.vm.deadlines import Scale
from vmtest.vm.guest_code import GUEST_ROOT
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.session import Check, Completed, Session, Stream

GUEST_SCRIPT = f"{GUEST_ROOT}/mutants_guest.py"
LIMITS = Limits(boot=0.0, silence=30.0, total=600.0)
"""For one mutant, in seconds before they are scaled; the kernel's own are for a whole run."""
CHECK_EVERY = 100
"""Mutants after which the unmutated objects have to pass again."""


@dataclass(frozen=True, slots=True)
class Case:
    """A mutant and its objects, ready to be judged."""

    mutant: Mutant
    built: Built


@dataclass(frozen=True, slots=True)
class Ground:
    """What every mutant is judged on."""

    kernel: Kernel
    image: KernelImage
    root: RootImage
    probe: Probe
    payload: Payload
    folder: Path
    jobs: int

    def digest(self) -> str:
        """Of kernel, suites and unmutated objects: on the same ground the same verdicts."""
        return hashlib.sha256(self.image.release.encode() + self.payload.archive).hexdigest()[:16]

    def scale(self) -> Scale:
        """How much deadlines stretch with ``jobs`` VMs at once."""
        return Scale.now(self.probe.seconds, self.jobs * self.kernel.cpus)


@dataclass(slots=True)
class Board:
    """The cases still to do; what the workers share.

    ``settled`` hears of every result, ``withdrawn`` of those that prove nothing
    after all; one at a time.
    """

    pending: deque[Case]
    killers: Killers
    settled: Callable[[Case, Judged], None]
    withdrawn: Callable[[Case], None]
    _suspects: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> tuple[Case, list[str]] | None:
        """The next case, and the tests to begin with."""
        with self._lock:
            if not self.pending:
                return None
            case = self.pending.popleft()
            self._suspects = max(0, self._suspects - 1)
            return case, self.killers.first(case.mutant)

    def settle(self, case: Case, judged: Judged) -> None:
        """``case`` is judged."""
        with self._lock:
            if judged.verdict is Verdict.KILLED:
                self.killers.record(case.mutant, judged.test)
            self.settled(case, judged)

    def give_back(self, cases: Sequence[Case]) -> None:
        """``cases`` have to be judged again: one of them has spoilt a guest."""
        with self._lock:
            for case in cases:
                self.withdrawn(case)
            self.pending.extendleft(reversed(cases))
            self._suspects += len(cases)

    def until_check(self) -> int:
        """After how many cases the guest has to prove that it is sound."""
        return 1 if self._suspects else CHECK_EVERY


class _Order:
    """One order to the guest's script, as a stream that ends when the order is done."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rest = b""
        self.ended: int | None = None
        self.refused: dict[str, str] = {}

    def send(self, data: bytes) -> None:
        self._stream.send(data)

    def end_input(self) -> None:
        self._stream.end_input()

    def receive(self, timeout: float) -> tuple[bytes, bytes] | None:
        if self.ended is not None:
            return None
        got = self._stream.receive(timeout)
        if got is None:
            raise SessionLost("the guest's script ended")
        *lines, self._rest = (self._rest + got[0]).split(b"\n")
        return b"".join(line + b"\n" for line in lines if self._is_pytests(line)), got[1]

    def _is_pytests(self, line: bytes) -> bool:
        event = json.loads(line)
        if event["event"] == "refused":
            self.refused[event["object"]] = event["message"]
        elif event["event"] == "done":
            self.ended = int(event["status"])
        else:
            return True
        return False

    def exited(self) -> bool:
        return self.ended is not None

    def status(self) -> int:
        return -1 if self.ended is None else self.ended


class _Warm:
    """The session of a guest with the script running: starting pytest is an order to it."""

    def __init__(self, session: Session, argv: Sequence[str]) -> None:
        self._session = session
        self._stream = session.stream(argv)
        self.objects: Mapping[str, bytes] = {}
        self.loading: Sequence[str] = ()
        self.first: Sequence[str] = ()
        self.order = _Order(self._stream)

    def stream(self, argv: Sequence[str], *, wire: bool = False) -> Stream:
        order = {
            "objects": {n: base64.b64encode(d).decode() for n, d in self.objects.items()},
            "loading": list(self.loading),
            "suites": list(argv),
            "first": list(self.first),
        }
        self.order = _Order(self._stream)
        self._stream.send(json.dumps(order).encode() + b"\n")
        return self.order

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", check: Check | None = None
    ) -> Completed:
        return self._session.run(argv, stdin=stdin, check=check)

    def put(self, data: bytes, remote: str) -> None:
        self._session.put(data, remote)

    def get(self, remote: str) -> bytes:
        return self._session.get(remote)


class Judge:
    """One booted guest; ``judge`` runs the suites that a mutant's objects are of."""

    def __init__(self, ground: Ground, name: str, cancellation: Cancellation) -> None:
        self._ground = ground
        self._folder = ground.folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._cancellation = cancellation
        self._stack = ExitStack()

    def __enter__(self) -> Judge:
        ground = self._ground
        spec = MachineSpec(
            image=ground.image,
            root=ground.root,
            probe=ground.probe,
            log=self._folder / "console.log",
            memory_mib=ground.kernel.memory_mib,
            cpus=ground.kernel.cpus,
            cmdline=ground.kernel.cmdline,
            network=network_of(ground.payload.suites),
        )
        scale = ground.scale()
        with ExitStack() as stack:
            self._log = stack.enter_context((self._folder / "pytest.log").open("wb"))
            self.machine = stack.enter_context(Machine(spec))
            self._cancellation.watch(self.machine, stack)
            session = self.machine.connect(scale.apply(ground.kernel.limits).boot, scale.factor)
            stack.callback(session.close)
            install(session, ground.payload.archive, self._check)
            session.put(Path(__file__).with_name("guest.py").read_bytes(), GUEST_SCRIPT)
            argv = pytest_argv(ground.payload, ground.root.python, ["-x", "--tb=line", "-q"])
            self._warm = _Warm(session, [_ours(part) for part in argv])
            self._loadable = self._which_load()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _check(self) -> None:
        if self._cancellation.requested:
            raise SessionLost("cancelled")

    def _which_load(self) -> frozenset[str]:
        """The unmutated objects that load as they are; others only as some test prepares them."""
        names = {name for name, _ in self._ground.payload.objects}
        self._warm.loading = sorted(names)
        # Python has to start and to collect first: the limits are those of a whole run.
        self._execute(Run(self._ground.payload, self._sink()), (), self._ground.kernel.limits)
        return frozenset(names - self._warm.order.refused.keys())

    def judge(self, objects: Mapping[str, bytes], first: Sequence[str]) -> Judged:
        """Run every suite of ``objects`` until a test fails; raises SessionLost when cancelled.

        With no ``objects`` all suites run, on the originals.
        """
        started = time.monotonic()
        payload = self._ground.payload
        suites = tuple(s for s in payload.suites if not objects or {*s.objects} & objects.keys())
        if not suites:
            raise UsageError(f"no suite of kernels.toml uses {', '.join(sorted(objects))}")
        run = Run(payload, self._sink())
        self._warm.objects, self._warm.first = objects, first
        self._warm.loading = sorted(objects.keys() & self._loadable)
        try:
            self._execute(run, suites, LIMITS)
            judged = judge(
                run.done,
                run.exit_status,
                "\n".join(self._warm.order.refused.values()),
                unloaded=sorted(objects.keys() - self._loadable),
            )
        except DeadlineExceeded as error:
            judged = Judged(Verdict.TIMED_OUT, run.running or "", str(error))
        except SessionLost:
            self._check()
            cause = self.machine.cause_of_death()
            judged = Judged(Verdict.CRASHED, run.running or "", cause)
        return replace(judged, seconds=round(time.monotonic() - started, 2))

    def _execute(self, run: Run, suites: Sequence[Suite], limits: Limits) -> None:
        limits = self._ground.scale().apply(limits)
        run.execute(
            self._warm,
            [self._ground.payload.guest_path(suite) for suite in suites],
            limits,
            self._check,
            Kernelside(lambda: self.machine.console.last_activity),
        )
        # Run does not wait long for the end of a pytest that has said its last word. We do: the
        # next order would take this one's "done" for its own.
        deadline = time.monotonic() + limits.silence
        while self._warm.order.receive(0.2) is not None:
            self._check()
            if time.monotonic() > deadline:
                raise DeadlineExceeded("pytest does not end", "silence")

    def _sink(self) -> Sink:
        return Sink(
            BytesIO(),
            self._log,
            self._folder / "collected.json",
            collected=lambda tests: None,
            started=lambda test: None,
            finished=lambda test: None,
        )


def _ours(part: str) -> str:
    """The guest's runner replaced by our script, which calls it."""
    return GUEST_SCRIPT if part.endswith("/guest/plugins/run.py") else part


def run_fleet(ground: Ground, board: Board, cancellation: Cancellation) -> None:
    """Judge every case of ``board`` on ``ground.jobs`` VMs.

    Raises InfrastructureError when the unmutated objects do not pass, and whatever a VM raises.
    """
    with ThreadPoolExecutor(ground.jobs) as pool:
        workers = [
            pool.submit(_work, ground, board, f"vm{number}", cancellation)
            for number in range(ground.jobs)
        ]
        try:
            wait(workers, return_when="FIRST_EXCEPTION")
        finally:
            # After Ctrl-C, and when one worker could not go on.
            if any(not worker.done() for worker in workers):
                cancellation.cancel()
    for worker in sorted(workers, key=lambda each: isinstance(each.exception(), SessionLost)):
        worker.result()


def _work(ground: Ground, board: Board, name: str, cancellation: Cancellation) -> None:
    """Boot, judge, and boot again when the guest died or can no longer be trusted."""
    boots = 0
    while board.pending:
        with Judge(ground, f"{name}-{boots}", cancellation) as guest:
            boots += 1
            baseline = guest.judge({}, ())
            if baseline.verdict is not Verdict.SURVIVED:
                raise InfrastructureError(
                    f"{ground.kernel.name}: the unmutated objects do not pass: "
                    f"{baseline.verdict}: {baseline.test} {baseline.message}; "
                    f"try: vmtest run --kernel {ground.kernel.name}"
                )
            while _batch(guest, board):
                pass


def _batch(guest: Judge, board: Board) -> bool:
    """Judge cases and check the guest; whether it is to be given more."""
    doubtful: list[Case] = []
    wanted = board.until_check()
    while len(doubtful) < wanted and (taken := board.take()) is not None:
        case, first = taken
        judged = guest.judge(case.built.objects, first)
        board.settle(case, judged)
        doubtful.append(case)
        if judged.verdict in (Verdict.TIMED_OUT, Verdict.CRASHED):
            return False
    if not doubtful:
        return False
    # A guest that some mutant has spoilt would kill all that follow.
    sound = guest.judge({}, ())
    if sound.verdict is Verdict.SURVIVED:
        return True
    if len(doubtful) == 1:
        why = f"after it the unmutated objects fail {sound.test}: {sound.message}"
        board.settle(doubtful[0], Judged(Verdict.CRASHED, message=why))
    else:
        board.give_back(doubtful)
    return False
