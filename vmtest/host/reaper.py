"""Ends what a killed runner leaves behind.  Run as a script, imports nothing of ours.

``python reaper.py`` reads from standard input, whose other end only the runner holds:

    +SESSION GRACE FOLDER    a session of processes begins; FOLDER is in hexadecimal, or empty
    -SESSION                 it is over

On end of file each session that is not over gets GRACE seconds to end, after SIGTERM to the
leader's group. Then SIGKILL ends whatever is left in it. When all have ended, each FOLDER is
removed in which nothing is mounted.

A session and not a process group: a supervisor (supervisor.py) gives its command a group of its
own, and both are in one session. A stopped or killed supervisor is found in this way as well.

SESSION is its leader's number. Before it is started nobody knows that: in this time SESSION is the
value of a variable (START) in the leader's environment.
"""

import contextlib
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

LIMIT = 10.0
"""Seconds to go on killing what starts new processes meanwhile."""
START = "VMTEST_START"
"""The variable in a command's environment that says which of the runner's starts made it."""
BEGINS = 1.0
"""Seconds to look for a command that was being started.

It holds the runner's end of the pipe until a moment before it is in its own program, with its own
environment: it comes soon after the end of file, if at all.
"""


def main() -> int:
    """Keep the list until the runner ends, then end what is on it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left: dict[str, tuple[float, str]] = {}
    for line in sys.stdin:
        session, _, rest = line[1:].rstrip("\n").partition(" ")
        if line[0] == "+":
            grace, _, folder = rest.partition(" ")
            left[session] = (float(grace), os.fsdecode(bytes.fromhex(folder)))
        else:
            left.pop(session, None)
    began = time.monotonic()
    graces = {
        session: grace
        for named, (grace, _) in left.items()
        for session in sessions(named, began + BEGINS)
    }
    for session, grace in graces.items():
        if grace:
            with contextlib.suppress(OSError):
                os.killpg(session, signal.SIGTERM)
    began = time.monotonic()
    for session, grace in graces.items():
        while members(session) and time.monotonic() < began + grace:
            time.sleep(0.02)
        end(session)
    for _, folder in left.values():
        # What makes a guest image mounts the host's devices, and may have been killed.
        if folder and not mounted_in(folder):
            remove(folder)
    return 0


def remove(folder: str) -> None:
    """Remove ``folder``, with what an ordinary user's namespaces have made there."""
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder) and os.geteuid() != 0:
        # Files of other user ids: mmdebstrap's in a guest image, for which unshare is needed, too.
        command = ["unshare", "-r", "--map-auto", "rm", "-rf", "--", folder]
        os.spawnvp(os.P_WAIT, command[0], command)


def mounted_in(folder: str) -> bool:
    """Whether something is mounted at or below ``folder``; also when nobody can tell."""
    try:
        listed = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return True
    # Of what a name may have in it, only blanks, tabs, line feeds and backslashes are escaped.
    fields = [line.split(b" ") for line in listed.split(b"\n") if line]
    points = [re.sub(rb"\\([0-7]{3})", _byte, field[4]) for field in fields]
    real = os.fsencode(os.path.realpath(folder))
    return any(point == real or point.startswith(real + b"/") for point in points)


def _byte(octal: re.Match[bytes]) -> bytes:
    """A character that mountinfo writes as its number."""
    return bytes([int(octal[1], 8)])


def sessions(named: str, deadline: float) -> list[int]:
    """What ``named`` stands for; for a start it is looked for until ``deadline``."""
    if named.lstrip("-").isdigit():
        return [int(named)]
    wanted = f"{START}={named}".encode()
    while True:
        found = set()
        for folder, session in processes():
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.add(session)
        if found or time.monotonic() > deadline:
            return sorted(found)
        time.sleep(0.02)


def members(session: int) -> list[int]:
    """The processes of ``session`` that have not ended."""
    return [int(folder.name) for folder, of in processes() if of == session]


def processes() -> list[tuple[Path, int]]:
    """The folders in /proc of all processes that have not ended, and their sessions."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        # It may end while it is looked at.
        with contextlib.suppress(OSError):
            stat = (folder / "stat").read_bytes()
            state, _, _, session = stat.rpartition(b")")[2].split()[:4]
            if state not in b"ZX":
                found.append((folder, int(session)))
    return found


def end(session: int) -> None:
    """Kill ``session`` until nobody is left in it."""
    deadline = time.monotonic() + LIMIT
    while (left := members(session)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
