"""The pytest of a restored guest is a process that had started before: no test can see that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from command import vmtest

SUITE = """
import json, os, resource, signal, sys, threading
from pathlib import Path

def facts():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    maps = Path("/proc/self/maps").read_text().splitlines()
    own = ("Umask", "Uid", "Gid", "Groups", "Threads", "SigBlk", "SigIgn", "CapEff", "Seccomp")
    # What a test has open in files of its own is numbered by the file system.
    here = {os.readlink(f"/proc/self/fd/{n}").split(":")[0].split("#")[0] + f" {n}"
            for n in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{n}")}
    main = sys.modules["__main__"]
    return {
        "argv": [sys.argv, sys.orig_argv, sys.executable], "path": sys.path, "cwd": os.getcwd(),
        "environment": dict(os.environ), "status": [status[name] for name in own],
        "descriptors": sorted(here), "modules": sorted(sys.modules), "flags": str(sys.flags),
        "limits": [resource.getrlimit(number) for number in range(16)],
        "main": [main.__file__, sorted(vars(main)), str(type(main.__loader__))],
        "signals": [str(signal.getsignal(number)) for number in range(1, 32)],
        "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
        "scores": [os.nice(0), Path("/proc/self/oom_score_adj").read_text()],
        "encodings": [sys.stdout.encoding, sys.stdout.errors, sys.getfilesystemencoding()],
        "threads": [threading.active_count(), threading.current_thread().name],
        "libraries": sorted({line.split()[-1] for line in maps if ".so" in line}),
    }

def test_facts():
    parent = Path(f"/proc/{os.getppid()}/comm").read_text().strip()
    print("FACTS" + json.dumps([parent, facts()]))
    assert False
"""


def told(run: Path) -> tuple[str, dict[str, Any]]:
    """The name of the parent of pytest's process in the guest, and what its test saw."""
    (rows,) = run.glob("*/results.jsonl")
    (row,) = [json.loads(line) for line in rows.read_text().splitlines()]
    parent, facts = json.JSONDecoder().raw_decode(row["output"].partition("FACTS")[2])[0]
    return parent, facts


def test_a_test_sees_in_a_restored_guest_what_it_sees_in_a_booted_one(
    project: Callable[..., Path],
) -> None:
    folder = project(SUITE)
    seen = []
    for how in ("--cold", "--warm", "--warm"):  # the second may boot, and saves
        said = vmtest("run", how, cwd=folder)
        assert said.status == 1, said
        seen.append(told(folder / ".vmtest" / "latest"))
    (cold, by_cold), _, (warm, by_warm) = seen
    assert (cold, warm[:6]) == ("sh", "python")
    assert by_warm == by_cold


@pytest.mark.parametrize("how", ["--cold", "--warm"])
def test_a_command_has_nothing_of_it_beside_it(how: str, tmp_path: Path) -> None:
    look = "ls /run/vmtest; cat /proc/[0-9]*/comm | grep -c python; true"
    said = vmtest("exec", how, "--kernel", "6.12", "--", "sh", "-c", look, cwd=tmp_path)
    assert said.status == 0, said
    log = (tmp_path / ".vmtest" / "latest" / "6.12" / "command.log").read_text()
    assert "standby" not in log and log.split()[-1] == "0"


COMPILED = """
import json
from pathlib import Path

PLACE = Path("/tmp/vmtest/bytecode")

def test_laid():
    head = json.loads(PLACE.read_bytes().partition(b"\\n")[0]) if PLACE.exists() else {}
    names = [place.rpartition("/")[2] for place in head.get("wanted", [])]
    print("LAID", len(head.get("sizes", [])), *sorted(names))
    assert False, "state 1"
"""


def test_a_module_is_compiled_in_the_first_guest_that_needs_it_and_laid_in_the_next(
    project: Callable[..., Path],
) -> None:
    unknown = f"# not what an earlier run of this test left: {uuid4()}\n"
    folder = project(COMPILED + unknown)
    (suite,) = folder.rglob("test_*.py")
    (suite.parent / "conftest.py").write_text(unknown)

    def ran(how: str) -> tuple[str, str]:
        said = vmtest("run", how, cwd=folder)
        assert said.status == 1, said
        (rows,) = (folder / ".vmtest" / "latest").glob("*/results.jsonl")
        (row,) = [json.loads(line) for line in rows.read_text().splitlines()]
        return row["output"].strip(), row["message"].partition("\n")[0]

    both = "LAID 0 conftest.py test_own.py"
    one, two = "AssertionError: state 1", "AssertionError: state 2"
    assert [ran(how) for how in ("--warm", "--warm", "--cold", "--warm")] == [
        (both, one),
        ("LAID 2", one),
        ("LAID 0", one),
        ("LAID 2", one),
    ]
    suite.write_text(suite.read_text().replace("state 1", "state 2"))
    assert [ran("--warm"), ran("--warm")] == [("LAID 1 test_own.py", two), ("LAID 2", two)]
