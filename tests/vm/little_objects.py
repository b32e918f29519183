"""Objects of a few programs, compiled for a test."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vmtest.objects.compile import clang_argv

GOOD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define PROGRAM(name) SEC("xdp") int name(struct xdp_md *ctx) { return ctx ? XDP_PASS : XDP_DROP; }
PROGRAM(first) PROGRAM(second) PROGRAM(third)
char _license[] SEC("license") = "GPL";
"""
BAD = GOOD.replace(
    "PROGRAM(first)",
    'SEC("xdp") int first(struct xdp_md *ctx) { return *(int *)(long)ctx->data; }',
)
"""The verifier rejects its program ``first``."""


def compiled(target: Path, text: str = GOOD) -> Path:
    source = target.with_suffix(".c")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text)
    subprocess.run(clang_argv(source, target, target.parent), check=True)
    return target
