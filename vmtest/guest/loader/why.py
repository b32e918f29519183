# SPDX-License-Identifier: MIT
"""The functions of `reasons`, whose rules are read once something failed.

Reading those is two fifths of what a loader does before its first load, and seconds where it is
emulated.
"""

from vmtest.guest.failures import Failure, Kernel, Reason


def explain(failure: Failure, kernel: Kernel) -> Reason:
    """Why `failure` happened, as far as it is shown; `unknown` otherwise."""
    from vmtest.guest.loader import reasons

    return reasons.explain(failure, kernel)


def of_cilium(text: str, failure: Failure, kernel: Kernel) -> Reason | None:
    """As `ciliumrules.of_cilium`."""
    from vmtest.guest.loader import ciliumrules

    return ciliumrules.of_cilium(text, failure, kernel)


def shared_prog_array(
    program: str, partner: str, name: str, refused: str, kinds: tuple[str, str]
) -> Reason:
    """As `reasons.shared_prog_array`."""
    from vmtest.guest.loader import reasons

    return reasons.shared_prog_array(program, partner, name, refused, kinds)
