"""A process that has imported the command and forks for each call of it: ``forks.py SOCKET``.

Each message on the socket brings three descriptors: a socket, stdout and stderr. On that
socket come the arguments, the folder and the environment as JSON; back go the command's
process id and, after its end, its exit status, each as a message of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress

from vmtest.__main__ import main
from vmtest.cli import main as imported  # noqa: F401 (what the fork need not import again)


def serve(calls: socket.socket) -> None:
    """Fork for each message until the other side is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        _, handed, _, _ = socket.recv_fds(calls, 1, 3)
        if not handed:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            calls.close()
            _answer(*handed)
            os._exit(0)
        for descriptor in handed:
            os.close(descriptor)


def _answer(asking: int, out: int, err: int) -> None:
    with socket.socket(fileno=asking) as call:
        asked = json.loads(call.recv(1 << 20))
        pid = os.fork()
        if pid == 0:
            call.close()
            os.dup2(out, 1)
            os.dup2(err, 2)
            _run(**asked)
        os.close(out)
        os.close(err)
        with suppress(BrokenPipeError):  # the test has given up
            call.sendall(str(pid).encode())
            _, ended = os.waitpid(pid, 0)
            call.sendall(str(os.waitstatus_to_exitcode(ended)).encode())


def _run(arguments: list[str], cwd: str, environment: dict[str, str]) -> None:
    os.closerange(3, 64)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["vmtest", *arguments]
    status = 0
    try:
        main()
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
