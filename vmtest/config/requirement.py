"""A requirement as pip takes it, where no code of a package runs on the host."""

from __future__ import annotations

from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement


def parse_requirement(text: str) -> Requirement:
    """The requirement that ``text`` is.

    Raises ValueError for one that is none, or that names an archive of sources: pip would run its
    setup on the host, whatever it is told of wheels.
    """
    try:
        needed = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(
            'is not a requirement; write one as pip takes it: "hypothesis>=6", "attrs==25.1"'
        ) from error
    if needed.url is not None and not urlsplit(needed.url).path.endswith(".whl"):
        raise ValueError("is not the address of a wheel; name a .whl, or build one for wheels")
    return needed
