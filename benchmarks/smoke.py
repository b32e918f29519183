"""``--smoke`` of every benchmark: both sides once, as small as they can be.

It shows that a benchmark still runs (``tests/vm/test_benchmarks.py``). Its figures mean nothing, so
they are held to no aim, and the file of the last real ones is left alone.
"""

from __future__ import annotations

import argparse
import atexit
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KERNEL = "6.12"
"""The kernel of kernels.toml that a smoke run boots."""
ONE_TEST = {
    "samples": 1,
    "kernel": [KERNEL],
    "suites": ["sendmsg"],
    "tests": "flags_of_the_abi",
}
"""The options of a benchmark that runs suites: one test of one suite, once."""


def parse(parser: argparse.ArgumentParser, smallest: Mapping[str, Any]) -> argparse.Namespace:
    """The options of the command line; with ``--smoke`` those of ``smallest`` instead."""
    parser.add_argument(
        "--smoke", action="store_true", help="both sides once, at the smallest size; no figures"
    )
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(smallest)
        if "json" in vars(options):
            scratch = tempfile.mkdtemp(prefix="vmtest-smoke-")
            atexit.register(shutil.rmtree, scratch)
            options.json = Path(scratch) / "figures.json"
    return options
