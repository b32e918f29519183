"""A kernel's guests: booted, handed to the work, ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event as Flag
from threading import Lock
from typing import Protocol

from vmtest.errors import BootError, Interrupted, SessionLost, VmtestError
from vmtest.matrix.complaints import KnownSplats
from vmtest.matrix.follow import Kernelside
from vmtest.matrix.intact import Intact
from vmtest.matrix.kept import Kept, Prepare, Wanted
from vmtest.model.events import Booted, Booting, Event, Note
from vmtest.model.kernels import Kernel, KernelImage, Limits, Network, RootImage
from vmtest.model.results import KernelResult, Status
from vmtest.model.splats import stalls
from vmtest.vm.accel import Probe
from vmtest.vm.bytecode import Bytecode
from vmtest.vm.console import Finding, Sign
from vmtest.vm.deadlines import Scale
from vmtest.vm.klog import KernelLog, LogReader
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.restore import Snapshots, Started, running_guest
from vmtest.vm.session import Session, SshSession

_ANSWER = 10.0  # seconds for a guest to say something simple, times the deadlines' factor

Emit = Callable[[Event], None]


Hold = Callable[[Session, KernelResult], None]
"""Called with a failed kernel's session before its VM ends (``--shell-on-failure``)."""


class Task(Protocol):
    """What is done in one kernel: a value that can be pickled.

    ``objects`` has name and sha256 of each BPF object it takes along.
    """

    @property
    def objects(self) -> tuple[tuple[str, str], ...]:
        """Name and sha256 of each BPF object."""

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        """Do it, and return ``result`` completed.

        A VmtestError or an OSError that it raises becomes the kernel's
        BOOT_FAILED or INFRA_ERROR.
        """


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that running one kernel takes; ``directory`` exists and is its own.

    ``snapshots`` is the cache with saved guests; None boots.  ``known_splats`` are the complaints
    of this kernel that do not count.
    """

    kernel: Kernel
    image: KernelImage
    root: RootImage
    task: Task
    probe: Probe
    directory: Path
    vcpus: int
    note: str = ""
    snapshots: Path | None = None
    known_splats: KnownSplats = field(default_factory=KnownSplats)

    @property
    def scale(self) -> Scale:
        """How much the deadlines stretch here, at this moment."""
        return Scale.now(self.probe.seconds, self.vcpus)


class Cancellation:
    """A switch that ends every machine running in this process, once."""

    def __init__(self) -> None:
        self._flag = Flag()
        self._lock = Lock()
        self._machines: set[Machine] = set()

    @property
    def requested(self) -> bool:
        """Whether it was thrown."""
        return self._flag.is_set()

    def cancel(self) -> None:
        """End every machine, and every one that would still start."""
        with self._lock:
            self._flag.set()
            for machine in tuple(self._machines):
                machine.cancel()

    def watch(self, machine: Machine, stack: ExitStack) -> None:
        """Have ``machine`` end with the others, until ``stack`` is left; raises SessionLost."""
        with self._lock:
            if self._flag.is_set():
                raise SessionLost("cancelled")
            self._machines.add(machine)
        stack.callback(self._forget, machine)

    def _forget(self, machine: Machine) -> None:
        with self._lock:
            self._machines.discard(machine)


@dataclass(frozen=True, slots=True)
class Guest:
    """A booted guest.

    ``limits`` are real seconds; ``reader`` follows the kernel's log; ``booted`` is the
    kernel's time of the last complaint on the console when the session was there; ``prepared``
    is what came of preparing it, None where it is as it was booted or restored; ``known_splats``
    are the complaints of its kernel that do not count.
    """

    machine: Machine
    session: SshSession
    limits: Limits
    reader: LogReader
    booted: float
    prepared: object = None
    known_splats: KnownSplats = field(default_factory=KnownSplats)

    @property
    def kernel(self) -> Kernelside:
        """What its kernel says beside a command; a stall that is known ends nothing.

        Nor does a hung thread of the kernel's own.  A lockup and an RCU stall are about a
        processor, and a hung process is the command's, because a guest has no other.  A quiet
        command need not wait for a kernel thread; one that does hangs itself, and is reported.
        """
        return Kernelside(lambda: self.machine.console.last_activity, self._stalls)

    def _stalls(self) -> tuple[Finding, ...]:
        counting = self.known_splats.sort(self.complaints[1]).counting
        return tuple(
            finding for finding in counting if stalls(finding.text) and not finding.kernel_thread
        )

    @property
    def complaints(self) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
        """What the kernel complained of while booting, which is not a task's fault, and since."""
        found = self.machine.findings(Sign.SPLAT)
        up = self.reader.log.up
        end = self.booted if up is None else up
        boot = tuple(finding for finding in found if float(finding.stamp) <= end)
        return boot, found[len(boot) :]


class Bench:
    """Where a task works: boots guests of its job's kernel, one after the other.

    ``boot_seconds`` is what the first boot took to its session (0.0 before),
    ``console_tail`` the last machine's last lines and ``console_log`` the name of the file that
    has all of them, ``intact`` watches over the files, ``bytecode`` is what its guests compile,
    ``failed_boots`` says why boots failed that were tried again.
    """

    def __init__(
        self,
        job: Job,
        emit: Emit,
        cancellation: Cancellation,
        hold: Hold | None,
        kept: Kept | None = None,
    ) -> None:
        self.job = job
        self.emit = emit
        self.boot_seconds = 0.0
        self.console_tail: tuple[str, ...] = ()
        self.console_log = "console.log"
        self.intact = Intact(job.image, job.root, None if kept is None else kept.whole)
        self.snapshots = Snapshots(job.snapshots)
        self.bytecode = Bytecode(job.snapshots)
        self.failed_boots: list[str] = []
        self._starts: set[str] = set()
        self._boots = 0
        self._cancellation = cancellation
        self._hold = hold
        self._kept = kept

    @property
    def start(self) -> str:
        """How its guests came: warm (restored), cold (booted), or cold+warm; "" when none did."""
        return "+".join(sorted(self._starts))

    @property
    def keeps(self) -> bool:
        """Whether guests for the next run are started ahead."""
        return self._kept is not None

    @property
    def cancelled(self) -> bool:
        """Whether the run was interrupted."""
        return self._cancellation.requested

    def check(self) -> None:
        """Raise SessionLost once the run was interrupted."""
        if self.cancelled:
            raise SessionLost("cancelled")

    @contextmanager
    def guest(
        self, network: Network = Network.NONE, prepare: Prepare | None = None
    ) -> Iterator[Guest]:
        """Boot the kernel, and end its VM behind; raises BootError, SessionLost.

        ``prepare`` is what may be done in it before it is needed, where guests wait.

        A boot that fails is tried again, as often as the kernel's ``retries`` say.

        The first boot's logs are ``console.log`` and ``dmesg.log``, the second's
        ``console-2.log`` and ``dmesg-2.log``.
        """
        job = self.job
        with ExitStack() as stack:
            guest, prepared = self._up(network, prepare, stack)
            machine, session = guest.machine, guest.session
            self._starts.add("warm" if guest.warm else "cold")
            self.intact.watch(self.snapshots.used)
            limits = job.scale.apply(job.kernel.limits)
            log = KernelLog(job.directory / f"dmesg{self._number}.log")
            machine.log = log
            reader = LogReader(session, log)
            stack.callback(reader.join)
            stack.callback(session.close)
            seconds = round(time.monotonic() - machine.started, 2)
            self.boot_seconds = self.boot_seconds or seconds
            self.emit(
                Booted(job.kernel.name, seconds, job.image.release, job.probe.accelerator.value)
            )
            self.intact.begin()
            booting = machine.console.findings(Sign.SPLAT)
            booted = max((float(finding.stamp) for finding in booting), default=0.0)
            yield Guest(machine, session, limits, reader, booted, prepared, job.known_splats)

    @property
    def _number(self) -> str:
        """What the names of this boot's logs have more than those of the first."""
        return "" if self._boots == 1 else f"-{self._boots}"

    def _up(
        self, network: Network, prepare: Prepare | None, stack: ExitStack
    ) -> tuple[Started, object]:
        """A guest, by the first boot that does not fail; raises what the last one raised."""
        retries, failed = self.job.kernel.retries, 0
        while True:
            try:
                with ExitStack() as attempt:
                    found = self._one_boot(network, prepare, attempt)
                    stack.enter_context(attempt.pop_all())
                    return found
            except BootError as error:
                failed += 1
                if failed > retries or self.cancelled:
                    raise
                self.failed_boots.append(str(error))
                self.emit(Note(f"{error}; the kernel is booted again ({failed} of {retries})"))

    def _one_boot(
        self, network: Network, prepare: Prepare | None, stack: ExitStack
    ) -> tuple[Started, object]:
        job = self.job
        self._boots += 1
        spec = MachineSpec(
            image=job.image,
            root=job.root,
            probe=job.probe,
            log=job.directory / f"console{self._number}.log",
            memory_mib=job.kernel.memory_mib,
            cpus=job.kernel.cpus,
            cmdline=job.kernel.cmdline,
            network=network,
        )
        self.emit(Booting(job.kernel.name, self._boots))
        limits = job.scale.apply(job.kernel.limits)
        wanted = Wanted(spec, limits.boot, job.scale.factor, limits.silence, prepare)
        return self._started(wanted, stack)

    def _started(self, wanted: Wanted, stack: ExitStack) -> tuple[Started, object]:
        """A guest that waited, if one is kept, else a new one; and what came of preparing it."""
        name = self.job.kernel.name
        try:
            ahead = None if self._kept is None else self._kept.guests.take(name, wanted, stack)
        except Interrupted as error:
            raise SessionLost("cancelled") from error
        if ahead is None:
            spec, limit, factor = wanted.spec, wanted.limit, wanted.factor
            guest = running_guest(spec, self.snapshots, limit, factor, self._begun)
            return stack.enter_context(guest), None
        self.snapshots.used += ahead.snapshots.used
        self._begun(ahead.started.machine, stack)
        return ahead.started, ahead.prepared

    def _begun(self, machine: Machine, stack: ExitStack) -> None:
        stack.callback(self._remember, machine)
        self._cancellation.watch(machine, stack)

    def _remember(self, machine: Machine) -> None:
        self.console_tail = machine.console.tail
        self.console_log = machine.spec.log.name

    def read_log(self, guest: Guest) -> None:
        """Read the kernel's log up to now, where programs and maps have been freed as well.

        Raises SessionLost, and DeadlineExceeded when the guest does not answer.
        """
        guest.reader.finish(_ANSWER * self.job.scale.factor, self.check)

    def show(self, session: SshSession, result: KernelResult) -> KernelResult:
        """Let somebody look at a guest that failed; whatever comes of it, the result stands."""
        if self._hold is None or self.cancelled or not session.alive:
            return result
        if result.status in (Status.PASSED, Status.COLLECTED):
            return result
        try:
            self._hold(session, result)
        except (VmtestError, OSError) as error:
            return replace(result, note=f"{result.note}; no shell: {error}".removeprefix("; "))
        return result


def unheard(event: Event) -> None:
    """What hears events that nobody wants."""
    del event
