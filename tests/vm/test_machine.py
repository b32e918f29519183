"""One real VM: what it is, how it dies, and that nothing of it stays."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from tests.faults.fixtures import Noticed
from vmtest.errors import BootError, InfrastructureError, SessionLost
from vmtest.model.kernels import Accelerator, KernelImage, RootImage
from vmtest.vm.accel import Probe
from vmtest.vm.deadlines import Scale
from vmtest.vm.machine import FILE_LIMIT, Machine, MachineSpec
from vmtest.vm.session import Keys, SshSession


def processes_with(text: str) -> list[str]:
    """The command lines of all processes that have ``text`` in them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if text in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def standing(
    image: KernelImage, root: RootImage, probe: Probe, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """One guest for all tests that only look at it, or ask it something."""
    spec = MachineSpec(image, root, probe, tmp_path_factory.mktemp("standing") / "console.log")
    with Machine(spec) as running:
        yield running


@pytest.fixture(scope="module")
def asked(standing: Machine, probe: Probe) -> Iterator[SshSession]:
    opened = standing.connect(30.0 * Scale.now(probe.seconds, 1).factor)
    yield opened
    opened.close()


def folder_of(machine: Machine) -> Path:
    return Path(machine._listener.getsockname()).parent


def test_the_kernel_that_was_asked_for_answers(asked: SshSession, image: KernelImage) -> None:
    assert asked.run(["uname", "-r"]).stdout.decode().strip() == image.release


def test_a_command_brings_status_and_both_streams(asked: SshSession) -> None:
    done = asked.run(["sh", "-c", "cat; echo err >&2; exit 7"], stdin=b"in")
    assert (done.status, done.stdout, done.stderr) == (7, b"in", b"err\n")


def test_a_guest_that_writes_and_writes_to_a_file_of_the_hosts_fills_no_disk(
    standing: Machine, asked: SshSession
) -> None:
    (file,) = folder_of(standing).glob("virtme_ret*")
    find = 'cd /sys/class/virtio-ports && port=$(dirname "$(grep -lx virtme.ret */name)")'
    write = f"head -c {FILE_LIMIT} /dev/zero >&3; timeout 3 head -c 9M /dev/zero >&3"
    done = asked.run(["sh", "-c", f"{find} && exec 3>/dev/$port && {write}"])
    assert file.stat().st_size == FILE_LIMIT, done
    assert asked.run(["echo", "alive"]).stdout == b"alive\n"


def test_what_is_sent_to_a_command_that_has_ended_is_dropped(asked: SshSession) -> None:
    stream = asked.stream(["true"])
    while stream.receive(1.0) is not None:
        pass
    stream.send(b"too late")
    assert stream.status() == 0
    assert asked.run(["cat"], stdin=b"the session lives").stdout == b"the session lives"


def test_what_is_typed_at_a_terminal_whose_command_has_ended_is_dropped(
    asked: SshSession,
) -> None:
    terminal = asked.terminal(["false"], "dumb", (80, 24))
    while terminal.receive():
        pass
    assert terminal.status() == 1
    terminal.send(b"too late")
    assert asked.run(["true"]).status == 0


def test_arguments_arrive_as_they_are(asked: SshSession) -> None:
    odd = ["a b", "$HOME", "'", "*", "\n", ""]
    done = asked.run(["python3", "-c", "import sys; print(sys.argv[1:])", *odd])
    assert done.stdout.decode().strip() == repr(odd)


def test_the_guest_has_what_suites_need(asked: SshSession) -> None:
    script = (
        "import os,subprocess;"
        "print(sorted(os.listdir('/sys/class/net')));"
        "print(os.getuid(), os.listdir(os.path.expanduser('~')));"
        "print(os.path.exists('/sys/fs/cgroup/cgroup.controllers'));"
        "print(open('/sys/class/net/lo/operstate').read().strip() in ('unknown', 'up'))"
    )
    shown = asked.run(["python3", "-c", script]).stdout.decode().splitlines()
    assert shown == ["['lo']", "0 []", "True", "True"]


# A child that is left in the group ends 0.5 s after the parent wants it removed; or stays.
GROUP_WITH_A_CHILD = """
import os, sys, time
with temporary_cgroup() as group:
    with group.entered():
        child = os.fork()
        if child == 0:
            time.sleep(float(sys.argv[1]))
            os._exit(0)
print(group.path.exists())
"""


@pytest.mark.parametrize(
    ("seconds", "status", "said"), [("0.5", 0, "False\n"), ("8", 1, "")], ids=["ends", "stays"]
)
def test_a_group_in_which_something_still_ends_is_removed(
    seconds: str, status: int, said: str, asked: SshSession
) -> None:
    """As a thread does, which is joined before the kernel is done with it."""
    source = files("vmtest.guest").joinpath("cgroup.py").read_text()
    done = asked.run(["python3", "-c", source + GROUP_WITH_A_CHILD, seconds])
    assert (done.status, done.stdout.decode()) == (status, said), done.stderr
    assert (b"Device or resource busy" in done.stderr) is (status == 1)


def test_the_socket_lies_in_a_folder_that_only_we_may_enter(
    standing: Machine, asked: SshSession
) -> None:
    assert stat.S_IMODE(folder_of(standing).stat().st_mode) == 0o700


def test_no_key_is_on_any_command_line(standing: Machine, asked: SshSession) -> None:
    lines = processes_with(str(folder_of(standing)))
    assert lines, "the test looks at nothing"
    secret = standing._keys.host_private.decode().splitlines()[2]
    assert [line for line in lines if secret in line] == []


class LetsInAnother(Machine):
    """A guest that was given another client's key."""

    def _own(self) -> bytes:
        return (
            super()._own().replace(self._keys.authorized.encode(), Keys.make().authorized.encode())
        )


class HasAnotherKey(Machine):
    """A guest whose host key is not the one that we made for it."""

    def _own(self) -> bytes:
        return (
            super()
            ._own()
            .replace(self._keys.host_private.strip(), Keys.make().host_private.strip())
        )


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (LetsInAnother, "does not accept our key: Authentication failed"),
        (HasAnotherKey, "host key is not the one we gave it"),
    ],
)
def test_both_keys_are_verified(
    kind: type[Machine], said: str, spec: MachineSpec, boot_limit: float
) -> None:
    with kind(spec) as machine, pytest.raises(BootError, match=said):
        machine.connect(boot_limit)


def test_a_kernel_that_mounts_no_folder_boots_from_disks_and_leaves_nothing(
    spec: MachineSpec, boot_limit: float, tmp_path: Path
) -> None:
    assert spec.image.config is not None
    lines = spec.image.config.read_text().splitlines()
    config = tmp_path / "config"
    config.write_text("".join(f"{x}\n" for x in lines if "9P" not in x and "VIRTIO_FS" not in x))
    with Machine(replace(spec, image=replace(spec.image, config=config))) as machine:
        folder = folder_of(machine)
        session = machine.connect(boot_limit)
        done = session.run(["sh", "-c", "modprobe dummy && cat /proc/modules /proc/mounts"])
        session.close()
        said = done.stdout.decode()
        assert done.status == 0 and said.startswith("dummy"), done
        assert "/dev/vdc /run/virtme/modules squashfs" in said
        assert " 9p " not in said
        assert processes_with(str(folder)) != []
    assert processes_with(str(folder)) == []
    assert not folder.exists()


def test_a_panic_is_noticed_within_a_second_and_named(
    machine: Machine, session: SshSession, noticed: Noticed
) -> None:
    began = time.monotonic()
    with noticed.here(), pytest.raises(SessionLost):
        session.run(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 30"])
    cause = machine.cause_of_death()
    assert time.monotonic() - began < 10
    assert "kernel panicked" in cause
    assert "sysrq triggered crash" in cause
    assert machine.console.panic is not None
    # From the console's line to the waiting caller's exception.
    told = machine.started + machine.console.panic.seconds
    assert time.monotonic() - told < 2


def test_a_qemu_that_dies_is_noticed_and_named(
    machine: Machine, session: SshSession, noticed: Noticed
) -> None:
    def kill_qemu() -> None:
        folder = str(folder_of(machine))
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            line = entry.read_bytes()
            if b"qemu-system" in line.split(b"\0")[0] and folder.encode() in line:
                os.kill(int(entry.parent.name), 9)

    stream = session.stream(["sleep", "60"])
    kill_qemu()
    killed = time.monotonic()
    with noticed.here(), pytest.raises(SessionLost):
        while stream.receive(0.2) is not None:
            assert time.monotonic() - killed < 10
    assert machine.cause_of_death() == "QEMU ended"


def test_an_ssh_server_that_is_killed_is_noticed_and_named(
    machine: Machine, session: SshSession, noticed: Noticed
) -> None:
    began = time.monotonic()
    with noticed.here(), pytest.raises(SessionLost):
        session.run(["sh", "-c", "kill -9 $(pidof sshd-session sshd); sleep 60"])
    assert "SSH server (sshd) ended" in machine.cause_of_death()
    assert time.monotonic() - began < 30


def test_a_kernel_that_panics_at_boot_says_why(
    spec: MachineSpec, boot_limit: float, noticed: Noticed
) -> None:
    broken = replace(spec, cmdline=("rdinit=/bin/busybox",))
    with Machine(broken) as machine, noticed.here(), pytest.raises(BootError) as caught:
        machine.connect(boot_limit)
    said = str(caught.value)
    assert "6.12: kernel panicked" in said
    assert "Attempted to kill init" in said
    assert str(spec.log) in said


def test_a_kernel_that_hangs_at_boot_is_given_up_at_the_deadline(spec: MachineSpec) -> None:
    # Every line of the kernel's takes a minute.
    hanging = replace(spec, cmdline=("boot_delay=10000", "lpj=100000000"))
    began = time.monotonic()
    with Machine(hanging) as machine, pytest.raises(BootError) as caught:
        machine.connect(8)
    assert 8 < time.monotonic() - began < 8 + 3
    assert "no SSH session" in str(caught.value)
    assert "last console line" in str(caught.value)


def test_an_image_that_has_vanished_ends_at_once(spec: MachineSpec, tmp_path: Path) -> None:
    gone = tmp_path / "boot" / "vmlinux"
    with (
        pytest.raises(InfrastructureError, match=f"{gone} does not exist any more"),
        Machine(replace(spec, image=replace(spec.image, image=gone))),
    ):
        raise AssertionError("it was started")


def test_20_megabytes_each_way_arrive_unchanged(asked: SshSession) -> None:
    data = os.urandom(20 << 20)
    asked.put(data, "/tmp/blob")
    (digest, _) = asked.run(["sha256sum", "/tmp/blob"]).stdout.decode().split()
    assert digest == hashlib.sha256(data).hexdigest()
    assert asked.get("/tmp/blob") == data


def test_two_thousand_round_trips_do_not_stall(asked: SshSession) -> None:
    """The long version, 50,000 on 1 and 2 vCPUs, is benchmarks/transport.py."""
    stream = asked.stream(["cat"])
    slowest = 0.0
    for number in range(2000):
        sent = b"%d\n" % number
        began = time.monotonic()
        stream.send(sent)
        got = b""
        while not got.endswith(b"\n"):
            piece = stream.receive(2.0)
            assert piece is not None
            got += piece[0]
            assert time.monotonic() - began < 2.0, f"round trip {number} stalled"
        assert got == sent
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2.0


def test_several_channels_work_at_once(asked: SshSession) -> None:
    streams = [asked.stream(["sh", "-c", f"sleep 0.2; echo {n}"]) for n in range(4)]
    told = []
    for stream in streams:
        out = b""
        while (got := stream.receive(5)) is not None:
            out += got[0]
        told.append(out)
    assert told == [b"0\n", b"1\n", b"2\n", b"3\n"]


def test_cancelling_from_another_thread_wakes_the_waiter(machine: Machine) -> None:
    threading.Timer(1.0, machine.cancel).start()
    began = time.monotonic()
    with pytest.raises(BootError):
        machine.connect(60)
    assert time.monotonic() - began < 5


@pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="there is no /dev/kvm")
def test_the_accelerator_that_was_chosen_is_the_one_that_boots(
    asked: SshSession, standing: Machine
) -> None:
    kvm = (
        b"kvm"
        in asked.run(
            ["cat", "/sys/devices/system/clocksource/clocksource0/available_clocksource"]
        ).stdout
    )
    assert kvm == (standing.spec.probe.accelerator is Accelerator.KVM)
