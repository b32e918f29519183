"""Ends a VM when the runner is gone, however it went.  Run as a script, imports nothing of ours.

``python supervisor.py FOLDER LIMIT COMMAND...`` runs COMMAND in a process group of
its own and blocks on standard input, whose other end only the runner holds.
On end of file (the runner closed it, or died of SIGKILL) it kills the group;
then, and when COMMAND ends by itself, it removes FOLDER.  No file that COMMAND
writes grows beyond LIMIT bytes; 0 sets no limit.

pdeathsig does not do: between ``vng`` and QEMU stand a shell and virtme-run,
and it fires when the starting *thread* ends.
"""

import contextlib
import ctypes
import os
import resource
import select
import shutil
import signal
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36
"""From linux/prctl.h."""


def main(folder: str, limit: int, command: list[str]) -> int:
    """Run ``command`` until it or the runner ends; returns its exit status as a shell would."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Orphans of the group come to us rather than to init, so that none is missed.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        child = subprocess.Popen(command, stdin=null, process_group=0, preexec_fn=_default_signals)
    except OSError as error:
        print(f"vmtest supervisor: cannot start {command[0]}: {error}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        return 127
    lifeline = select.poll()
    lifeline.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    ended = os.pidfd_open(child.pid)
    lifeline.register(ended, select.POLLIN)
    lifeline.poll()
    _end_group(child.pid)
    status = child.wait()
    _reap()
    shutil.rmtree(folder, ignore_errors=True)
    return status if status >= 0 else 128 - status


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _end_group(group: int) -> None:
    # The last of the group may have ended by itself.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _reap() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
