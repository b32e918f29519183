"""Runs in a guest that is saved: waits, and makes a restored one differ from all others.

It reads what only this guest is told (vmtest.vm.vng.own_lines) from standard input.  The seed goes
into the kernel's random pool, the generator starts anew from it, and the clock is set.  The modules
of the kernel, whose place in /proc/mounts the arguments give, are mounted again.  At last sshd gets
its host key: from the FIFO that it waits at, if there is one.

To the shell that started it, at descriptor 5, it says that it is loaded; to the host, on standard
output, that it is ready.  From then on, what goes wrong ends the guest, which may be like another;
only a guest that was booted may do without a seed.
"""

import ctypes
import errno
import fcntl
import os
import stat
import struct
import sys
import time
from collections.abc import Callable

# From linux/random.h.
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207

Mount = Callable[..., int]
"""mount(2) of the C library."""

PLACE = "/run/vmtest"
KEY = f"{PLACE}/host_key"
_SHELL = 5
_LOOK = 0.01
_LAST = b"-----END OPENSSH PRIVATE KEY-----\n"
# From linux/mount.h, by their names in /proc/mounts; what else is there is the file system's.
_FLAGS = {
    "rw": 0,
    "ro": 1 << 0,
    "nosuid": 1 << 1,
    "nodev": 1 << 2,
    "noexec": 1 << 3,
    "sync": 1 << 4,
    "mand": 1 << 6,
    "dirsync": 1 << 7,
    "nosymfollow": 1 << 8,
    "noatime": 1 << 10,
    "nodiratime": 1 << 11,
    "relatime": 1 << 21,
    "lazytime": 1 << 25,
}


def load() -> Mount:
    """What mounts, looked up before it is needed; raises AttributeError, OSError without it."""
    mount: Mount = ctypes.CDLL(None, use_errno=True).mount
    return mount


def main(mount: Mount, modules: list[str]) -> None:
    """Wait, and do it; raises whatever goes wrong."""
    waiting = sshd()
    os.write(1, b"ready\n")
    told = b""
    while not told.endswith(_LAST):
        more = os.read(0, 1 << 16)
        if not more:
            raise OSError("the host has hung up")
        told += more
    first, authorized, key = told.split(b"\n", 2)
    now, seed, how = first.decode().split()
    try:
        renew(float(now), bytes.fromhex(seed))
    except OSError:
        if how != "booted":
            raise
    if modules:
        mount_modules(mount, *modules)
    write(f"{PLACE}/authorized_keys", authorized + b"\n")
    write(KEY, key)
    if how == "restored":
        log("restored from a snapshot")
    # The end of the boot, for vmtest/vm/klog.py: whatever the kernel complains of from here on is
    # the tests' doing.
    log("the guest is up")
    if waiting >= 0:
        os.write(waiting, key)
    else:
        os.write(_SHELL, b"renewed\n")


def sshd() -> int:
    """The FIFO that sshd waits at for its host key, open; -1 when there is none.

    It has no name any more: sshd looks there once more, and finds the key or, where this process
    ended before, nothing.
    """
    try:
        if not stat.S_ISFIFO(os.stat(KEY).st_mode):  # noqa: PTH116  # pathlib is slow to import
            return -1
    except FileNotFoundError:
        return -1
    while True:
        try:
            waiting = os.open(KEY, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(_LOOK)  # nobody reads it yet; the shell looks after an sshd that has died
        else:
            os.unlink(KEY)  # noqa: PTH108  # pathlib is slow to import
            return waiting


def renew(now: float, seed: bytes) -> None:
    """Have random numbers of this guest's own, and the time."""
    pool = os.open("/dev/urandom", os.O_WRONLY)
    fcntl.ioctl(pool, RNDADDENTROPY, struct.pack("ii", len(seed) * 8, len(seed)) + seed)
    fcntl.ioctl(pool, RNDRESEEDCRNG)
    time.clock_settime(time.CLOCK_REALTIME, now)


def mount_modules(mount: Mount, what: str, where: str, kind: str, options: str) -> None:
    """Mount what a line of /proc/mounts says, as mount(8) would, which takes longer to start."""
    words = options.split(",")
    flags = sum(_FLAGS.get(word, 0) for word in words)
    data = ",".join(word for word in words if word not in _FLAGS)
    given = [word.encode() for word in (what, where, kind)]
    if mount(*given, ctypes.c_ulong(flags), data.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), where)


def write(place: str, content: bytes) -> None:
    """Make a file that root alone can read."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, content)
    os.close(descriptor)


def log(text: str) -> None:
    """Say ``text`` in the kernel's log, where it takes it."""
    try:
        descriptor = os.open("/dev/kmsg", os.O_WRONLY)
        os.write(descriptor, f"<7>vmtest: {text}\n".encode())
        os.close(descriptor)
    except OSError:
        pass


def end(why: str) -> None:
    """Say ``why`` on the console, and switch the guest off."""
    for place, words in (
        ("/dev/console", f"vmtest: the guest ends: {why}\n"),
        ("/proc/sysrq-trigger", "o"),
    ):
        descriptor = os.open(place, os.O_WRONLY)
        os.write(descriptor, words.encode())
        os.close(descriptor)


if __name__ == "__main__":
    loaded = load()
    os.write(_SHELL, b"loaded\n")
    try:
        main(loaded, sys.argv[1:])
    except Exception as error:  # whatever it is, this guest may be like another
        end(f"it cannot be made anew: {error!r}")
    os._exit(0)  # Python's own end takes longer than all of this on an emulated CPU
