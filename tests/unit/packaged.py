"""One kernel of Debian's packages, as kernels.toml names it."""

from __future__ import annotations

PACKAGED = """
[apt.debian]
suites = ["trixie-security"]
[[kernel]]
name = "6.12"
apt = "debian"
version = "6.12.*"
"""
