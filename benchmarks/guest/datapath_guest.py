"""In the VM, for benchmarks/datapath.py: the ways from a client to a server, measured in turns.

    python3 datapath_guest.py FOLDER ROUNDS REQUESTS CONNECTIONS SIZE COUNTED

FOLDER holds the programs server, proxy and client, COUNTED is how many operations more the longer
of two counted runs makes than the shorter. One JSON object a line on stdout: first the
counts of each way and mode ("counts", per operation, tracing on), then its timed rounds, tracing
off ("client", as client.c prints it).
"""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from layouts import ip_addr, u32
from mesh import SERVICE, Mesh
from traffic import V4, Address

from vmtest.guest.attach import attached_to_cgroup
from vmtest.guest.cgroup import Cgroup, temporary_cgroup
from vmtest.guest.objects import BpfObject, Program, counted_runs
from vmtest.guest.payload import object_path

CGROUP_SKB, SOCK_OPS, CGROUP_SOCK_ADDR = 8, 13, 18  # enum bpf_prog_type, those of a cgroup
NEAR_PROXY, FAR_PROXY = (V4.host(6), 15001), (V4.host(7), 15006)
FEW = 200  # operations of the shorter counted run: what a start costs cancels out
SYSTEM_CALLS = pathlib.Path("/sys/kernel/tracing/events/raw_syscalls/sys_enter")
BY_PROCESS = "hist:keys=common_pid"


@dataclass(frozen=True)
class Way:
    """Where a client dials, whom it then has as its peer, and the programs attached meanwhile."""

    name: str
    dialled: Address
    peer: Address
    programs: tuple[Program, ...] = ()


class Bench:
    """The processes and the control group that all ways share."""

    def __init__(self, folder: pathlib.Path, group: Cgroup, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._group = group
        self._stack = stack
        self._roles: dict[int, str] = {}

    def start(self, program: str, *places: Address) -> None:
        """Starts the server or a proxy in the group, until the end."""
        words = [word for host, port in places for word in (host, str(port))]
        with self._group.entered():
            process = self._stack.enter_context(
                subprocess.Popen([self._folder / program, *words], stdout=subprocess.PIPE)
            )
        self._stack.callback(process.kill)
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise SystemExit(f"{program} did not start: its reason is above")
        self._roles[process.pid] = program

    @contextlib.contextmanager
    def attached(self, way: Way) -> Iterator[None]:
        """The programs of `way` run for all sockets of the group."""
        with contextlib.ExitStack() as stack:
            for program in way.programs:
                stack.enter_context(attached_to_cgroup(program, self._group))
            yield

    def measure(self, way: Way, mode: str, count: int, size: int) -> tuple[int, dict[str, Any]]:
        """Runs the client once; its pid and what it printed."""
        host, port = way.dialled
        words = [host, str(port), mode, str(count), str(size), *map(str, self._roles)]
        with self._group.entered(), self.attached(way):
            client = subprocess.Popen([self._folder / "client", *words], stdout=subprocess.PIPE)
            printed, _ = client.communicate()
        if client.returncode != 0:
            raise SystemExit(f"{way.name}: the client failed: its reason is above")
        measured = json.loads(printed)
        wanted = f"{way.peer[0]}:{way.peer[1]}"
        if measured["peer"] != wanted:
            raise SystemExit(f"{way.name}: the peer is {measured['peer']}, and not {wanted}")
        return client.pid, measured

    def counts(self, way: Way, mode: str, size: int, counted: int) -> dict[str, dict[str, float]]:
        """What one operation takes: system calls by role, segments, runs by program."""
        begin = min(FEW, counted)
        few, many = (self._count(way, mode, n, size) for n in (begin, begin + counted))
        return {
            kind: {
                name: (number - few[kind].get(name, 0)) / counted
                for name, number in numbers.items()
            }
            for kind, numbers in many.items()
        }

    def _count(self, way: Way, mode: str, count: int, size: int) -> dict[str, dict[str, int]]:
        before = {program.name: program.run_count() for program in way.programs}
        with counted_system_calls() as calls, counted_runs():
            pid, measured = self.measure(way, mode, count, size)
        by_role = dict.fromkeys(("client", *self._roles.values()), 0)
        for process, role in {**self._roles, pid: "client"}.items():
            by_role[role] += calls.get(process, 0)
        return {
            "system calls": by_role,
            "segments": {"sent": measured["segments"]},
            "runs": {
                program.name: program.run_count() - before[program.name] for program in way.programs
            },
        }


@contextlib.contextmanager
def counted_system_calls() -> Iterator[dict[int, int]]:
    """The system calls of each process, by pid; filled at the end."""
    calls: dict[int, int] = {}
    trigger = SYSTEM_CALLS / "trigger"
    if not (SYSTEM_CALLS / "hist").exists():
        raise SystemExit(f"no {SYSTEM_CALLS}/hist: this kernel lacks CONFIG_HIST_TRIGGERS")
    trigger.write_text(BY_PROCESS)
    try:
        yield calls
        for pid, number in re.findall(
            r"common_pid:\s*(\d+) } hitcount:\s*(\d+)", (SYSTEM_CALLS / "hist").read_text()
        ):
            calls[int(pid)] = int(number)
    finally:
        trigger.write_text(f"!{BY_PROCESS}")


def loaded_objects(stack: contextlib.ExitStack) -> dict[str, BpfObject]:
    """A mesh's objects by name (no mock), sharing their maps as its loader has them do."""
    loaded: dict[str, BpfObject] = {}
    for name in ("cgroup_skb", "cgroup_sock", "sockops"):
        made = stack.enter_context(BpfObject(object_path(name)))
        for other in loaded.values():
            made.reuse_maps(other)
        made.load()
        loaded[name] = made
    return loaded


def main() -> None:
    """Measures everything."""
    folder, rounds, size = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[5])
    modes = {"requests": int(sys.argv[3]), "connections": int(sys.argv[4])}
    counted = int(sys.argv[6])
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(temporary_cgroup())
        objects = loaded_objects(stack)
        sock = objects["cgroup_sock"]
        connect4 = sock.programs["cgroup_connect4_prog"]
        everything = tuple(
            program
            for made in objects.values()
            for program in made.programs.values()
            if program.kind in (CGROUP_SKB, SOCK_OPS, CGROUP_SOCK_ADDR)
        )
        mesh = Mesh(sock, group, V4, stack)
        backend = mesh.pod(1)
        with attached_to_cgroup(connect4, group):
            mesh.manage()
        mesh.frontend(mesh.vip, SERVICE)
        mesh.service([backend])
        # As far as observing goes without a record: both ends managed, reports wanted.
        for host in ("127.0.0.1", backend[0]):
            mesh.maps["km_manage"].update(ip_addr(host), u32(0))
        objects["cgroup_skb"].set_global("enable_periodic_report", 1)

        bench = Bench(folder, group, stack)
        bench.start("server", backend)
        bench.start("proxy", FAR_PROXY, backend)
        bench.start("proxy", NEAR_PROXY, FAR_PROXY)
        ways = (
            Way("direct", backend, backend),
            Way("one proxy", FAR_PROXY, FAR_PROXY),
            Way("two proxies", NEAR_PROXY, NEAR_PROXY),
            Way("connect4", mesh.vip, backend, (connect4,)),
            Way("all programs", mesh.vip, backend, everything),
        )
        for mode in modes:
            for way in ways:
                tell(way, mode, counts=bench.counts(way, mode, size, counted))
        for _ in range(rounds):
            for mode, count in modes.items():
                for way in ways:
                    _, measured = bench.measure(way, mode, count, size)
                    tell(way, mode, client=measured)


def tell(way: Way, mode: str, **told: object) -> None:
    """One line on stdout."""
    print(json.dumps({"way": way.name, "mode": mode, **told}), flush=True)


if __name__ == "__main__":
    main()
