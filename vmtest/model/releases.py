"""What a kernel can be called, and the files in its folder: one pattern for every source.

Releases and names come out of files that anybody may have made, and go into paths, messages
and other programs' lists.
"""

from __future__ import annotations

import re

_LONGEST = 64
"""``__NEW_UTS_LEN`` in include/uapi/linux/utsname.h; the kernel's build refuses a longer one."""
_RELEASE = re.compile(r"[0-9]+\.[0-9]+[A-Za-z0-9.+_~-]*")
_PART = re.compile(r"[A-Za-z0-9._+@,:=~^-]{1,255}")


def is_release(text: str) -> bool:
    """Whether ``text`` can be what ``uname -r`` says: ``6.12.118+deb13-amd64``."""
    return len(text) <= _LONGEST and _RELEASE.fullmatch(text) is not None


def is_member(path: str) -> bool:
    """Whether the relative ``path`` can be that of a file in a kernel's folder, and stays in it."""
    return all(part != ".." and _PART.fullmatch(part) for part in path.split("/"))
