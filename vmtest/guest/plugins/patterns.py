# SPDX-License-Identifier: MIT
"""Patterns of `[[known_failure]]`: which tests one means."""

import re


def matches(pattern: str, test: str, root: str = "") -> bool:
    """Whether `pattern` means the test with pytest's node id `test`.

    `*` stands for any characters, `?` for one; `[` is itself, as parameters are written with it.
    The pattern may leave out folders in front, or name those of `root`, the path that node ids are
    relative to.
    """
    path, separator, name = test.partition("::")
    parts = [part for part in f"{root}/{path}".split("/") if part]
    wanted = re.compile(
        "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in pattern), re.DOTALL
    )
    ids = ("/".join(parts[start:]) + separator + name for start in range(len(parts)))
    return any(wanted.fullmatch(one) for one in ids)
