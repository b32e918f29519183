"""vmtest boots a matrix of Linux kernels and runs eBPF test suites in each of them.

The library is what ``__all__`` names; docs/api.md explains it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without the time that its import takes in a guest

if TYPE_CHECKING:
    from vmtest.api.bisect import BisectRequest, bisect_packages
    from vmtest.api.command import CommandRequest
    from vmtest.api.loads import VerifyRequest
    from vmtest.api.project import load_config, load_config_or_builtin
    from vmtest.api.run import Run, read_run, run_command, run_suites, verify_objects
    from vmtest.api.suites import SuitesRequest
    from vmtest.api.work import WorkRequest
    from vmtest.bisect.search import Verdict

__all__ = [
    "BisectRequest",
    "CommandRequest",
    "Run",
    "SuitesRequest",
    "Verdict",
    "VerifyRequest",
    "WorkRequest",
    "bisect_packages",
    "load_config",
    "load_config_or_builtin",
    "read_run",
    "run_command",
    "run_suites",
    "verify_objects",
]

# Where each name lives.  It is imported when it is asked for: this file also lies in the guest,
# where there is nothing but vmtest.guest, and every command would pay for all of it.
_HOME = {
    "BisectRequest": "vmtest.api.bisect",
    "CommandRequest": "vmtest.api.command",
    "Run": "vmtest.api.run",
    "SuitesRequest": "vmtest.api.suites",
    "Verdict": "vmtest.bisect.search",
    "VerifyRequest": "vmtest.api.loads",
    "WorkRequest": "vmtest.api.work",
    "bisect_packages": "vmtest.api.bisect",
    "load_config": "vmtest.api.project",
    "load_config_or_builtin": "vmtest.api.project",
    "read_run": "vmtest.api.run",
    "run_command": "vmtest.api.run",
    "run_suites": "vmtest.api.run",
    "verify_objects": "vmtest.api.run",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'vmtest' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
