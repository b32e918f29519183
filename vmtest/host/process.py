"""Starting a command under the supervisor, so that it never outlives the runner."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vmtest.errors import InfrastructureError, os_words
from vmtest.host import reaper
from vmtest.host.sessions import SESSIONS

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_HEAD_START = 2.0  # seconds that a supervisor has before the reaper does its work
_PATIENCE = 10.0  # seconds for a supervisor to end what it watches


class Supervised:
    """A command that ends with the runner, with its output (both streams) on ``descriptor``.

    ``folder`` is its working directory; the supervisor removes it afterwards.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._folder = folder
        self._lifeline = process.stdin
        self._output = process.stdout

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        file_limit: int = 0,
    ) -> Supervised:
        """Start ``argv``, which writes no file beyond ``file_limit`` bytes (0: without a limit).

        Raises InfrastructureError when even the supervisor cannot start.
        """
        python = [sys.executable, "-I", "-S"]
        command = [*python, str(_SUPERVISOR), str(folder), str(file_limit), *argv]
        try:
            # Ctrl-C reaches the runner alone; the command ends when the runner says so.
            # A supervisor (SIGTERM does not end it) ends its command and removes the folder
            # itself, unless somebody has stopped or killed it.
            process = SESSIONS.popen(
                command,
                _HEAD_START,
                folder,
                environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        except OSError as error:
            raise InfrastructureError(f"cannot start {command[0]}: {os_words(error)}") from error
        return cls(process, folder)

    @property
    def descriptor(self) -> int:
        """Where to read its output; end of file when it has ended."""
        return self._output.fileno()

    def wait(self) -> int:
        """Its exit status as a shell would give it; when its output has ended, it is about to."""
        return self._process.wait()

    def let_go(self) -> None:
        """Have the supervisor end the command; does not wait."""
        with suppress(OSError):
            self._lifeline.close()

    def end(self) -> None:
        """End the command and wait until it has."""
        self.let_go()
        try:
            self._process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # A supervisor that was killed leaves its command and its folder.
        reaper.end(self._process.pid)
        shutil.rmtree(self._folder, ignore_errors=True)
        SESSIONS.remove(self._process.pid)

    def close(self) -> None:
        """Give up its output; to be called when nobody reads it any more."""
        self._output.close()
