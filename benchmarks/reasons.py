"""How many refused loads have a reason: over `tests/verify`, `bpf/` and what packages ship.

    python benchmarks/reasons.py extract --to FOLDER PACKAGE.deb...
    python benchmarks/reasons.py count RUN
    python benchmarks/reasons.py smoke

The first unpacks Debian packages and writes every BPF object in them to FOLDER, those embedded in
programs too (the skeletons of bpftool and libbpf are byte for byte the object file). Equal objects
are written once. Then:

    vmtest verify FOLDER tests/... --kernel 5.10 --kernel 6.12 --fail-on nothing

The second prints, by kernel, how many loads of that run were refused, the share of them without a
reason (`unknown`), and what stands in their last lines. The third does both with a package of one
object that is refused, on one kernel: it shows that they still run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import smoke

from vmtest.objects.compile import build_all

PROJECT = Path(__file__).parents[1]
_MAGIC = b"\x7fELF\x02\x01\x01"  # 64-bit, little-endian
_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_EM_BPF, _SHT_NOBITS = 247, 8


def objects_in(data: bytes) -> Iterator[bytes]:
    """Every whole BPF object file in `data`, wherever it begins."""
    start = data.find(_MAGIC)
    while start >= 0:
        if size := _size_of(data, start):
            yield data[start : start + size]
        start = data.find(_MAGIC, start + max(size, 1))


def _size_of(data: bytes, start: int) -> int:
    """Bytes of the BPF object at `start`, 0 if none (whole) is there."""
    if start + _HEADER.size > len(data):
        return 0
    _, machine, _, _, _, sections, _, _, _, _, entry_size, count, _ = _HEADER.unpack_from(
        data, start
    )
    end = sections + entry_size * count
    if machine != _EM_BPF or entry_size != _SECTION.size or start + end > len(data):
        return 0
    for n in range(count):
        section = _SECTION.unpack_from(data, start + sections + n * entry_size)
        kind, offset, size = section[1], section[4], section[5]
        if kind != _SHT_NOBITS:
            end = max(end, offset + size)
    return end if start + end <= len(data) else 0


def extract(packages: list[Path], target: Path) -> None:
    """Write the objects of `packages` to `target`, and say how many each had."""
    target.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for package in packages:
        found = 0
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
            files = (p for p in sorted(Path(folder).rglob("*")) if p.is_file())
            for file in files:
                if file.is_symlink():
                    continue
                for data in objects_in(file.read_bytes()):
                    digest = hashlib.sha256(data).hexdigest()
                    if digest not in seen:
                        seen.add(digest)
                        found += 1
                        stem = "_".join(package.stem.split("_")[:2])
                        name = f"{stem}-{file.name}-{digest[:6]}.o"
                        (target / name).write_bytes(data)
        print(f"{found:4} objects of {package.name}")


def count(run: Path) -> None:
    """Print what share of the refused loads of `run` has no reason."""
    matrix = json.loads((run / "matrix.json").read_text())
    for kernel in matrix["kernels"]:
        bad = [x for x in kernel["loads"] if x["verdict"] not in ("accepted", "not loaded")]
        codes = Counter((x["reason"] or {}).get("code", "none") for x in bad)
        share = codes["unknown"] / len(bad) if bad else 0.0
        print(f"{kernel['kernel']}: {len(bad)} of {len(kernel['loads'])} refused, ", end="")
        print(f"{codes['unknown']} unknown ({share:.0%}); {dict(codes.most_common())}")
        lines = Counter(x["line"] for x in bad if (x["reason"] or {}).get("code") == "unknown")
        for line, times in lines.most_common():
            print(f"  {times:3} x {line[:150]}")


def smoke_run() -> None:
    """Pack an object that is refused, extract it, verify it, count."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        package, objects = folder / "package", folder / "objects"
        (package / "DEBIAN").mkdir(parents=True)
        fields = {"Package": "smoke", "Version": "1", "Architecture": "all"}
        fields |= {"Maintainer": "nobody <nobody@example.org>", "Description": "one object"}
        text = "".join(f"{name}: {value}\n" for name, value in fields.items())
        (package / "DEBIAN" / "control").write_text(text)
        (folder / "bpf").mkdir()
        shutil.copy(PROJECT / "tests" / "verify" / "loop.bpf.c", folder / "bpf")
        shutil.copytree(PROJECT / "tests" / "verify" / "include", folder / "bpf" / "include")
        (built,) = build_all(folder / "bpf", folder / "built")
        # As a skeleton embeds it: somewhere in a file.
        (package / "program").write_bytes(b"text" + built.read_bytes() + b"text")
        subprocess.run(["dpkg-deb", "--build", package, folder / "smoke_1.deb"], check=True)
        extract([folder / "smoke_1.deb"], objects)
        argv = [sys.executable, "-m", "vmtest", "verify", str(objects), "--fail-on", "nothing"]
        subprocess.run([*argv, "--kernel", smoke.KERNEL], cwd=PROJECT, check=True)
        count(PROJECT / ".vmtest" / "latest")


def main() -> int:
    """Do what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="command", required=True)
    extracting = commands.add_parser("extract")
    extracting.add_argument("--to", type=Path, required=True)
    extracting.add_argument("packages", type=Path, nargs="+")
    counting = commands.add_parser("count")
    counting.add_argument("run", type=Path)
    commands.add_parser("smoke")
    arguments = parser.parse_args()
    if arguments.command == "smoke":
        smoke_run()
    elif arguments.command == "extract":
        extract(arguments.packages, arguments.to)
    else:
        count(arguments.run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
