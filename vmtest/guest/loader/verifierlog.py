# SPDX-License-Identifier: MIT
"""Reading what the verifier and libbpf wrote: pure functions of text."""

import re
from typing import NamedTuple

# Digits are counted: a log holds whatever a guest says, and Python reads no endless number.
_PROCESSED = re.compile(r"^processed (\d{1,18}) insns\b(.*)$", re.MULTILINE)
_FIGURE = re.compile(r"(\w+) (\d{1,18})\b")
_TIME = re.compile(r"^verification time (\d{1,18}) usec$", re.MULTILINE)
_DEPTH = re.compile(r"^stack depth (\d{1,9}(?:\+\d{1,9})*)", re.MULTILINE)
# Seen in 7.3, whose "stack depth max" is of the deepest chain of calls.
_SUBPROGRAM = re.compile(
    r"^subprog \d+ \(.*\) \w+ insns_self \d+ .*\bstack (\d{1,9})$", re.MULTILINE
)

# Lines that accompany a finding: statistics, source lines, instructions, states, and how the
# verifier went.
_NOISE = re.compile(
    r"^(?:$|;|processed \d+ insns|verification time |stack depth |mark_precise|"
    r"subprog \d+ \(|"
    r"\d+: \([0-9a-f]{2}\)|\d+: (?:R\d+|frame\d|safe)|(?:frame\d+: )?R\d+(?:_[a-z]+)?=|"
    r"from \d+ to \d+|last_idx |regs=|parent |(?:old|cur) state:|"
    r"func#\d+ @|Live regs|insns? \d+-\d+|"
    r"returning from callee|to caller at|caller:|callee:|Validating |arg#\d+ reference|"
    r"Global function \S+\(\) doesn't return scalar|func '[^']*' arg\d+ has btf_id |"
    r"-- (?:BEGIN|END) |\s*\d+: [.0-9]+ \([0-9a-f]{2}\)|propagating r)"
)
# "Verification failed: CATEGORY: WHAT", then indented lines below headings.
_EXPLAINED = "Verification failed: "
_EXPLANATION = re.compile(r"\s|(?:Suggestion|Causal path|Reason)\b")
_ASIDE = re.compile(r"arg#\d+ reference type\(|Global function \S+\(\) doesn't return scalar")
_BANNER = re.compile(
    r"^(?:$|prog '[^']*': BPF program load failed: |prog '[^']*': failed to load: |"
    r"prog '[^']*': failed to prepare load attributes: |"
    r"prog '[^']*': failed to relocate (?:calls|data references): |"
    r"failed to load object|failed to load BPF skeleton|-- (?:BEGIN|END) PROG LOAD LOG --|"
    r"prog '[^']*': -- (?:BEGIN|END) PROG LOAD LOG --|failed to perform CO-RE relocations)"
)
# libbpf goes on without the object's BTF where it may: then that is not why a load failed.
_BTF_IGNORED = "BTF is optional, ignoring"
_BTF_REFUSED = re.compile(
    r"BTF loading error|Error loading \.BTF into kernel|-- BEGIN BTF LOAD LOG"
)


class Statistics(NamedTuple):
    """The figures at a log's end; zeros where this kernel's verifier says nothing."""

    instructions: int
    total_states: int
    peak_states: int
    mark_read: int
    stack_depth: tuple[int, ...]
    verification_us: int


def statistics(log: str) -> Statistics:
    """The last figures in `log`, as log level 4 asks for them."""
    # The last one: text before it can be the program's own source.
    *_, (instructions, rest) = [("0", ""), *_PROCESSED.findall(log)]
    figures = dict(_FIGURE.findall(rest))
    chains = _DEPTH.findall(log)
    depths = chains[-1].split("+") if chains else _SUBPROGRAM.findall(log)
    times = _TIME.findall(log)
    return Statistics(
        instructions=int(instructions),
        total_states=int(figures.get("total_states", 0)),
        peak_states=int(figures.get("peak_states", 0)),
        mark_read=int(figures.get("mark_read", 0)),
        stack_depth=tuple(int(depth) for depth in depths),
        verification_us=int(times[-1]) if times else 0,
    )


def findings(log: str) -> list[str]:
    """The lines of a verifier's log that say something about the program, in order.

    Not the statistics, nor source lines, instructions and register states, nor what kernels from
    7.3 on explain below a finding at levels 1 and 2.
    """
    said, explained = [], False
    for line in log.splitlines():
        if line.startswith(_EXPLAINED):
            explained = True
        elif explained and (not line.strip() or _EXPLANATION.match(line)):
            pass
        else:
            explained = False
            if not _NOISE.match(line):
                said.append(line.strip())
    return said


def asides(log: str) -> list[str]:
    """The lines on arguments and results of functions, which often mean nothing.

    They never stand among findings: kernels say them of a program that they take, too. Of a global
    function that they refuse they say no more than that.
    """
    return [line.strip() for line in log.splitlines() if _ASIDE.match(line)]


def words(messages: str) -> list[str]:
    """What libbpf itself said, without its prefix, verifier logs and lines that add nothing."""
    said, inside = [], False
    without_btf = _BTF_IGNORED in messages
    for line in messages.splitlines():
        if "-- BEGIN PROG LOAD LOG --" in line:
            inside = True
        elif "-- END PROG LOAD LOG --" in line:
            inside = False
        elif not inside and line.startswith("libbpf: "):
            text = line.removeprefix("libbpf: ").strip()
            if not _BANNER.match(text) and not (without_btf and _BTF_REFUSED.match(text)):
                said.append(text)
    return said


_SOURCE = re.compile(r"^; (?P<text>.*?)(?: @ (?P<place>[^ @]+:\d+))?$")


def source_line(trace: str) -> str:
    """The line of the source at which a log of level 1 ends, with its place; "" without any.

    The log has such lines where the object was compiled with BTF (`clang -g`); places since 6.8.
    """
    for line in reversed(trace.splitlines()):
        if (match := _SOURCE.match(line)) and (text := match["text"].strip()):
            return f"{match['place']}: {text}" if match["place"] else text
    return ""


def embedded(messages: str) -> str:
    """The verifier's log that libbpf wrote among its own messages; "" if there is none.

    Of several the last one.
    """
    lines: list[str] = []
    inside = False
    for line in messages.splitlines():
        if "-- BEGIN PROG LOAD LOG --" in line:
            lines, inside = [], True
        elif "-- END PROG LOAD LOG --" in line:
            inside = False
        elif inside:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def refused_btf(messages: str) -> str:
    """Why the kernel did not take the object's BTF, without which libbpf went on; "" if it did."""
    if _BTF_IGNORED not in messages:
        return ""
    log = messages.partition("-- BEGIN BTF LOAD LOG --")[2].partition("-- END BTF LOAD LOG --")[0]
    lines = [line.strip() for line in log.splitlines() if line.strip(" -")]
    ignored = (line for line in messages.splitlines() if _BTF_IGNORED in line)
    return lines[-1] if lines else next(ignored).removeprefix("libbpf: ")


def last_line(log: str, messages: str) -> str:
    """The last meaningful line: the verifier's, or libbpf's where the verifier said nothing."""
    if said := findings(log) or words(messages):
        return said[-1]
    banner = next((line for line in messages.splitlines() if line), "")
    return banner.removeprefix("libbpf: ")
