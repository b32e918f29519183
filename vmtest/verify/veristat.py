"""One kernel's loads as CSV that veristat itself reads (``veristat -C a.csv b.csv``).

Columns and the words for verdicts are those of tools/testing/selftests/bpf/veristat.c.
It splits lines at commas without any quoting and reads lines of 4,095 bytes.
"""

from __future__ import annotations

import re

from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import KernelResult

COLUMNS = (
    "file_name",
    "prog_name",
    "verdict",
    "duration",
    "total_insns",
    "total_states",
    "peak_states",
)
"""veristat's own default columns: every version of it knows these."""

_LONGEST = 1500


def render(kernel: KernelResult) -> str:
    """A line a program, sorted as veristat wants them to compare; wholes are left out."""
    rows = sorted(_row(load) for load in kernel.loads if load.program)
    return "\n".join(",".join(row) for row in (COLUMNS, *rows)) + "\n"


def _row(load: LoadResult) -> tuple[str, ...]:
    cost = load.cost
    return (
        _field(load.object),
        _field(load.program),
        "success" if load.verdict is Verdict.ACCEPTED else "failure",
        str(cost.verification_us),
        str(cost.instructions),
        str(cost.total_states),
        str(cost.peak_states),
    )


def _field(text: str) -> str:
    """``text`` as a field: not empty, no comma, no end of line, and its end where it is long."""
    plain = re.sub(r"[,\x00-\x1f\x7f]", "_", text)
    return plain.encode("utf-8", "replace")[-_LONGEST:].decode("utf-8", "ignore") or "_"
