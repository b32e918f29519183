"""Guests restored from a snapshot: the same as a booted one, and each another's stranger."""

from __future__ import annotations

import gc
import json
import pickle
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path

import pytest
from command import vmtest
from real_kernels import KERNEL, PROJECT, image_of
from test_machine import processes_with

from vmtest.host.cache import sweep, write_record
from vmtest.host.seal import Entry, stamp
from vmtest.matrix.bench import Bench, Job
from vmtest.matrix.job import run_kernel
from vmtest.model.kernels import Kernel, KernelImage, Network, RootImage
from vmtest.model.project import Config
from vmtest.model.results import KernelResult, Status
from vmtest.vm import machine, snapshot, standby
from vmtest.vm.accel import Probe
from vmtest.vm.deadlines import Scale
from vmtest.vm.klog import KernelLog, LogReader
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.qmp import Qmp
from vmtest.vm.restore import Begun, Snapshots, Started, key_of, running_guest

# Whatever of a guest a test may see, and that does not differ from boot to boot.
SAME = {
    "kernel": "uname -a; cat /proc/cmdline /proc/version /proc/filesystems",
    "mounts": "cut -d' ' -f4- /proc/self/mountinfo | sort",
    "modules": "cut -d' ' -f1-2 /proc/modules; ls /lib/modules/$(uname -r)/",
    "processes": "ps -eo uid,comm,stat --no-headers | grep -v 'kworker\\| Z' | cut -c1-20 | sort",
    "devices": "ls -l /dev | sed 's/ [A-Z][a-z][a-z] .*:.. / /'",
    "drivers": "cat /proc/devices /proc/partitions; ls /sys/bus/*/drivers/*",
    "network": "ip -d link; ip address | grep -v _lft; ip route; cat /proc/net/tcp | wc -l",
    "cgroups": "ls -R /sys/fs/cgroup | head -50; cat /proc/self/cgroup",
    # Our own code lies where a payload brings the same, and what was compiled of it.
    "files": "find /run /tmp /root /var/tmp -printf '%p %m %u %y\\n' | "
    "grep -Ev 'ssh|^/tmp/vmtest|/upper/vmtest' | sort",
    "accounts": "cat /etc/passwd /etc/shadow /etc/machine-id /etc/hosts",
    "environment": "env | grep -v SSH | sort; id; ulimit -a; umask",
    "settings": "grep -r . /proc/sys/kernel /proc/sys/net/core /proc/sys/vm 2>/dev/null"
    " | grep -Ev 'random|ns_last_pid|pty/nr|usage|stat_refresh|boot_id|compact|drop_caches'",
    "taint": "cat /proc/sys/kernel/tainted",
    "bpf": "bpftool prog; bpftool map; bpftool link; bpftool cgroup tree",
    "loads a module": "modprobe veth && ip link add a type veth peer name b && ip -br link",
}
# What no two guests may have in common.
DIFFERS = {
    "urandom": "head -c 16 /dev/urandom | od -An -tx1",
    "getrandom": "python3 -c 'import os; print(os.getrandom(16).hex())'",
    "auxiliary vector": "python3 -I -S -c 'print(hash(str(1)), id(object()))'",
    "boot id": "cat /proc/sys/kernel/random/boot_id",
    "port": 'python3 -c \'import socket; s = [socket.create_server((chr(49)+chr(50)+"7.0.0.1", 0))'
    " for _ in range(4)]; print([x.getsockname()[1] for x in s])'",
}


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The lines in which two guests differ."""
    return [
        f"{name}: {line}"
        for name in SAME.keys() & one.keys()
        for line in unified_diff(one[name].splitlines(), other[name].splitlines(), n=0, lineterm="")
    ]


def asked(started: Started, commands: Mapping[str, str]) -> dict[str, str]:
    said = {}
    started.session.run(["sh", "-c", standby.END])  # as exec and shell do
    for name, command in commands.items():
        done = started.session.run(["sh", "-c", command])
        said[name] = (done.stdout + done.stderr).decode()
    return said


def unwatched(machine: Machine, stack: ExitStack) -> None:
    """What is done with a machine that has been started: nothing."""


@contextmanager
def guest(
    spec: MachineSpec, snapshots: Snapshots, probe: Probe, begun: Begun = unwatched
) -> Iterator[Started]:
    factor = Scale.now(probe.seconds, 2).factor
    with running_guest(spec, snapshots, 30.0 * factor, factor, begun) as started:
        yield started
        started.session.close()


def started_of(
    spec: MachineSpec, snapshots: Snapshots, probe: Probe, commands: Mapping[str, str]
) -> tuple[bool, dict[str, str]]:
    """Whether a guest was restored, and what it says; it is kept if it was booted."""
    with guest(spec, snapshots, probe) as started:
        said = started.warm, asked(started, commands)
    snapshots.publish()
    assert snapshots.notes == []
    return said


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cold(
    store: Path,
    image: KernelImage,
    root: RootImage,
    probe: Probe,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What a booted guest says; its snapshot is in ``store`` afterwards."""
    log = tmp_path_factory.mktemp("cold") / "console.log"
    snapshots = Snapshots(store)
    spec = MachineSpec(image, root, probe, log)
    with guest(spec, snapshots, probe) as started:
        assert not started.warm
        said = asked(started, {**SAME, **DIFFERS})
    snapshots.publish()
    assert snapshots.notes == []
    return said


@pytest.fixture
def saved(cold: dict[str, str], store: Path, spec: MachineSpec) -> Path:
    """The snapshot of ``spec`` in ``store``."""
    place = store / "snapshots" / key_of(spec)
    assert place.is_dir()
    return place


@pytest.fixture
def own(saved: Path, tmp_path: Path) -> Entry:
    """A copy of it in a cache of the test's own."""
    place = tmp_path / "cache" / "snapshots" / saved.name
    shutil.copytree(saved, place)
    return Entry(tmp_path / "cache", "snapshot", place)


def test_a_restored_guest_is_as_a_booted_one(
    cold: dict[str, str], saved: Path, store: Path, spec: MachineSpec, probe: Probe
) -> None:
    with guest(spec, Snapshots(store), probe) as started:
        assert started.warm
        warm = asked(started, SAME)
    assert differences(cold, warm) == []
    assert (saved / "devices").stat().st_size < 16 << 20  # its memory is not among them


def test_a_guest_that_is_not_saved_is_as_one_that_is(
    cold: dict[str, str], spec: MachineSpec, probe: Probe
) -> None:
    with guest(spec, Snapshots(None), probe) as started:
        assert not started.warm
        plain = asked(started, SAME)
    assert differences(cold, plain) == []


def test_two_at_once_live_and_have_nothing_secret_in_common(
    cold: dict[str, str], saved: Path, store: Path, spec: MachineSpec, probe: Probe, tmp_path: Path
) -> None:
    other = replace(spec, log=tmp_path / "other.log")
    with (
        guest(spec, Snapshots(store), probe) as one,
        guest(other, Snapshots(store), probe) as two,
    ):
        assert one.warm and two.warm
        said = [cold, asked(one, DIFFERS), asked(two, DIFFERS)]
        one.session.put(b"mine", "/run/mine")
        assert two.session.run(["cat", "/run/mine"]).status != 0
    for name in DIFFERS:
        assert len({answers[name] for answers in said}) == 3, (name, said)
    keys = [machine._keys.host_public for machine in (one.machine, two.machine)]
    assert keys[0] != keys[1]


def test_the_clock_is_right_and_uptime_goes_on_from_the_save(
    saved: Path, store: Path, spec: MachineSpec, probe: Probe
) -> None:
    with guest(spec, Snapshots(store), probe) as started:
        before = time.time()
        done = started.session.run(
            ["python3", "-I", "-S", "-c", "import time; print(time.time(), time.monotonic())"]
        )
        after = time.time()
        now, uptime = map(float, done.stdout.split())
        age = time.time() - started.machine.started
    assert before - 2 <= now <= after + 2
    record = saved / "machine.json"
    assert uptime < time.time() - record.stat().st_mtime + 120 and uptime >= 1
    assert age > 0


def test_the_log_says_where_the_restored_guest_began(
    saved: Path, store: Path, spec: MachineSpec, probe: Probe, tmp_path: Path
) -> None:
    with guest(spec, Snapshots(store), probe) as started:
        log = KernelLog(tmp_path / "dmesg.log")
        reader = LogReader(started.session, log)
        reader.finish(60, lambda: None)
        started.session.close()
        reader.join()
    lines = (tmp_path / "dmesg.log").read_text().splitlines()
    marks = [line for line in lines if "vmtest:" in line]
    assert [mark.partition("vmtest: ")[2] for mark in marks[:2]] == [
        "restored from a snapshot",
        "the guest is up",
    ]
    assert "Linux version" in lines[0] + lines[1]


def test_a_machine_with_two_vcpus_a_card_and_its_own_cmdline_is_saved_and_restored_too(
    spec: MachineSpec, probe: Probe, tmp_path: Path
) -> None:
    changed = replace(spec, cpus=2, network=Network.CLOSED, cmdline=("nokaslr",))
    # The rest of SAME takes over a minute of an emulated guest, and asks nothing of the machine.
    asking = {name: SAME[name] for name in ("mounts", "modules", "network", "loads a module")}
    asking["cpus"] = "nproc"
    said = []
    for _ in range(2):
        said.append(started_of(changed, Snapshots(tmp_path / "cache"), probe, asking))
    assert [warm for warm, _ in said] == [False, True]
    assert differences(said[0][1], said[1][1]) == []
    assert [answers["cpus"] for _, answers in said] == ["2\n", "2\n"]


@pytest.mark.parametrize("name", ["5.10", "6.1", "backports"])
def test_each_kernel_is_saved_and_restored(
    name: str, settings: Config, cache: Path, spec: MachineSpec, probe: Probe, tmp_path: Path
) -> None:
    image = image_of(name, settings, cache)
    kernel = replace(spec, image=image)
    asking = {"release": "uname -r", "a module": SAME["loads a module"], "mounts": SAME["mounts"]}
    booted, restored = [
        started_of(kernel, Snapshots(tmp_path / "cache"), probe, {**asking, **DIFFERS})
        for _ in range(2)
    ]
    assert (booted[0], restored[0]) == (False, True)
    assert booted[1]["release"] == f"{image.release}\n"
    assert {key: booted[1][key] for key in asking} == {key: restored[1][key] for key in asking}
    assert all(booted[1][key] != restored[1][key] for key in DIFFERS)


def test_a_shell_is_restored_too() -> None:
    for _ in range(2):  # what the first may have booted and saved
        said = vmtest("shell", KERNEL, "--warm", "--", "dmesg", cwd=PROJECT)
        assert said.status == 0, said
    assert "vmtest: restored from a snapshot" in said.out


def rotten(entry: Entry, name: str, data: bytes) -> None:
    """Damage a file as a failing disk does: no size and no time tells."""
    (entry.place / name).write_bytes(data)
    files = entry.files()
    assert isinstance(files, Mapping)
    write_record(entry._checked, {"stamp": stamp(entry.place, files)})


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As after ``ulimit -f``: no file of this process, or of those that it starts, is larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_where_a_file_may_not_be_as_large_as_the_memory_the_kernel_boots(
    own: Entry, spec: MachineSpec, probe: Probe
) -> None:
    """Whether there is a snapshot, which may be good and stays, or is none yet."""
    restoring, saving = Snapshots(own.root), Snapshots(own.root / "another")
    with largest_file(256 << 20):
        for snapshots in (restoring, saving):
            with guest(spec, snapshots, probe) as started:
                assert not started.warm
                assert started.session.run(["true"]).status == 0
            snapshots.publish()
    why = "its memory is a file of 1024 MiB: more than a file may have here; raise the limit of a "
    why += "file's size (ulimit -f)"
    assert restoring.notes == [f"the saved guest was not used ({why}): the kernel was booted"]
    assert saving.notes == [f"the booted guest could not be saved for the next time: {why}"]
    assert own.place.exists()


def test_a_snapshot_whose_guest_does_not_answer_is_dropped_and_the_kernel_boots(
    own: Entry, spec: MachineSpec, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest is told nothing, as one that hangs would do nothing."""
    real = Machine._own
    monkeypatch.setattr("vmtest.vm.restore.RESTORE_LIMIT", 1.0)
    monkeypatch.setattr(Machine, "_own", lambda self: real(self) if self._snapshot is None else b"")
    snapshots = Snapshots(own.root)
    with guest(spec, snapshots, probe) as started:
        assert not started.warm
    assert "no SSH session" in snapshots.notes[0]


def test_a_guest_runs_though_qemu_takes_long_to_take_it_in(
    own: Entry, spec: MachineSpec, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU leaves one paused that is told to run before: one restore in about 300 stood still."""
    connected = snapshot._connected

    def slow(qmp: Qmp) -> socket.socket:
        ours, between = socket.socketpair()
        threading.Thread(target=pass_on, args=(between, connected(qmp), 0.5), daemon=True).start()
        return ours

    monkeypatch.setattr(snapshot, "_connected", slow)
    snapshots = Snapshots(own.root)
    with guest(spec, snapshots, probe) as started:
        assert started.warm
        assert started.session.run(["true"]).status == 0
    assert snapshots.notes == []


def pass_on(between: socket.socket, qemu: socket.socket, wait: float) -> None:
    """Send QEMU what comes, with a pause in the middle."""
    with between, qemu, between.makefile("rb") as stream:
        data = stream.read()
        qemu.sendall(data[: len(data) // 2])
        time.sleep(wait)  # as long as QEMU is to be without the rest
        qemu.sendall(data[len(data) // 2 :])


@pytest.mark.parametrize("name", ["memory", "devices"])
def test_a_snapshot_that_ends_too_early_is_dropped_and_the_kernel_boots(
    name: str, own: Entry, spec: MachineSpec, probe: Probe
) -> None:
    data = (own.place / name).read_bytes()
    rotten(own, name, data[: len(data) // 2])
    snapshots = Snapshots(own.root)
    with guest(spec, snapshots, probe) as started:
        assert not started.warm
        assert started.session.run(["true"]).status == 0
    assert "the saved guest does not start" in snapshots.notes[0]
    assert not own.place.exists()
    snapshots.publish()
    with guest(spec, Snapshots(own.root), probe) as started:
        assert started.warm


def test_a_guest_that_cannot_be_made_anew_ends_at_once_and_the_kernel_boots(
    own: Entry, spec: MachineSpec, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its seed is none, as if its kernel refused one."""
    real = Machine._own

    def seedless(self: Machine) -> bytes:
        words = real(self)
        if self._snapshot is None:
            return words
        now, _, rest = words.split(b" ", 2)
        return b" ".join((now, b"none", rest))

    monkeypatch.setattr(Machine, "_own", seedless)
    snapshots = Snapshots(own.root)
    with guest(spec, snapshots, probe) as started:
        assert not started.warm
    assert "QEMU ended" in snapshots.notes[0], "nothing waited for a limit"
    assert "vmtest: the guest ends: it cannot be made anew: ValueError" in snapshots.notes[0]


# When sshd was started and when the guest was made anew, in seconds since the guest's boot.
WHEN = """
p=$(grep -l 'sshd-session' /proc/[0-9]*/comm | head -1)
cut -d' ' -f22 ${p%comm}stat
dmesg | sed -n 's/^.  *\\([0-9.]*\\). vmtest: restored.*/\\1/p'
"""


@pytest.mark.parametrize("waits", [True, False], ids=["sshd-session", "before-9.8"])
def test_sshd_waits_in_a_saved_guest_if_it_starts_a_program_for_a_connection(
    waits: bool, spec: MachineSpec, probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSH before 9.8 would go on with the random numbers of the sshd that was saved."""
    real = machine._script
    sought = "grep -q sshd-session" if waits else "grep -q sshd-without-sessions"
    monkeypatch.setattr(
        machine, "_script", lambda name: real(name).replace("grep -q sshd-session", sought)
    )
    own = Machine._own

    def later(self: Machine) -> bytes:
        time.sleep(0.5)  # between the save and what comes behind it
        return own(self)

    monkeypatch.setattr(Machine, "_own", later)
    snapshots = Snapshots(tmp_path / "cache")
    for warm in (False, True):
        with guest(spec, snapshots, probe) as started:
            assert started.warm is warm
            said = asked(started, {"when": WHEN})["when"]
        snapshots.publish()
    assert snapshots.notes == []
    ticks, restored = said.split()
    assert (float(restored) - int(ticks) / 100 > 0.4) is waits


def test_a_guest_that_cannot_be_saved_says_why_and_works(
    spec: MachineSpec, probe: Probe, tmp_path: Path
) -> None:
    """Its image has its Python somewhere else than it says."""
    elsewhere = replace(spec, root=replace(spec.root, python="/nowhere/python3"))
    snapshots = Snapshots(tmp_path / "cache")
    with guest(elsewhere, snapshots, probe) as started:
        assert not started.warm
        assert started.session.run(["modprobe", "veth"]).status == 0
    snapshots.publish()
    assert snapshots.notes == [
        "the booted guest could not be saved for the next time: /nowhere/python3 does not start,"
        " or has no ctypes"
    ]
    assert not list((tmp_path / "cache").glob("snapshots/*"))


def test_a_guest_whose_kernel_complained_while_it_booted_is_not_saved(
    spec: MachineSpec, probe: Probe, tmp_path: Path
) -> None:
    """Else every guest to come would have the complaint in its log, and its kernel's taint."""

    def complains(machine: Machine, stack: ExitStack) -> None:
        machine.console.feed(b"[    0.700000] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 x+0x1/0x2\n")

    snapshots = Snapshots(tmp_path / "cache")
    with guest(spec, snapshots, probe, complains) as started:
        assert started.session.run(["true"]).status == 0
    snapshots.publish()
    (note,) = snapshots.notes
    assert "could not be saved" in note and "complained while it booted" in note
    assert not list((tmp_path / "cache").glob("snapshots/*"))


def outcomes(json_file: Path, *options: str) -> tuple[str, dict[str, tuple[str, str]]]:
    """How the guest came in which sendmsg's suite ran, and what became of each test."""
    said = vmtest(
        *("run", "--kernel", KERNEL, "--suite", "sendmsg", "--json", str(json_file)),
        *options,
        cwd=PROJECT,
    )
    assert said.status == 0, said
    (kernel,) = json.loads(json_file.read_text())["kernels"]
    return kernel["start"], {
        test["test"]: (test["outcome"], test["message"]) for test in kernel["tests"]
    }


def test_a_suite_has_the_same_results_in_a_restored_guest(tmp_path: Path) -> None:
    start, cold = outcomes(tmp_path / "cold.json", "--cold")
    assert start == "cold" and len(cold) > 30
    saved = vmtest("shell", KERNEL, "--warm", "--", "true", cwd=PROJECT)
    assert saved.status == 0, saved
    start, warm = outcomes(tmp_path / "warm.json")
    assert start == "warm"
    assert warm == cold


class Asks:
    """A task that asks its guest one thing."""

    objects = ()

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        with bench.guest() as booted:
            booted.session.run(["true"])
        return replace(result, status=Status.PASSED)


def test_a_kernel_on_a_rotten_snapshot_does_not_count(
    own: Entry, spec: MachineSpec, kernel: Kernel, probe: Probe, tmp_path: Path
) -> None:
    data = bytearray((own.place / "memory").read_bytes())
    zeros = data.rfind(bytes(64))
    assert zeros > 0
    data[zeros + 32] ^= 1  # nobody is likely to read it
    rotten(own, "memory", bytes(data))
    folder = tmp_path / "run"
    folder.mkdir()
    job = Job(kernel, spec.image, spec.root, Asks(), probe, folder, 1, snapshots=own.root)
    with pytest.raises(Exception, match=r"cached snapshot .* is damaged") as caught:
        run_kernel(job)
    assert type(caught.value).__name__ == "CacheDamaged"
    assert not own.place.exists()


KILLED = """
import pickle, sys
from pathlib import Path
from vmtest.vm.restore import Begun, Snapshots, running_guest
spec = pickle.loads(bytes.fromhex(sys.argv[1]))
def begun(machine, stack):
    print(machine._folder, flush=True)
with running_guest(spec, Snapshots(Path(sys.argv[2])), 600, 10, begun):
    pass
"""


def test_a_runner_killed_while_it_saves_leaves_no_half_snapshot(
    spec: MachineSpec, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, pickle.dumps(spec).hex(), str(cache)],
        stdout=subprocess.PIPE,
        text=True,
    ) as runner:
        assert runner.stdout is not None
        folder = runner.stdout.readline().strip()
        # Nothing else says when QEMU begins to write.
        while not list(cache.glob("tmp/*/memory")):
            assert runner.poll() is None
            time.sleep(0.005)
        runner.send_signal(signal.SIGKILL)
    assert list(cache.glob("tmp/*/memory"))
    assert not list(cache.glob("snapshots/*"))
    sweep(cache)
    assert not list(cache.glob("tmp/*"))
    while processes_with(folder):
        time.sleep(0.01)
    assert not Path(folder).exists()


def open_descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_ten_restores_leave_nothing_behind(
    saved: Path, store: Path, spec: MachineSpec, probe: Probe
) -> None:
    seen = []
    for number in range(10):
        with guest(spec, Snapshots(store), probe) as started:
            assert started.warm
            seen.append(asked(started, {"id": DIFFERS["boot id"]})["id"])
            folder = started.machine._folder
        assert not processes_with(str(folder)) and not folder.exists()
        if number == 0:
            descriptors = open_descriptors()
    assert open_descriptors() <= descriptors
    assert len(set(seen)) == 10


def test_a_restored_guest_dies_with_its_runner(
    saved: Path, store: Path, spec: MachineSpec, probe: Probe
) -> None:
    with ExitStack() as stack:
        started = stack.enter_context(guest(spec, Snapshots(store), probe))
        assert started.warm
        folder = started.machine._folder
        assert processes_with(str(folder))
        started.machine.cancel()
        stack.pop_all().close()
    assert not processes_with(str(folder)) and not folder.exists()
