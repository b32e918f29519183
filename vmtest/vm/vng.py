"""The command that boots a kernel: pure, so that it can be printed and tested.

virtme-ng has no Python API (``virtme_ng.run`` builds a shell string), so its
command is the interface.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmtest.model.kernels import Accelerator, Filesystem, Network, Share
from vmtest.vm import shared
from vmtest.vm.folder import VmFolder
from vmtest.vm.qemu import confined
from vmtest.vm.session import Keys

PORT = "vmtest.ssh"
"""Name of the virtio-serial port that carries SSH."""

WIRE_PORT = "vmtest.wire"
"""Name of the one that carries the events of a command (vmtest/guest/wire.py), past sshd."""

# Waits for the port (devices appear one after the other), opens it once for
# both directions (a virtio port can be opened only once), then runs what the
# host sends as one base64 line.  No part of the agent has to be in the image,
# and no key appears on a command line that other users of the host can read.
BOOTSTRAP = (
    "i=0; while [ $i -lt 600 ]; do"
    " for p in /sys/class/virtio-ports/*; do read -r n <$p/name;"
    f' [ "$n" = {PORT} ] && break 2; done; i=$((i+1)); sleep 0.05; done;'
    ' exec 3<>/dev/${p##*/}; IFS= read -r s <&3; eval "$(echo $s | base64 -d)"'
)

_PORTS = 3
"""Ports of each virtio-serial device, its console included; QEMU's default is 31.

virtme-ng has a device for each of its six ports, and two queues of each port that might ever be
added are set up when a guest boots and when it is restored.
"""

_CMDLINE = (
    # 1 s of an emulated boot goes into self-tests of ciphers that nobody here tests.
    "cryptomgr.notests",
    # Freeing a program or a map waits for RCU: a seventh of the suites' time. The kernel
    # waits for the same readers, only without letting other requests gather first.
    "rcupdate.rcu_expedited=1",
    # An emulated timer on a busy host may look broken ("IO-APIC + timer doesn't work");
    # under KVM the kernel skips this check by itself.
    "no_timer_check",
)
"""What every guest's kernel is told; a kernel's own ``cmdline`` comes behind it."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a guest is given beside its kernel and its root.

    ``cmdline`` is appended to the kernel's command line.  ``network`` is the network card;
    without one there is only ``lo``.  ``firmware`` replaces QEMU's own.  ``share`` virtiofs takes
    the host's virtiofsd, which has to be there, and ``disk`` the disks in the folder.
    ``filesystem`` is what a root's disk has.  With a ``monitor`` the guest can be saved: QEMU
    connects to the folder's second socket, for QMP, and its memory is the folder's.  ``drop``
    is QEMU's option to give up root.
    """

    accelerator: Accelerator
    memory_mib: int
    cpus: int
    cmdline: Sequence[str] = ()
    network: Network = Network.NONE
    firmware: str = ""
    share: Share = "9p"
    filesystem: Filesystem = "squashfs"
    monitor: bool = False
    drop: str = ""


def vng_argv(vng: Path, folder: VmFolder, hardware: Hardware) -> list[str]:
    """The ``vng`` command that boots what ``folder`` holds, with its ports on unix sockets.

    QEMU connects to the sockets; somebody has to listen there.  virtme-ng puts most of
    this into a shell as it is, so every word is ours but the hardware's ``cmdline``, which it
    quotes.
    """
    argv = [str(vng), "--verbose", "--disable-monitor"]
    if hardware.share != "virtiofs":
        argv.append("--force-9p")
    if hardware.share == "disk":
        argv += ["--qemu", str(folder.path / shared.QEMU)]
    if hardware.accelerator is Accelerator.TCG:
        argv.append("--disable-kvm")
    argv += ["--cpus", str(hardware.cpus), "--memory", f"{hardware.memory_mib}M", "--user", "root"]
    argv += ["--name", "vmtest"]  # else the host's, whatever that is
    if folder.root_kind == "disk":
        argv += ["--root-disk", str(folder.root), "--root-fstype", hardware.filesystem]
    elif folder.root_kind == "directory":
        argv += ["--root", str(folder.root)]
    for option in (*_CMDLINE, *hardware.cmdline):
        argv += ["--append", option]
    devices = (
        f"-chardev socket,id=ssh,path={folder.socket} -device virtio-serial-pci"
        f" -device virtserialport,name={PORT},chardev=ssh"
        f" -chardev socket,id=wire,path={folder.wire}"
        f" -device virtserialport,name={WIRE_PORT},chardev=wire {confined(hardware.drop)}"
        f" -global virtio-serial-device.max_ports={_PORTS}"
    )
    if hardware.accelerator is Accelerator.TCG:
        # Else QEMU hands what a guest writes to another thread, by a descriptor for each queue.
        devices += " -global virtio-serial-pci.ioeventfd=off"
    if hardware.network:
        # Not by virtme-ng, whose DHCP runs before the driver is loaded: it is a module.
        closed = ",restrict=on" if hardware.network is Network.CLOSED else ""
        devices += f" -netdev user,id=net{closed} -device virtio-net-pci,netdev=net,romfile="
    if hardware.monitor:
        devices += (
            f" -chardev socket,id=qmp,path={folder.monitor} -mon chardev=qmp,mode=control"
            f" -object memory-backend-file,id=memory,size={hardware.memory_mib}M,share=on"
            f",mem-path={folder.memory} -machine memory-backend=memory"
        )
    if hardware.share == "disk":
        devices += shared.disks(folder)
    if hardware.firmware:
        devices += f" -bios {hardware.firmware}"
    # One option with "=": argparse refuses a value that begins with "-".
    argv += [f"--qemu-opts={devices}", "--run", str(folder.kernel), "--exec", BOOTSTRAP]
    return argv


def agent_line(agent: str, variables: Mapping[str, str]) -> bytes:
    """What the host sends first: the agent script with its variables, as one base64 line."""
    assignments = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    return base64.b64encode((assignments + agent).encode()) + b"\n"


def own_lines(now: float, seed: str, how: str, keys: Keys) -> bytes:
    """What the host sends behind that, and a restored guest gets alone.

    agent.sh reads it, or renew.py in a guest that is to be saved.
    ``now`` is the time in seconds since the epoch, ``seed`` hex for the random pool, ``how``
    booted or restored.
    """
    host = keys.host_private.decode().strip()
    return f"{now:.6f} {seed} {how}\n{keys.authorized}\n{host}\n".encode()
