"""The plugin's options.  Every pytest beside vmtest loads this, so it imports little."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; pytest's own stay what they are."""
    group = parser.getgroup("vmtest", "run the tests in Linux kernels, in VMs (vmtest)")
    group.addoption(
        "--vmtest-kernel",
        action="append",
        default=[],
        dest="vmtest_kernels",
        metavar="NAME|RANGE|tag:TAG|ARCHIVE/VERSION",
        help="Run each test in this kernel and not here; may be repeated.",
    )
    group.addoption(
        "--vmtest-object",
        action="append",
        default=[],
        dest="vmtest_objects",
        metavar="NAME=PATH",
        help="Use this build of an object of kernels.toml; may be repeated.",
    )
    group.addoption(
        "--vmtest-args",
        default="",
        dest="vmtest_args",
        metavar="OPTIONS",
        help="Options for the pytest in the kernels, such as those that a conftest.py adds.",
    )
    group.addoption(
        "--vmtest-jobs",
        type=int,
        dest="vmtest_jobs",
        metavar="N",
        help="How many VMs run at once (default: as many as there is room for).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take over where a kernel is named; raises pytest.UsageError."""
    config.addinivalue_line(
        "markers",
        'kernel(range): with --vmtest-kernel, only in kernels of the range, as in kernel(">=6.1")',
    )
    patterns = config.getoption("vmtest_kernels")
    if patterns:
        from vmtest.plugin.guests import Guests

        config.pluginmanager.register(Guests(config, patterns), "vmtest-guests")
