# SPDX-License-Identifier: MIT
"""What is known of a refused load or attachment, what can be asked of the kernel, and the answer.

Values and small makers of them, for the modules that hold the rules.
"""

import errno
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

LACKING = frozenset(
    {
        "helper",
        "kfunc",
        "ksym",
        "instruction",
        "map-type",
        "map-flag",
        "program-type",
        "program-flag",
        "attach-type",
        "attach-target",
        "core-relocation",
        "btf",
        "kconfig",
    }
)
"""The codes which say that the kernel lacks something: the verdict is `unsupported`."""

NEEDING_BTF = frozenset({"map-btf", "object-btf"})
"""The codes of what is missing where the kernel did not take the object's BTF."""


class Reason(NamedTuple):
    """A code of the documented set, in words, with a remedy and what shows it.

    `missing` is the symbol that a module of this kernel may have, for whoever has its modules: a
    function, `__tracepoint_EVENT` or `bpf_struct_ops_STRUCT`. `name` is what the reason is about,
    as the kernel's or the program's source calls it: the helper, the function, the type, the field
    or the program.
    """

    code: str
    text: str
    remedy: str = ""
    evidence: str = ""
    missing: str = ""
    name: str = ""


class MapShape(NamedTuple):
    """What a map is made with: sizes in bytes, `kind` is libbpf's name of its type.

    `inner`: a map of maps that says what its inner maps look like; True for every other map.
    `map_extra`: as in its definition; a bloom_filter and an arena have one.
    """

    name: str
    kind: str
    key_size: int = 4
    value_size: int = 4
    max_entries: int = 1
    flags: int = 0
    inner: bool = True
    map_extra: int = 0


class Kernel(Protocol):
    """What can be asked of the running kernel; None where it cannot tell."""

    def has_program_type(self, name: str) -> bool | None:
        """Whether a program of that type can be loaded at all."""

    def has_map_type(self, name: str) -> bool | None:
        """Whether a map of that type can be made at all."""

    def has_attach_type(self, name: str) -> bool | None:
        """Whether its `enum bpf_attach_type` has that value."""

    def has_function(self, name: str) -> bool | None:
        """Whether its BTF, or that of a loaded module, has a function of that name."""

    def has_symbol(self, name: str) -> bool | None:
        """Whether it has a symbol of that name, as its list of symbols says."""

    def matching(self, pattern: str) -> Sequence[str] | None:
        """The symbols of its list that match `pattern`, with `*` and `?`, in their order."""

    def has_typedef(self, name: str) -> bool | None:
        """Whether its BTF, or that of a loaded module, has a typedef of that name."""

    def has_tracepoint(self, name: str) -> bool | None:
        """Whether it has the tracepoint `category/event`."""

    def has_btf(self) -> bool:
        """Whether it shows its BTF."""

    def mentions(self, name: str) -> bool | None:
        """Whether its BTF has anything of that name: an enumerator, say."""

    def members(self, structure: str) -> Sequence[str] | None:
        """The members of a structure of its BTF, nested ones as `outer.inner`; empty: no such."""

    def config(self, symbol: str) -> str | None:
        """The value of a kconfig symbol, "n" where it is not set."""

    def has_helper(self, number: int) -> bool | None:
        """Whether its `enum bpf_func_id` has that number."""

    def attach_types_with(
        self, number: int, program_type: str, sleepable: bool = False
    ) -> Sequence[str]:
        """The attach types of a program type to whose programs it gives a helper, by trying.

        `sleepable`: to those that may sleep.
        """

    def program_types_with(self, number: int) -> Sequence[str]:
        """The program types to which it gives a helper, by trying."""

    def refuses_map(self, shape: MapShape) -> str:
        """The name of the errno with which it refuses such a map; "" if it makes it."""

    def switched_off(self, symbol: str) -> bool:
        """Whether its config says `# SYMBOL is not set`; an older kernel's says nothing of it."""

    def memlock_limit(self) -> int | None:
        """The bytes of RLIMIT_MEMLOCK; None for no limit."""

    def counts_memlock(self) -> bool | None:
        """Whether maps and programs count against RLIMIT_MEMLOCK."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A load or an attachment that was refused.

    `errno` is a name; `messages` are libbpf's, `log` is the verifier's; `program_type` and
    `attach_type` are libbpf's names, "" where no program is concerned. `attaching`: the program was
    accepted before.

    Of the program: its `section`, and its instructions with those of its subprograms (`code`, empty
    where that is not known). `trace` is the log of a second load at level 1, which has the source
    lines.

    `libbpf` is the version that loaded it, as (1, 5), empty where that is not known. Of the object:
    the sections of data that it did not recognise (`skipped`), and the members of struct_ops maps
    that are zero, as `map.member` (`zeroed`; only where libbpf missed one in the kernel).
    """

    errno: str
    messages: str = ""
    log: str = ""
    program_type: str = ""
    attach_type: str = ""
    maps: tuple[MapShape, ...] = ()
    attaching: bool = False
    section: str = ""
    code: bytes = b""
    trace: str = ""
    libbpf: tuple[int, ...] = ()
    skipped: tuple[str, ...] = ()
    zeroed: frozenset[str] = frozenset()


Make = Callable[[re.Match[str], Failure, Kernel], Reason | None]
"""What a line that matched means, if it means that here."""


class Rule(NamedTuple):
    """A pattern for a line of libbpf's or the verifier's, and what such a line means."""

    pattern: re.Pattern[str]
    make: Make


def rules(*made: tuple[str, Make]) -> tuple[Rule, ...]:
    """Rules of patterns and makers; the first that gives a reason decides."""
    return tuple(Rule(re.compile(pattern), make) for pattern, make in made)


def said(code: str, text: str, remedy: str, missing: str = "", name: str = "") -> Make:
    """A reason that its line proves; `text` and `remedy` may name the groups of the pattern.

    `missing` likewise, for what a module may have, and `name`, for what it is about.
    """

    def make(match: re.Match[str], _failure: Failure, _kernel: Kernel) -> Reason:
        groups = {group: value or "" for group, value in match.groupdict().items()}
        line = f"log: {match.string}"
        said_so, cure, lacks, of = (part.format(**groups) for part in (text, remedy, missing, name))
        return Reason(code, said_so, cure, line, lacks, of)

    return make


def of_line(line: str, among: Sequence[Rule], failure: Failure, kernel: Kernel) -> Reason | None:
    """What `line` means by the first rule of `among` that fits."""
    for rule in among:
        if (match := rule.pattern.match(line)) and (found := rule.make(match, failure, kernel)):
            return found
    return None


def lacking(reason: Reason, symbol: str | None, kernel: Kernel) -> Reason:
    """`reason`, or the kconfig that is behind it where that is not set."""
    if symbol is None or kernel.config(symbol) != "n":
        return reason
    return Reason(
        "kconfig",
        f"{reason.text}: it was built without {symbol}",
        f"run it on a kernel with {symbol}",
        f"{reason.evidence}; {symbol} is not set in this kernel's config",
        name=symbol,
    )


def believed(probed: bool | None, name: str, symbol: str | None, kernel: Kernel) -> bool | None:
    """A probe's answer; a "no" only where the kernel does not know `name`, or lacks the kconfig.

    libbpf's probes say no on kernels that are older than what they load: that of 1.5 for struct_ops
    maps before 6.9. The kernel's own BTF names every type that it knows.
    """
    off = symbol is not None and kernel.config(symbol) == "n"
    return None if probed is False and kernel.mentions(name) and not off else probed


def behind(symbol: str | None, name: str, kernel: Kernel) -> str | None:
    """`symbol`; None where the kernel's BTF has no `name`: it is older than what that switches.

    A config file leaves out what the kernel has not, as it leaves out what cannot be chosen.
    """
    return None if kernel.mentions(name) is False else symbol


def listed(names: Sequence[str], most: int = 6) -> str:
    """`a, b and c`; what is over `most` is counted."""
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


_SAID_ERRNO = re.compile(r"-(?P<name>E[A-Z0-9]+)$|.*\(-(?P<number>\d+)\)$|-(?P<bare>\d+)$")
_OF_WORDS = {os.strerror(number): name for number, name in errno.errorcode.items()}


def errno_said(text: str) -> str:
    """The errno in words of any libbpf: `Invalid argument(-22)`, `-22` (1.x), `-EINVAL` (1.6)."""
    match = _SAID_ERRNO.match(text.strip())
    if match is None:
        return _OF_WORDS.get(text.strip(), text.strip())
    number = match["number"] or match["bare"]
    return match["name"] or errno.errorcode.get(int(number), number)
