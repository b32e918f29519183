"""A refusal for what this kernel's package has in a module that is not loaded: pure."""

from __future__ import annotations

from collections.abc import Callable

from vmtest.model.loads import Verdict
from vmtest.verify.events import Load, WireReason

Modules = Callable[[str], str | None]
"""The module of the kernel's package that has a name; None if none has."""


def no_modules(name: str) -> str | None:
    """Of a kernel whose modules nobody knows."""
    del name
    return None


def with_module(event: Load, modules: Modules) -> Load:
    """What the guest says of a load, and what it lacks told as the module's that has it.

    The kernel can do it, so the load is refused as a whole and not `unsupported`.
    """
    told = event
    if event.reason is not None and (found := _of_module(event.reason, modules)):
        lacks = event.verdict is Verdict.UNSUPPORTED
        verdict = Verdict.REFUSED if lacks else event.verdict
        told = told.model_copy(update={"reason": found, "verdict": verdict})
    attachment = event.attachment
    reason = attachment.reason if attachment is not None else None
    if attachment is not None and reason is not None and (found := _of_module(reason, modules)):
        attachment = attachment.model_copy(update={"reason": found})
        told = told.model_copy(update={"attachment": attachment})
    return told


def _of_module(reason: WireReason, modules: Modules) -> WireReason | None:
    missing = reason.missing
    if not missing or (module := modules(missing)) is None:
        return None
    name = missing.removeprefix("__tracepoint_").removeprefix("bpf_struct_ops_")
    return WireReason(
        code="module-not-loaded",
        text=f"{name} is in the module {module} of this kernel, which is not loaded",
        remedy=f'load it before: --module {module}, or modules = ["{module}"] in its [[object]]',
        evidence=f"{reason.evidence}; {missing} is defined in the kernel package's {module}",
        name=reason.name or name,
    )
