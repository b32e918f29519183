"""What a snapshot is on disk, how its command is made, and what names it: no VM."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from vmtest.host.cache import hold, let_go, read_record, scratch, try_locked, write_record
from vmtest.host.seal import Entry
from vmtest.model.kernels import Accelerator, KernelImage, Network, RootImage
from vmtest.model.versions import KernelVersion
from vmtest.vm import restore
from vmtest.vm.accel import Probe
from vmtest.vm.machine import MachineSpec
from vmtest.vm.memory import Memory
from vmtest.vm.qemu import QEMU
from vmtest.vm.qmp import Qmp, QmpError
from vmtest.vm.restore import Snapshots, key_of, unfit, where_saved
from vmtest.vm.snapshot import (
    Snapshot,
    SnapshotError,
    fill,
    inherited,
    peer,
    prepare,
    read,
    rewritten,
    save,
    send,
)

ARGV = [
    "/usr/bin/qemu-system-x86_64",
    "-drive",
    "if=none,file=/tmp/vmtest-old/root,format=raw",
    "-chardev",
    "file,id=stdout,path=/proc/self/fd/1",
    "-initrd",
    "/proc/self/fd/4",
    "-chardev",
    "socket,id=ssh,path=/tmp/vmtest-old/ssh",
    "-append",
    'quiet init=/bin/sh -- -c "mount -t tmpfs run /run"',
]


def test_a_command_is_rewritten_for_its_new_folder_and_for_nothing_else() -> None:
    made = rewritten(ARGV, "/tmp/vmtest-old", "/dev/shm/vmtest-new")
    assert made == [
        "/usr/bin/qemu-system-x86_64",
        "-drive",
        "if=none,file=/dev/shm/vmtest-new/root,format=raw",
        "-chardev",
        "file,id=stdout,path=/proc/self/fd/1",
        "-initrd",
        "/dev/shm/vmtest-new/fd-4",
        "-chardev",
        "socket,id=ssh,path=/dev/shm/vmtest-new/ssh",
        "-append",
        'quiet init=/bin/sh -- -c "mount -t tmpfs run /run"',
        "-incoming",
        "defer",
    ]


def test_descriptors_that_every_qemu_has_are_not_kept() -> None:
    assert inherited([*ARGV, "/proc/self/fd/2", "a=/proc/self/fd/12,b"]) == (4, 12)


# --- what names a snapshot ---------------------------------------------------------------


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    image = KernelImage(
        "6.12",
        KernelVersion.parse("6.12.1"),
        "6.12.1-x",
        tmp_path / "vmlinux",
        None,
        None,
        "d" * 64,
        "",
    )
    root = RootImage("disk", tmp_path / "root.sqfs", "e" * 64, "/usr/bin/python3")
    probe = Probe(Accelerator.TCG, 1.0, "")
    return MachineSpec(image, root, probe, tmp_path / "console.log", memory_mib=16)


def test_the_same_machine_has_the_same_key(spec: MachineSpec, tmp_path: Path) -> None:
    assert key_of(spec) == key_of(replace(spec, log=tmp_path / "another.log"))


@pytest.mark.parametrize(
    "change",
    [
        {"cpus": 2},
        {"memory_mib": 512},
        {"cmdline": ("nokaslr",)},
        {"network": Network.CLOSED},
        {"network": Network.OUTBOUND},
        {"probe": Probe(Accelerator.KVM, 1.0, "")},
        {"probe": Probe(Accelerator.TCG, 1.0, "", "qboot.rom")},
        {"image": {"digest": "f" * 64}},
        {"image": {"release": "6.12.1-y"}},
        {"root": {"digest": "f" * 64}},
    ],
    ids=str,
)
def test_another_machine_has_another_key(spec: MachineSpec, change: dict[str, object]) -> None:
    parts = {
        name: replace(getattr(spec, name), **value) if isinstance(value, dict) else value
        for name, value in change.items()
    }
    assert key_of(replace(spec, **parts)) != key_of(spec)  # type: ignore[arg-type]


def test_another_command_has_another_key(
    spec: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of another vmtest, whose guests have another device."""
    before = key_of(spec)
    monkeypatch.setattr("vmtest.vm.vng.PORT", "another.port")
    assert key_of(spec) != before


def test_another_qemu_has_another_key(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key_of(spec)
    qemu = tmp_path / QEMU
    qemu.write_text("#!/bin/sh\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert key_of(spec) != before


def test_the_processor_is_its_model_its_flags_and_its_microcode() -> None:
    one = "processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: {}\nflags\t\t: fpu {}\nmicrocode\t: 1\n\n"
    processor = restore._processor
    assert processor(one.format(1, "vmx")) == processor(one.format(2, "vmx"))
    assert processor(one.format(1, "vmx")) != processor(one.format(1, "svm"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"root": {"kind": "directory"}}, "folder of the host's"),
        ({"root": {"kind": "host"}}, "folder of the host's"),
        ({"image": {"digest": ""}}, "nothing tells its kernel"),
    ],
)
def test_what_cannot_be_saved_says_why(
    spec: MachineSpec, change: dict[str, dict[str, str]], why: str
) -> None:
    parts = {name: replace(getattr(spec, name), **value) for name, value in change.items()}
    changed = replace(spec, **parts)
    assert why in unfit(changed.image, changed.root)


@pytest.mark.parametrize(
    ("warm", "accelerator", "used"),
    [
        (None, Accelerator.TCG, True),
        (None, Accelerator.KVM, False),
        (True, Accelerator.KVM, True),
        (False, Accelerator.TCG, False),
    ],
)
def test_guests_are_restored_where_booting_is_slow_or_where_that_is_asked_for(
    warm: bool | None, accelerator: Accelerator, used: bool, spec: MachineSpec, tmp_path: Path
) -> None:
    found = where_saved(tmp_path, warm, accelerator, spec.image, spec.root)
    assert found == (tmp_path if used else None, "")


def test_what_nobody_asked_for_and_cannot_be_is_told_apart_from_what_is_not_wanted(
    spec: MachineSpec, tmp_path: Path
) -> None:
    root = replace(spec.root, kind="host")
    where = partial(where_saved, tmp_path, accelerator=Accelerator.TCG, image=spec.image, root=root)
    assert where(None) == (None, "its root is a folder of the host's")
    assert where(False) == (None, "")
    assert where(True) == (tmp_path, "")  # the kernel's note says why it was not saved


# --- the cache of snapshots --------------------------------------------------------------


def kept(root: Path, spec: MachineSpec, size: int = 1000) -> Path:
    """A whole snapshot of ``spec`` in the cache ``root``, as one kernel's work leaves it."""
    snapshots = Snapshots(root)
    folder = snapshots.place_for(spec)
    assert folder is not None, snapshots.notes
    put_snapshot(folder, size)
    snapshots.saved(spec, folder)
    snapshots.publish()
    assert snapshots.notes == []
    return root / "snapshots" / key_of(spec)


def found_in(root: Path, spec: MachineSpec) -> tuple[Snapshots, Snapshot]:
    """The cache ``root`` as another kernel's work uses it, and the snapshot that it found."""
    snapshots = Snapshots(root)
    found = snapshots.find(spec)
    assert found is not None
    return snapshots, found


def put_snapshot(folder: Path, size: int = 1000) -> None:
    (folder / "memory").write_bytes(b"m" * size)
    (folder / "devices").write_bytes(b"devices")
    (folder / "fd-4").write_bytes(b"initramfs")
    machine = {"schema": 2, "folder": "/tmp/vmtest-old", "argv": ARGV, "saved": 5.0}
    kept = {"size": 16 << 20, "parts": [[4096, size]]}
    write_record(folder / "machine.json", {**machine, **kept})


def test_what_was_published_is_found_with_its_command(spec: MachineSpec, tmp_path: Path) -> None:
    place = kept(tmp_path / "cache", spec)
    found = Snapshots(tmp_path / "cache").find(spec)
    assert found is not None
    assert (found.place, found.argv, found.saved) == (place, tuple(ARGV), 5.0)


def test_what_was_not_published_is_not_there(spec: MachineSpec, tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    folder = snapshots.place_for(spec)
    assert folder is not None
    put_snapshot(folder)
    snapshots.saved(spec, folder)
    snapshots.close()
    assert Snapshots(tmp_path).find(spec) is None
    assert not folder.exists()


def test_two_do_not_save_the_same_at_once(spec: MachineSpec, tmp_path: Path) -> None:
    first, second = Snapshots(tmp_path), Snapshots(tmp_path)
    assert first.place_for(spec) is not None
    assert second.place_for(spec) is None
    first.close()
    assert second.place_for(spec) is not None
    second.close()


def test_no_cache_means_no_snapshot(spec: MachineSpec) -> None:
    never = Snapshots(None)
    assert (never.find(spec), never.place_for(spec), never.notes) == (None, None, [])


@pytest.mark.parametrize("name", ["memory", "devices", "fd-4", "machine.json", "seal.json"])
def test_a_damaged_snapshot_is_removed_and_noted(
    name: str, spec: MachineSpec, tmp_path: Path
) -> None:
    place = kept(tmp_path, spec)
    (place / name).write_bytes(b"damaged")
    snapshots = Snapshots(tmp_path)
    assert snapshots.find(spec) is None
    assert not place.exists()
    assert "damaged" in snapshots.notes[0] and "the kernel was booted" in snapshots.notes[0]


def test_a_sealed_snapshot_with_a_command_of_no_use_is_removed(
    spec: MachineSpec, tmp_path: Path
) -> None:
    snapshots = Snapshots(tmp_path)
    folder = snapshots.place_for(spec)
    assert folder is not None
    put_snapshot(folder)
    (folder / "machine.json").write_text(json.dumps({"schema": 99}))
    snapshots.saved(spec, folder)
    snapshots.publish()
    assert snapshots.find(spec) is None
    assert "machine.json cannot be read" in snapshots.notes[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of another user")
@pytest.mark.parametrize("name", ["memory", "devices", "machine.json"])
def test_a_snapshot_of_another_user_is_not_run(
    name: str, spec: MachineSpec, tmp_path: Path
) -> None:
    """In a shared cache its command would run as whoever restores it."""
    place = kept(tmp_path, spec)
    os.chown(place / name, 12345, -1)
    snapshots = Snapshots(tmp_path)
    assert snapshots.find(spec) is None
    assert snapshots.notes == [
        f"the saved guest was not used ({place / name} belongs to another user (number 12345)): "
        "the kernel was booted"
    ]
    assert place.exists() and snapshots.place_for(spec) is None and snapshots.used == []


@pytest.mark.parametrize("name", ["memory", "devices", "machine.json"])
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_snapshot_that_others_may_write_to_is_not_run(
    name: str, mode: int, spec: MachineSpec, tmp_path: Path
) -> None:
    place = kept(tmp_path, spec)
    (place / name).chmod(mode)
    snapshots = Snapshots(tmp_path)
    assert snapshots.find(spec) is None
    assert f"other users may write to {place / name}" in snapshots.notes[0]


@pytest.mark.parametrize("part", [[-4096, 4096], [16 << 20, 4096], [0, (16 << 20) + 1], [0, 0]])
def test_parts_that_no_memory_has_are_not_restored(
    part: list[int], spec: MachineSpec, tmp_path: Path
) -> None:
    place = kept(tmp_path, spec)
    record = read_record(place / "machine.json")
    assert record is not None
    write_record(place / "machine.json", {**record, "parts": [part]})
    with pytest.raises(SnapshotError, match="parts outside of the memory"):
        read(place)


@pytest.mark.parametrize("name", ["memory", "devices"])
def test_what_another_put_there_is_given_to_no_guest(
    name: str, spec: MachineSpec, tmp_path: Path
) -> None:
    """It was another's only after it had been found."""
    place = kept(tmp_path, spec)
    _, found = found_in(tmp_path, spec)
    (place / name).chmod(0o666)
    qemu = FakeQemu(b"")
    with (
        qemu.ours,
        closing(Memory(found.size)) as memory,
        pytest.raises(SnapshotError, match="other users may write"),
    ):
        fill(found, memory)
        send(found, Qmp(qemu.ours, 10))
    assert "migrate-incoming" not in qemu.commands


def test_whatever_the_umask_a_snapshot_is_its_users_alone(
    spec: MachineSpec, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        kept(tmp_path, spec)
    finally:
        os.umask(before)
    assert Snapshots(tmp_path).find(spec) is not None


def test_a_snapshot_that_does_not_start_is_dropped_and_noted(
    spec: MachineSpec, tmp_path: Path
) -> None:
    place = kept(tmp_path, spec)
    snapshots, found = found_in(tmp_path, spec)
    snapshots.drop(found, "QEMU ended")
    assert not place.exists() and snapshots.used == []
    assert snapshots.notes == [
        "the saved guest does not start (QEMU ended): it was removed, the kernel was booted"
    ]


def test_one_that_another_makes_anew_is_left_to_it(spec: MachineSpec, tmp_path: Path) -> None:
    place = kept(tmp_path, spec)
    snapshots, found = found_in(tmp_path, spec)
    with try_locked(tmp_path, f"snapshot-{place.name}") as ours:
        assert ours
        snapshots.drop(found, "QEMU ended")
    assert place.exists()


def test_one_that_was_damaged_spoils_what_was_restored_from_it_before(
    spec: MachineSpec, tmp_path: Path
) -> None:
    place = kept(tmp_path, spec)
    snapshots, found = found_in(tmp_path, spec)
    (place / "memory").write_bytes(b"damaged")
    snapshots.drop(found, "QEMU ended")
    assert [entry.place for entry in snapshots.used] == [place]
    assert not place.exists()


def test_the_least_recently_used_make_room(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = []
    for number in range(3):
        places.append(kept(tmp_path, replace(spec, cpus=number + 1), 100_000))
        os.utime(places[-1], (number, number))
    monkeypatch.setattr(restore, "ROOM", 250_000)
    hold(tmp_path, f"snapshot-{places[0].name}")
    try:
        places.append(kept(tmp_path, replace(spec, cpus=9), 100_000))
    finally:
        let_go(tmp_path, f"snapshot-{places[0].name}")
    assert [place.exists() for place in places] == [True, False, False, True]


def test_a_full_disk_is_a_note_and_no_fault(spec: MachineSpec, tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    huge = replace(spec, memory_mib=(free >> 20) * 2)
    snapshots = Snapshots(tmp_path)
    assert snapshots.place_for(huge) is None
    assert "could not be saved for the next time" in snapshots.notes[0]


def test_a_lock_that_another_has_is_not_waited_for(tmp_path: Path) -> None:
    with try_locked(tmp_path, "x") as first, try_locked(tmp_path, "x") as second:
        assert (first, second) == (True, False)
    with try_locked(tmp_path, "x") as again, scratch(tmp_path, "x"):
        assert again


def test_a_snapshot_is_an_entry_as_others_are(spec: MachineSpec, tmp_path: Path) -> None:
    place = kept(tmp_path, spec)
    entry = Entry.of(place)
    assert entry is not None and entry.inspect() is None
    assert entry.title == f"cached snapshot {place.name}"


# --- what is written and read ------------------------------------------------------------


class FakeQemu:
    """A process of our own that speaks QMP and "migrates" ``content``; the sockets are real."""

    def __init__(self, content: bytes, refuse: str = "") -> None:
        self.content = content
        self.refuse = refuse
        self.commands: list[str] = []
        self.capabilities: set[str] = set()
        self.taken = threading.Event()
        self._given: list[int] = []
        self.ours, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._theirs, suppress(ConnectionError):  # whoever asked may leave
            self._theirs.sendall(b'{"QMP": {}}\n')
            while received := self._received():
                command = json.loads(received)
                self.commands.append(command["execute"])
                self._theirs.sendall(self._answer(command))

    def _received(self) -> bytes:
        """A command, which comes alone; and the descriptors with it."""
        line, descriptors, *_ = socket.recv_fds(self._theirs, 1 << 16, 4)
        self._given += descriptors
        return line

    def _answer(self, command: dict[str, Any]) -> bytes:
        name = command["execute"]
        if name == "query-migrate":
            return b'{"return": {"status": "failed"}}\n'
        if name == self.refuse:
            return b'{"error": {"desc": "not now"}}\n'
        if name == "migrate-set-capabilities":
            capabilities = command["arguments"]["capabilities"]
            self.capabilities = {one["capability"] for one in capabilities if one["state"]}
        if name not in ("migrate", "migrate-incoming"):
            return b'{"return": {}}\n'
        assert self.capabilities == {"events", "x-ignore-shared"}
        assert command["arguments"]["uri"] == "fd:stream"
        status = b"completed"
        with socket.socket(fileno=self._given.pop()) as stream:
            try:
                if name == "migrate":
                    stream.sendall(self.content)
                else:
                    threading.Thread(target=self._take, args=(stream.dup(),), daemon=True).start()
            except OSError:
                status = b"failed"
        done = b'{"event": "MIGRATION", "data": {"status": "%s"}}\n' % status
        return b'{"return": {}}\n' + done

    def _take(self, stream: socket.socket) -> None:
        with stream, stream.makefile("rb") as file:
            self.content = file.read()
        self.taken.set()

    def save(self, folder: Path, to: Path) -> None:
        with self.ours, closing(Memory(16 << 20)) as memory:
            with memory.path.open("r+b") as file:
                file.seek(8192)
                file.write(b"memory")
            save(Qmp(self.ours, 10), os.getpid(), folder, memory, to)
        self._thread.join(10)


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


def test_a_guest_is_stopped_written_and_goes_on(short: Path, tmp_path: Path) -> None:
    qemu = FakeQemu(b"x" * 3_000_000)
    qemu.save(short, tmp_path)
    assert (tmp_path / "devices").read_bytes() == b"x" * 3_000_000
    assert (tmp_path / "memory").read_bytes() == b"memory".ljust(4096, b"\0")
    assert qemu.commands[1] == "stop" and qemu.commands[-1] == "cont"
    saved = read(tmp_path)
    assert (saved.size, saved.parts) == (16 << 20, ((8192, 4096),))
    assert saved.folder == str(short) and saved.argv[1:] == tuple(
        os.fsdecode(word) for word in Path("/proc/self/cmdline").read_bytes().split(b"\0")[1:-1]
    )


def test_a_guest_that_qemu_does_not_save_goes_on_and_qemu_says_why(
    short: Path, tmp_path: Path
) -> None:
    qemu = FakeQemu(b"", refuse="migrate")
    with pytest.raises(SnapshotError, match="could not save it: migrate: not now") as caught:
        qemu.save(short, tmp_path)
    assert caught.value.running and qemu.commands[-1] == "cont"


def test_a_guest_that_does_not_go_on_says_so(short: Path, tmp_path: Path) -> None:
    qemu = FakeQemu(b"x", refuse="cont")
    with pytest.raises(SnapshotError, match="does not go on") as caught:
        qemu.save(short, tmp_path)
    assert not caught.value.running


def test_a_disk_that_fills_while_saving_is_told_and_the_guest_goes_on(short: Path) -> None:
    qemu = FakeQemu(b"x" * 10_000_000)  # more than a socket holds
    with pytest.raises(SnapshotError, match="No such file") as caught:
        qemu.save(short, short / "gone")
    assert caught.value.running and qemu.commands[-1] == "cont"


def test_a_restored_qemu_is_given_the_files_the_memory_and_the_devices(
    spec: MachineSpec, short: Path, tmp_path: Path
) -> None:
    kept(tmp_path, spec, 4096)
    _, found = found_in(tmp_path, spec)
    argv = prepare(found, short)
    assert argv[argv.index("-initrd") + 1] == f"{short}/fd-4"
    assert (short / "fd-4").read_bytes() == b"initramfs"
    qemu = FakeQemu(b"")
    with qemu.ours, closing(Memory(found.size)) as memory:
        fill(found, memory)
        assert memory.path.read_bytes() == (bytes(4096) + b"m" * 4096).ljust(found.size, b"\0")
        send(found, Qmp(qemu.ours, 10))
        assert qemu.taken.wait(10) and qemu.content == b"devices"


def test_a_qemu_that_takes_no_devices_says_why(spec: MachineSpec, tmp_path: Path) -> None:
    kept(tmp_path, spec)
    _, found = found_in(tmp_path, spec)
    qemu = FakeQemu(b"", refuse="migrate-incoming")
    with qemu.ours, pytest.raises(QmpError, match="migrate-incoming: not now"):
        send(found, Qmp(qemu.ours, 10))


def test_the_process_at_the_other_end_is_known(short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(short / "x"))
        listener.listen(1)
        other.connect(str(short / "x"))
        with listener.accept()[0] as accepted:
            assert peer(accepted) == os.getpid()
