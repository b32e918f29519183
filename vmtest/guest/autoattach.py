"""Attaching a program for a moment, without knowing its application."""

from typing import NamedTuple

from vmtest.guest.reasons import Reason


class Attachment(NamedTuple):
    """Whether a program could be attached: `place` says where, `errno` names the failure."""

    attached: bool
    place: str = ""
    errno: str = ""
    reason: Reason | None = None
