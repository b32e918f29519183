"""A cluster as an engine: reached or started, and checked before anything is built."""

from __future__ import annotations

import logging
import platform
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from vmtest.cluster import worker
from vmtest.cluster.crew import Crew, Standing
from vmtest.cluster.host import LOOPBACK, NO_PAGES, hush
from vmtest.cluster.order import RESOURCE, TOPIC, Call, Said, code_digest
from vmtest.cluster.place import Place, called, host_of
from vmtest.cluster.secret import Secret, new_secret
from vmtest.cluster.ssh import Hosts, reached
from vmtest.errors import InfrastructureError, UsageError
from vmtest.host import interrupt
from vmtest.matrix.bench import Cancellation, Emit, Hold
from vmtest.matrix.plan import Plan
from vmtest.model.kernels import Kernel, PathSpec

CONNECT = 15.0
"""Seconds for the scheduler to answer."""
JOIN = 60.0
"""Seconds for a first worker to be there."""
_DISTRIBUTION = "vmtest"
_CERTIFICATE = ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY")


def _distributed() -> ModuleType:
    """Dask's part that runs on several machines; raises UsageError where it is not installed."""
    try:
        return import_module("distributed")
    except ImportError as error:
        raise UsageError(
            f"`on` takes Dask, which is not installed here ({error}); "
            "install it with: pip install '/path/to/vmtest[dask]'"
        ) from error


class DaskEngine:
    """An engine whose slots are the workers' of a Dask cluster."""

    def __init__(self, client: Any, name: str, hosts: Hosts | None = None) -> None:
        self.name = name
        self._client = client
        self._hosts = hosts
        self._crews: list[Crew] = []
        self._called: dict[str, str] = {}
        client.subscribe_topic(TOPIC, self._heard)

    def begin(self, plan: Plan, post: Emit, cancellation: Cancellation, hold: Hold | None) -> Crew:
        """A crew; raises UsageError for what needs the guest to be on this machine."""
        if hold is not None:
            raise UsageError("a shell takes a guest of this machine; leave `on` out")
        if plan.kept is not None:
            raise UsageError("watch keeps guests of this machine; leave `on` out")
        crew = Crew(self, plan, post, self._crews.remove)
        self._crews.append(crew)
        return crew

    def _heard(self, event: tuple[float, object]) -> None:
        """On Dask's thread: a message of a worker."""
        for crew in tuple(self._crews):
            if (said := Said.unpack(event[1], crew.run)) is not None:
                crew.heard(said)

    @property
    def slots(self) -> int:
        """How many VMs run at once on the workers that are there."""
        standing = self.standing()
        return 1 if standing is None else max(1, standing.total)

    def standing(self) -> Standing | None:
        """What workers there are; None when the scheduler cannot be reached."""
        if self._client.status != "running":
            return None
        try:
            # Without the number, distributed 2025.4 to 2026.6 tell of five workers at most.
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
            self._called |= {at: called(at, info.get("name", "")) for at, info in workers.items()}
            return _standing(workers)
        except Exception:  # whatever Dask raises when its scheduler goes away
            return None

    def called(self, address: str) -> str:
        """What messages call the worker at ``address``, also when it is gone."""
        return self._called.get(address, address)

    def cure(self) -> str:
        """What the user can do when no worker is left."""
        if self._hosts is not None:
            return self._hosts.gone() or "look at its hosts, and run again"
        return f"start one with: dask worker {self.name}"

    def submit(self, call: Call, standing: Standing, not_on: frozenset[str]) -> Any:
        """A future of Dask's; ``not_on`` are workers that did not take it."""
        where: dict[str, Any] = {}
        if not_on:
            where["workers"] = [one for one in standing.slots if one not in not_on]
        if standing.declared:
            where["resources"] = {RESOURCE: 1}
        number = f"{len(not_on)}-{time.monotonic_ns()}"
        key = f"vmtest-{call.run}-{call.kernel}-{number}"
        return self._client.submit(worker.work, call, key=key, pure=False, **where)

    def cancel(self, futures: list[Any]) -> None:
        """Have Dask drop them: each worker sees that its task is not wanted."""
        if futures and self._client.status == "running":
            with suppress(Exception):
                self._client.cancel(futures, force=True)

    def run_on(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function on a worker, beside its tasks; raises what it raises."""
        return self._client.run(function, *arguments, workers=[address])[address]

    def ignore_interrupts(self) -> None:
        """Have workers of this machine leave Ctrl-C to this process."""
        self._client.run(worker.ignore_interrupts)

    def check(self) -> None:
        """Raise UsageError for a worker that runs another vmtest or another Python."""
        run = self._client.run
        mine = metadata.version(_DISTRIBUTION)
        for address, found in run(metadata.version, _DISTRIBUTION, on_error="return").items():
            if found != mine:
                there = found if isinstance(found, str) else "none"
                raise self._differs(address, f"vmtest {there}", f"vmtest {mine}")
        for address, found in run(platform.python_version, on_error="return").items():
            if _minor(str(found)) != _minor(platform.python_version()):
                python = platform.python_version()
                raise self._differs(address, f"Python {found}", f"Python {python}")
        own = code_digest()
        for address, found in run(code_digest, on_error="return").items():
            if found != own:
                there = found[:12] if isinstance(found, str) else f"unknown: {found}"
                theirs = f"vmtest {mine} with other files (sha256 {there})"
                raise self._differs(address, theirs, f"vmtest {mine} (sha256 {own[:12]})")

    def _differs(self, address: str, theirs: str, ours: str) -> UsageError:
        return UsageError(
            f"worker {self.called(address)} has {theirs}, and here is {ours}; install the same "
            "there, and start the worker again"
        )


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _standing(workers: Mapping[str, Mapping[str, Any]]) -> Standing:
    """The VM slots of each worker: its resource, where any declares it, else its threads."""
    fit = {at: info for at, info in workers.items() if info.get("status", "running") == "running"}
    declared = any(RESOURCE in info.get("resources", {}) for info in fit.values())
    slots, hosts = {}, {}
    for address, info in fit.items():
        threads = int(info["nthreads"])
        room = int(info.get("resources", {}).get(RESOURCE, 0)) if declared else threads
        if min(room, threads) > 0:
            slots[address] = min(room, threads)
            hosts[address] = host_of(address, info.get("name", ""))
    return Standing(slots, declared, hosts)


@contextmanager
def on(
    place: Place,
    say: Callable[[str], None] = lambda line: None,
    kernels: Sequence[Kernel] = (),
) -> Iterator[DaskEngine]:
    """The engine of ``place``, whose workers run what this vmtest is.

    ``say`` is told what is waited for; a host that vmtest starts a worker on gets as many VMs as
    it has room for, as large as the largest of ``kernels``.  Raises UsageError, also for a host
    that cannot be used, and InfrastructureError for a scheduler that cannot be reached or has no
    worker.
    """
    distributed = _distributed()
    hush()
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask's, about its own versions and this host's ports
        hosts = None
        if place.hosts:
            say(f"starting a worker on {', '.join(host.name for host in place.hosts)}")
            hosts = stack.enter_context(reached(place))
            engine = _over_ssh(distributed, place, hosts, kernels, stack)
        else:
            engine = DaskEngine(_client(distributed, place, stack), place.text)
        _await_workers(engine, place, hosts, say)
        engine.check()
        if place.workers:
            engine.ignore_interrupts()
        yield engine


def _over_ssh(
    distributed: ModuleType,
    place: Place,
    hosts: Hosts,
    kernels: Sequence[Kernel],
    stack: ExitStack,
) -> DaskEngine:
    """A scheduler in this process that hosts reach through ssh."""
    secret = new_secret()
    cluster = _own_cluster(distributed, stack, 0, secret)
    engine = DaskEngine(_connected(distributed, place, cluster, stack), place.text, hosts)
    hosts.begin(int(cluster.scheduler.port), kernels or (Kernel("", PathSpec(Path())),), secret)
    return engine


def _client(distributed: ModuleType, place: Place, stack: ExitStack) -> Any:
    """A client of the cluster, which ends with ``stack``."""
    _check_certificate(distributed, place)
    address: Any = place.address
    if place.workers:
        address = _own_cluster(distributed, stack, place.workers, new_secret())
    return _connected(distributed, place, address, stack)


def _own_cluster(distributed: ModuleType, stack: ExitStack, workers: int, secret: Secret) -> Any:
    """A scheduler in this process, and ``workers`` of this machine: all ask for ``secret``.

    Any user of a machine can connect to its loopback addresses.
    """
    with import_module("dask.config").set(NO_PAGES):
        cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            resources={RESOURCE: 1},
            host=LOOPBACK,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
            security=secret.security(),
        )
    stack.callback(_quietly, cluster.close)
    return cluster


def _connected(distributed: ModuleType, place: Place, address: Any, stack: ExitStack) -> Any:
    try:
        client = distributed.Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise InfrastructureError(
            f"{place.text}: no scheduler of Dask's answers there: {error}; start one with: "
            "dask scheduler"
        ) from error
    stack.callback(_quietly, client.close)
    return client


def _check_certificate(distributed: ModuleType, place: Place) -> None:
    """Raise UsageError for TLS without a certificate: Dask would wait for it, and not say so."""
    if not place.address.startswith("tls://"):
        return
    why = "Dask's configuration names no certificate"
    try:
        if distributed.Security().get_connection_args("client").get("ssl_context") is not None:
            return
    except (OSError, ValueError) as error:
        why = f"the certificate that Dask's configuration names cannot be read: {error}"
    names = ", ".join(f"DASK_DISTRIBUTED__COMM__TLS__{name}" for name in _CERTIFICATE)
    raise UsageError(f"`on` {place.text}: {why}; set {names} to files")


def _quietly(close: Callable[[], object]) -> None:
    """Close what may be gone already; a scheduler that does not answer is not waited for."""

    def attempt() -> None:
        with suppress(Exception):
            close()

    closing = threading.Thread(target=attempt, daemon=True)
    closing.start()
    closing.join(CONNECT)


def _await_workers(
    engine: DaskEngine, place: Place, hosts: Hosts | None, say: Callable[[str], None]
) -> None:
    """Wait for a first worker; for all where vmtest has started them by SSH."""
    end, told = time.monotonic() + JOIN, hosts is not None
    while True:
        standing = engine.standing()
        if standing is not None and len(standing.slots) >= max(1, len(place.hosts)):
            return
        if hosts is not None and (why := hosts.gone()):
            raise InfrastructureError(f"{place.text}: {why}")
        if time.monotonic() > end:
            joined = () if standing is None else standing.hosts.values()
            late = [f"host {one.name}" for one in place.hosts if one.name not in joined]
            who = f"worker of {', '.join(late)}" if late else "worker"
            raise InfrastructureError(
                f"{place.text}: no {who} joined within {JOIN:.0f} s; {engine.cure()}"
            )
        if not told:
            told = True
            say(f"waiting for a worker of {place.text}")
        interrupt.current().pause(0.2)
