import base64
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vmtest.host.virtme import vng_environment
from vmtest.model.kernels import Accelerator, Network
from vmtest.vm.folder import VmFolder
from vmtest.vm.vng import BOOTSTRAP, Hardware, agent_line, vng_argv

DISK = VmFolder(Path("/tmp/vm"), "disk")
HOST = VmFolder(Path("/tmp/vm"), "host")


def argv(folder: VmFolder = DISK, accelerator: Accelerator = Accelerator.TCG, **more: Any) -> str:
    hardware = Hardware(accelerator, memory_mib=1024, cpus=1, cmdline=("quiet",), **more)
    return " ".join(vng_argv(Path("/venv/bin/vng"), folder, hardware))


def test_kvm_is_disabled_where_it_does_not_work() -> None:
    assert "--disable-kvm" in argv()
    assert "--disable-kvm" not in argv(accelerator=Accelerator.KVM)


def test_a_disk_is_booted_as_a_disk_and_the_host_root_by_default() -> None:
    assert "--root-disk /tmp/vm/root --root-fstype squashfs" in argv()
    assert "--root" not in argv(HOST)
    assert "--root-disk /tmp/vm/root --root-fstype ext4" in argv(filesystem="ext4")


def test_the_hosts_files_come_by_9p_unless_the_kernel_has_none() -> None:
    assert "--force-9p" in argv().split()
    assert "--force-9p" not in argv(share="virtiofs").split()


def test_there_is_no_network_unless_asked_for() -> None:
    assert "netdev" not in argv()


def test_a_network_card_is_closed_unless_the_outside_is_asked_for() -> None:
    assert "-netdev user,id=net,restrict=on " in argv(network=Network.CLOSED)
    assert "-netdev user,id=net " in argv(network=Network.OUTBOUND)


def test_the_console_is_always_captured() -> None:
    assert "--verbose" in argv().split()


def test_qemu_gets_the_port_in_one_option_with_an_equals_sign() -> None:
    assert (
        "--qemu-opts=-chardev socket,id=ssh,path=/tmp/vm/ssh -device virtio-serial-pci "
        "-device virtserialport,name=vmtest.ssh,chardev=ssh "
        "-chardev socket,id=wire,path=/tmp/vm/wire "
        "-device virtserialport,name=vmtest.wire,chardev=wire" in argv()
    )


def test_a_guest_that_can_be_saved_has_a_monitor_and_its_memory_in_the_folder() -> None:
    memory = (
        "-object memory-backend-file,id=memory,size=1024M,share=on,mem-path=/tmp/vm/memory "
        "-machine memory-backend=memory"
    )
    assert memory in argv(monitor=True) and memory not in argv()
    assert "path=/tmp/vm/qmp -mon " in argv(monitor=True) and " -mon " not in argv()


def test_an_emulated_guest_writes_to_its_ports_without_a_descriptor_for_each_queue() -> None:
    off = "-global virtio-serial-pci.ioeventfd=off"
    assert off in argv() and off not in argv(accelerator=Accelerator.KVM)


def test_no_key_is_on_a_command_line() -> None:
    assert "KEY" not in argv()


def test_helpers_are_found_and_leftovers_stay_in_the_folder() -> None:
    environment = vng_environment({"PATH": "/bin"}, Path("/venv/bin/vng"), Path("/tmp/vm"))
    assert environment["PATH"].split(":")[0] == "/venv/bin"
    assert environment["TMPDIR"] == "/tmp/vm"


@pytest.mark.parametrize("value", ["plain", "two\nlines", "a 'quote' and $HOME"])
def test_the_agent_gets_its_variables_as_they_are(value: str) -> None:
    line = agent_line('printf %s "$KEY"', {"KEY": value})
    script = base64.b64decode(line)
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout == value


def test_the_bootstrap_runs_what_comes_through_the_port(tmp_path: Path) -> None:
    """The real bootstrap in a real shell, with its two folders moved."""
    (tmp_path / "ports" / "vport0p1").mkdir(parents=True)
    (tmp_path / "ports" / "vport0p1" / "name").write_text("org.qemu.other\n")
    (tmp_path / "ports" / "vport1p1").mkdir()
    (tmp_path / "ports" / "vport1p1" / "name").write_text("vmtest.ssh\n")
    os.mkfifo(tmp_path / "vport1p1")
    script = BOOTSTRAP.replace("/sys/class/virtio-ports", str(tmp_path / "ports"))
    script = script.replace("/dev/$", f"{tmp_path}/$")
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as shell:
        (tmp_path / "vport1p1").write_bytes(agent_line("echo ran $X", {"X": "it"}))
        out, _ = shell.communicate(timeout=20)
    assert out == b"ran it\n"


def test_a_kernels_own_command_line_comes_behind_ours_and_wins() -> None:
    words = argv().split()
    assert words.index("rcupdate.rcu_expedited=1") < words.index("quiet")


def test_a_kernel_that_mounts_no_folder_has_its_disks_and_a_qemu_that_says_so(
    tmp_path: Path,
) -> None:
    for name in ("tools.disk", "modules.disk"):
        (tmp_path / name).touch()
    said = argv(VmFolder(tmp_path, "disk"), share="disk")
    assert f"--qemu {tmp_path}/qemu" in said and "--force-9p" in said
    assert f"file={tmp_path}/tools.disk,format=raw,readonly=on" in said
    assert "--qemu " not in argv()
