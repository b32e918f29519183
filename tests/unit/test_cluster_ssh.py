"""``--on ssh:``: workers on hosts with an sshd of their own, over tasks that boot nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_tasks import Rows
from coordinator import Coordinator, Loss, until
from dask_workers import environment, knows_accelerator
from ssh_hosts import Hosts, hosts, needs_sshd
from strangers import descendants, ports, told

from vmtest.cluster import hello, host
from vmtest.cluster.engine import on
from vmtest.cluster.hello import Begin, Hello, Install, differences
from vmtest.cluster.place import SshHost, called, host_of, parse_place
from vmtest.cluster.secret import Secret, new_secret
from vmtest.cluster.worker import FOLDERS
from vmtest.errors import InfrastructureError, Interrupted, UsageError
from vmtest.host import interrupt
from vmtest.matrix.runner import Stop
from vmtest.model.events import Event, Note, Preparing, TestFinished
from vmtest.model.results import Matrix, Status


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    with hosts(tmp_path / "hosts") as found:
        monkeypatch.setenv("VMTEST_SSH", found.ssh)
        yield found


def start(machines: Hosts, here: Coordinator, *names: str) -> None:
    for name in names:
        machines.start(name, knows_accelerator(here.folder / f"cache-{name}"))


def statuses(matrix: Matrix) -> list[Status]:
    return [kernel.status for kernel in matrix.kernels]


def left(machines: Hosts) -> list[str]:
    """What is left on the hosts: processes, and files of workers."""
    return [*machines.processes(), *map(str, machines.folder.glob("*/tmp/*"))]


@needs_sshd
def test_kernels_run_on_hosts_with_caches_of_their_own_and_nothing_is_left(
    here: Coordinator, machines: Hosts
) -> None:
    start(machines, here, "one", "two")
    with on(parse_place("ssh:one:1,two:1")) as engine:
        assert engine.slots == 2
        matrix = here.run(engine)
    assert statuses(matrix) == [Status.PASSED] * 3, matrix
    places = [e.what for e in here.events if isinstance(e, Preparing) and e.what.startswith("on ")]
    assert len(places) == 3 and set(places) == {"on one", "on two"}
    for name in ("one", "two"):
        assert list((here.folder / f"cache-{name}" / "kernels").glob("*-fake"))
    assert (here.run_folder.path / "a" / "console.log").read_text() == "the console of a\n"
    assert left(machines) == []


@needs_sshd
def test_a_host_says_itself_what_it_has_room_for(here: Coordinator, machines: Hosts) -> None:
    start(machines, here, "one", "two")
    with on(parse_place("ssh:one,two:3")) as engine:
        standing = engine.standing()
    assert standing is not None
    rooms = {standing.hosts[address]: number for address, number in standing.slots.items()}
    assert rooms["two"] == 3
    assert 1 <= rooms["one"] <= len(os.sched_getaffinity(0))


@needs_sshd
def test_every_host_that_cannot_be_used_is_named_with_its_cure(
    here: Coordinator, machines: Hosts
) -> None:
    def other_version(name: str, metadata: str) -> str:
        folder = here.folder / name / "vmtest-9.9.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(metadata)
        return f"{folder.parent}:{environment(here.cache)['PYTHONPATH']}"

    newer = other_version("newer", "Metadata-Version: 2.1\nName: vmtest\nVersion: 9.9\n")
    broken = here.folder / "broken"
    broken.mkdir()
    (broken / "distributed.py").write_text("raise ImportError('no module of that name')\n")
    without = f"{broken}:{environment(here.cache)['PYTHONPATH']}"
    start(machines, here, "good")
    machines.start("bare", here.cache, vmtest=None)
    machines.start("newer", here.cache, {"PYTHONPATH": newer})
    machines.start("old", here.cache, vmtest="echo Error: No such command >&2; exit 2; true")
    machines.start("daskless", here.cache, {"PYTHONPATH": without})
    machines.start("off", here.cache)
    machines.servers["off"].kill()
    machines.servers["off"].wait()
    names = ("good", "bare", "newer", "old", "daskless", "off")
    with pytest.raises(UsageError) as refused, on(parse_place(f"ssh:{','.join(names)}")):
        pytest.fail("they were taken")
    told = {line.split(": ")[0]: line for line in str(refused.value).splitlines()}
    assert set(told) == {f"host {name}" for name in names[1:]}
    assert "it has no vmtest" in told["host bare"] and "pip install" in told["host bare"]
    assert re.search(r"it has vmtest 9\.9 and here is vmtest 0", told["host newer"])
    assert "another vmtest" in told["host old"] and "install the same" in told["host old"]
    assert "no module of that name" in told["host daskless"]
    assert "pip install '/path/to/vmtest[dask]'" in told["host daskless"]
    assert "Connection refused" in told["host off"] and "ssh off true" in told["host off"]
    assert left(machines) == []


@needs_sshd
def test_a_host_whose_sshd_forwards_nothing_is_named(here: Coordinator, machines: Hosts) -> None:
    machines.start("one", here.cache, more="AllowTcpForwarding no")
    said = "host one: no port could be forwarded: .*; its sshd needs AllowTcpForwarding yes"
    with pytest.raises(InfrastructureError, match=said), on(parse_place("ssh:one")):
        pytest.fail("it was taken")
    assert left(machines) == []


@needs_sshd
def test_a_host_that_nobody_knows_is_refused_and_not_asked_about(
    here: Coordinator, machines: Hosts
) -> None:
    start(machines, here, "one")
    (machines.folder / "one" / "known").write_text("")
    said = "host one: ssh does not reach it: Host key verification failed"
    with pytest.raises(UsageError, match=said), on(parse_place("ssh:one")):
        pytest.fail("it was taken")


@needs_sshd
def test_a_kernel_whose_connection_is_lost_runs_on_another_host(
    here: Coordinator, machines: Hosts
) -> None:
    start(machines, here, "one", "two")
    here.tasks["a"] = Rows(then="wait", signs=here.folder)
    loss = Loss(machines.cut)
    with on(parse_place("ssh:one:1,two:1")) as engine:
        (result,) = here.run(engine, ("a",), loss, loss.stop).kernels
        lost = loss.places[0]
    assert set(loss.places) == {"one", "two"}
    assert f"worker {lost} was lost while it ran this kernel" in result.note
    named = re.search(r"; the rest is there, in (\S+)\)$", result.note)
    assert named is not None and named[1].startswith(str(here.folder / f"cache-{lost}"))
    assert (Path(named[1]) / "console.log").read_text() == "the console of a\n"
    notes = [event.text for event in here.events if isinstance(event, Note)]
    assert f"a: worker {lost} was lost; it runs again on {loss.places[1]}" in notes
    assert left(machines) == []


@needs_sshd
def test_a_run_whose_only_host_is_lost_says_what_ssh_said(
    here: Coordinator, machines: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.cluster.crew.PATIENCE", 2.0)
    start(machines, here, "one")
    here.tasks["a"] = Rows(then="wait", signs=here.folder)

    def emit(event: Event) -> None:
        if isinstance(event, TestFinished) and event.result.test == "t.py::1":
            machines.cut("one")

    with on(parse_place("ssh:one:1")) as engine:
        (result,) = here.run(engine, ("a",), emit).kernels
    assert result.status is Status.INFRA_ERROR
    said = r"ssh:one:1 had no worker for 2 s; host one: its connection ended \(.*[Cc]onn.*\)"
    assert re.fullmatch(said, result.reason), result.reason
    assert [test.test for test in result.tests] == ["t.py::0", "t.py::1"]
    until(lambda: left(machines) == [])


@needs_sshd
def test_a_run_that_is_stopped_leaves_nothing_on_a_host(here: Coordinator, machines: Hosts) -> None:
    start(machines, here, "one")
    here.tasks["a"] = Rows(then="wait", signs=here.folder)
    stop = Stop()

    def emit(event: Event) -> None:
        if isinstance(event, TestFinished) and event.result.test == "t.py::1":
            stop.request()

    with on(parse_place("ssh:one:2")) as engine:
        matrix = here.run(engine, ("a",), emit, stop)
    assert statuses(matrix) == [Status.CANCELLED]
    assert (here.folder / "a.cancelled").exists()
    assert (here.run_folder.path / "a" / "console.log").read_text() == "the console of a\n"
    assert left(machines) == []
    assert list((here.folder / "cache-one" / FOLDERS).iterdir()) == []


COORDINATOR = """
from pathlib import Path
import cluster_tasks, coordinator, pytest, sys
from vmtest.cluster.engine import on
from vmtest.cluster.place import parse_place
folder = Path(sys.argv[1])
here = coordinator.Coordinator(folder, pytest.MonkeyPatch())
here.tasks["a"] = cluster_tasks.Rows(then="wait", signs=folder)
with on(parse_place("ssh:one:1")) as engine:
    here.run(engine, ("a",))
"""


@needs_sshd
def test_a_coordinator_that_is_killed_leaves_nothing_on_a_host(
    tmp_path: Path, machines: Hosts
) -> None:
    cache = knows_accelerator(tmp_path / "cache")
    machines.start("one", cache)
    argv = [sys.executable, "-c", COORDINATOR, str(tmp_path)]
    with subprocess.Popen(argv, env=environment(cache)) as coordinator:
        until((tmp_path / "a.wait").exists, lambda: coordinator.poll() is None)
        assert machines.processes()
        coordinator.kill()
    until((tmp_path / "a.cancelled").exists)
    until(lambda: left(machines) == [])


@needs_sshd
def test_an_interrupt_while_hosts_are_reached_ends_that(here: Coordinator, machines: Hosts) -> None:
    machines.start("one", here.cache, vmtest="sleep 600; true")

    def began() -> bool:
        return any("sleep 600" in line for line in machines.processes())

    def end() -> None:
        until(began)
        scope.end()

    with interrupt.interruptible() as scope:
        ending = threading.Thread(target=end)
        ending.start()
        with pytest.raises(Interrupted), on(parse_place("ssh:one")):
            pytest.fail("it was reached")
        ending.join()
    # A program that is not vmtest may run on; its connection must end.
    for line in machines.processes():
        assert "ssh -F" not in line


@needs_sshd
def test_who_has_not_the_secret_of_a_run_is_refused(here: Coordinator, machines: Hosts) -> None:
    start(machines, here, "one")
    with on(parse_place("ssh:one")) as engine:
        scheduler = engine._client.cluster.scheduler_address
        standing = engine.standing()
        assert standing is not None and scheduler.startswith("tls://127.0.0.1:")
        addresses = {int(address.rpartition(":")[2]) for address in (scheduler, *standing.slots)}
        of_host = descendants(machines.servers["one"].pid)
        listening = {*ports(descendants(os.getpid())), *ports(of_host)} - {machines.ports["one"]}
        found = told(listening)
    assert addresses < listening, "what listens is the scheduler, the worker and both forwarded"
    assert found == {}


def test_a_coordinator_that_is_silent_is_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SILENCE", 0.2)
    reading, writing = os.pipe()
    try:
        os.write(writing, b"\n\nfirst\nsec")
        line = host._Lifeline(reading)
        assert line.line() == "first"
        assert line.line() is None
        line.wait()
    finally:
        os.close(reading)
        os.close(writing)


def test_a_coordinator_that_says_nothing_starts_no_worker() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    said: list[str] = []
    host.serve(reading, said.append)
    os.close(reading)
    (line,) = said
    found = Hello.read(line)
    assert found is not None and found.install == hello.installed()


INSTALL = Install("0.1.0", "3.12.1", "a" * 64, "2026.1.0")


@pytest.mark.parametrize(
    "there, said",
    [
        (INSTALL, ""),
        (Install("0.1.0", "3.12.9", "a" * 64, "2025.1.0"), ""),
        (Install("0.2.0", "3.12.1", "b" * 64, "2026.1.0"), "it has vmtest 0.2.0 and here is"),
        (Install("0.1.0", "3.12.1", "b" * 64, "2026.1.0"), "with other files (sha256 bbbbbbbbbbbb"),
        (Install("0.1.0", "3.11.1", "a" * 64, "2026.1.0"), "it has Python 3.11.1 and here is 3.12"),
        (Install("0.1.0", "3.12.1", "a" * 64, "", "No module"), "it has no Dask (No module)"),
    ],
)
def test_what_differs_on_a_host_is_told(there: Install, said: str) -> None:
    found = "; ".join(differences(there, INSTALL))
    assert said in found and bool(found) is bool(said)


@pytest.mark.parametrize(
    "line", ["", "Welcome!", "vmtest-worker", "vmtest-worker {}", 'vmtest-worker {"install": 1}']
)
def test_what_a_shells_files_print_is_no_hello(line: str) -> None:
    assert Hello.read(line) is None


def test_what_a_host_is_told_arrives() -> None:
    begin = Begin(1, 2, 3, "one", Secret("a\nb", "c"))
    assert Begin.read(begin.line()) == begin
    with pytest.raises(ValueError):
        Begin.read('{"vms": 3}')


def test_a_secret_is_of_one_run_alone() -> None:
    assert new_secret() != new_secret()


@pytest.mark.parametrize(
    "text, hosts",
    [
        ("ssh:one", (SshHost("one"),)),
        ("ssh:one:4,two", (SshHost("one", 4), SshHost("two"))),
        ("ssh:me@build.example:2", (SshHost("me@build.example", 2),)),
        ("ssh:[fe80::1]:2,[::1]", (SshHost("[fe80::1]", 2), SshHost("[::1]"))),
    ],
)
def test_hosts_are_a_place(text: str, hosts: tuple[SshHost, ...]) -> None:
    assert parse_place(text).hosts == hosts


@pytest.mark.parametrize(
    "text",
    ["ssh:", "ssh:one,", "ssh:-oProxyCommand=id", "ssh:-V", "ssh:-x@one", "ssh:one:0",
     "ssh:one:2222", "ssh:one two", "ssh:one;id", "ssh://one"],
)  # fmt: skip
def test_what_is_no_host_is_refused_before_ssh_sees_it(text: str) -> None:
    with pytest.raises(UsageError, match=r"`on` ssh:.* is no HOST or HOST:N"):
        parse_place(text)


def test_a_host_twice_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(UsageError, match="names one twice; write one:N for N VMs"):
        parse_place("ssh:one,one:2")


def test_workers_by_ssh_are_called_as_their_hosts() -> None:
    address = "tls://127.0.0.1:1234"
    assert (called(address, "ssh:one"), host_of(address, "ssh:one")) == ("one", "one")
    assert (called(address, 7), host_of(address, 7)) == (address, "127.0.0.1")
