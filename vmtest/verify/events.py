"""What the loader of a guest says (``vmtest/guest/loader/main.py``), as a schema."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from vmtest.guest.loader.verifierlog import statistics
from vmtest.matrix.wire import Event, Hello, Text
from vmtest.model import loads
from vmtest.model.loads import Cost, LoadResult, Verdict

Size = Annotated[int, Field(ge=0, le=1 << 40)]
"""Bytes."""

_OF_THE_HOST = (
    Verdict.TIMED_OUT,
    Verdict.LOADER_CRASHED,
    Verdict.KERNEL_CRASHED,
    Verdict.NOT_LOADED,
)


def _told_by_loader(verdict: Verdict) -> Verdict:
    if verdict in _OF_THE_HOST:
        raise ValueError(f'"{verdict}" is the host\'s word')
    return verdict


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Described(_Part):
    """A program of an object, by libbpf's names."""

    name: Text
    section: Text = ""
    type: Text = ""
    attach_type: Text = ""
    instructions: int = Field(default=0, ge=0, le=1 << 40)


class WireReason(_Part):
    """Why; ``missing`` is the symbol that a module of the kernel may have.

    ``name`` is what it is about.
    """

    code: Text
    text: Text
    remedy: Text = ""
    evidence: Text = ""
    missing: Text = ""
    name: Text = ""

    def value(self) -> loads.Reason:
        """The value for the reports."""
        return loads.Reason(self.code, self.text, self.remedy, self.evidence, self.name)


class Attachment(_Part):
    """Whether a program could be attached."""

    attached: bool
    place: Text = ""
    errno: Text = ""
    reason: WireReason | None = None

    def value(self) -> loads.Attachment:
        """The value for the reports."""
        reason = None if self.reason is None else self.reason.value()
        return loads.Attachment(self.attached, self.place, self.errno, reason)


class Object(Event):
    """An object was opened: its programs, and its maps with their types."""

    event: Literal["object"]
    object: Text
    programs: tuple[Described, ...]
    maps: tuple[tuple[str, str | int], ...] = ()


class Start(Event):
    """Programs of an object ("" for all as one) are loaded now; it is answered."""

    event: Literal["start"]
    object: Text
    programs: tuple[Text, ...] = Field(min_length=1)


class Load(Event):
    """What became of one load."""

    event: Literal["load"]
    object: Text
    program: Text
    verdict: Annotated[Verdict, AfterValidator(_told_by_loader)]
    translated_size: Size
    jited_size: Size
    log: str
    log_cut: bool
    errno: Text = ""
    line: str = ""
    reason: WireReason | None = None
    attachment: Attachment | None = None

    def result(self, described: Described | None) -> LoadResult:
        """The value for the reports; ``described`` is the program, None for the whole."""
        figures = statistics(self.log)
        return LoadResult(
            object=self.object,
            program=self.program,
            verdict=self.verdict,
            section=described.section if described else "",
            type=described.type if described else "",
            attach_type=described.attach_type if described else "",
            errno=self.errno,
            cost=Cost(
                **figures._asdict(),
                translated_size=self.translated_size,
                jited_size=self.jited_size,
            ),
            line=self.line,
            log_cut=self.log_cut,
            reason=None if self.reason is None else self.reason.value(),
            attachment=None if self.attachment is None else self.attachment.value(),
        )


class Trace(Event):
    """A program that has its verdict is loaded once more, for a log of another level."""

    event: Literal["trace"]
    object: Text
    program: Text


class Traced(Event):
    """That log, and whether it did not fit."""

    event: Literal["traced"]
    object: Text
    program: Text
    log: str
    log_cut: bool


class FeatureProbe(Event):
    """The output of ``bpftool feature probe``."""

    event: Literal["probe"]
    text: str


class Finish(Event):
    """The loader has ended with this status; nothing follows."""

    event: Literal["finish"]
    status: int = Field(ge=0, le=255)


_Any = Hello | Object | Start | Load | Trace | Traced | FeatureProbe | Finish
EVENTS: TypeAdapter[_Any] = TypeAdapter(Annotated[_Any, Field(discriminator="event")])
"""Reads a line."""


def longest_line(log_limit: int) -> int:
    """Bytes of a line whose log has ``log_limit``: a character that JSON escapes takes six."""
    return 6 * log_limit + (4 << 20)
