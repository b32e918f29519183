"""Packages with any members, as no build of a kernel makes them."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path


def deb(
    file: Path, members: Mapping[str, bytes], version: str = "6.1.9-1", beside: bytes = b""
) -> Path:
    """Write a .deb with ``members`` by their path without the first slash.

    ``beside`` is a file in its control archive.
    """
    data, control = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    text = f"Package: linux-image-6.1.9\nVersion: {version}\nArchitecture: amd64\n".encode()
    with tarfile.open(fileobj=control, mode="w:gz") as tar:
        info = tarfile.TarInfo("./control")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
        info = tarfile.TarInfo("./beside")
        info.size = len(beside)
        tar.addfile(info, io.BytesIO(beside))
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": control.getvalue(),
        "data.tar.gz": data.getvalue(),
    }
    folder = file.with_suffix(".parts")
    folder.mkdir()
    for name, content in parts.items():
        (folder / name).write_bytes(content)
    subprocess.run(["ar", "rc", file, *(folder / name for name in parts)], check=True)
    return file
