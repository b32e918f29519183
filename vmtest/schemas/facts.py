"""The shape of run.json."""

from __future__ import annotations

from typing import Required

from typing_extensions import TypedDict


class Project(TypedDict, total=False):
    """The project's git commit; ``dirty`` says whether a file that git knows differs from it."""

    commit: Required[str]
    dirty: Required[bool]
    branch: str


class Host(TypedDict):
    """The machine that it ran on."""

    cpus: int | None
    root: bool


class Build(TypedDict):
    """A build of a BPF object, its path, and the range of kernels that it is for."""

    name: str
    path: str
    kernels: str | None


class Known(TypedDict):
    """A known failure of kernels.toml."""

    test: str
    kernels: str | None
    reason: str
    until: str | None


Ran = TypedDict(
    "Ran",
    {
        "release": str,
        "accelerator": str,
        "kernel sha256": str,
        "guest": str,
        "libbpf": str,
        "objects": dict[str, str],
        "objects sha256": dict[str, str],
    },
)
"""What did run on one kernel."""

Facts = TypedDict(
    "Facts",
    {
        "arguments": list[str],
        "config": str,
        "started": Required[str],
        "kernels": list[str],
        "suites": list[str],
        "narrowed": bool,
        "project": Project | None,
        "gates": dict[str, bool],
        "versions": dict[str, str | None],
        "host": Host,
        "objects": list[Build],
        "known failures": list[Known],
        "inputs": dict[str, dict[str, str]],
        "ran": dict[str, Ran],
        "merged": list[str],
    },
    total=False,
)
"""What run.json says of a run; ``merged`` names the shards of one that ``vmtest merge`` made."""
