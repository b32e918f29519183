"""What a kernel's folder has of a run elsewhere: rows as they arrive, and all files at the end."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import IO, cast

from vmtest.errors import InfrastructureError, os_words
from vmtest.host.tarstream import open_stream, regular
from vmtest.host.write import append
from vmtest.model.events import Event, LoadFinished, TestFinished
from vmtest.runs.rows import LOADS, OTHER_LOADS, RESULTS, forget, write_result


class Rows:
    """Writes the rows of one attempt to run a kernel, at once; what was there is removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._problem = False
        self._loads: set[tuple[str, str, str]] = set()
        with suppress(OSError):
            forget(folder)

    def add(self, event: Event) -> str:
        """Write the row that ``event`` is about, if it is about one.

        Says what is wrong with the disk, once: the rows are still in what the worker sends.
        """
        try:
            if isinstance(event, TestFinished):
                write_result(self._file(RESULTS), event.result)
            elif isinstance(event, LoadFinished):
                row = json.dumps(asdict(event.result), ensure_ascii=False)
                # What objects are compared with is loaded behind them, as the same rows.
                load = (event.result.object, event.result.program, event.result.libbpf)
                name = OTHER_LOADS if load in self._loads else LOADS
                self._loads.add(load)
                append(self._file(name), row.encode("utf-8", "replace") + b"\n")
        except OSError as error:
            if not self._problem:
                self._problem = True
                return os_words(error)
        return ""

    def _file(self, name: str) -> IO[bytes]:
        if name not in self._files:
            self._files[name] = (self._folder / name).open("ab", buffering=0)
        return self._files[name]

    def close(self) -> None:
        """No more rows."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def unpack_folder(stream: IO[bytes], folder: Path) -> None:
    """Write the files of a tar into ``folder``, each whole or not at all.

    Raises InfrastructureError for a member that is neither file nor folder, or lies elsewhere.
    """
    with open_stream(stream) as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or not (regular(member) or member.isdir()):
                raise InfrastructureError(
                    f"{member.name[:120]!r} does not belong into a kernel's folder"
                )
            target = folder / name
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{os.getpid()}.part")
            with part.open("wb") as out:
                shutil.copyfileobj(cast(IO[bytes], tar.extractfile(member)), out)
            part.rename(target)
