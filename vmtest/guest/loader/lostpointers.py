# SPDX-License-Identifier: MIT
"""What a register held before it became a plain number, in a verifier's log at level 1. Pure.

Kernels say `invalid mem access 'scalar'` of a pointer that a call released or moved as of any other
number. The log at level 1 has every instruction on the path, and the registers that it changes.
"""

import re
from dataclasses import dataclass, field

ARENA = "an address in an arena"
"""The `kind` of what bpf_arena_alloc_pages() returns: a number until it is cast."""

_STEP = re.compile(r"^\d+: \((?P<code>[0-9a-f]{2})\) (?P<text>[^;]*)")
# Registers as R6_w=pkt(r=0), slots of the stack as fp-8_w=pkt(r=0). Linux 5.10 has more in them.
_SHOWN = re.compile(
    r"\b(?:R(?P<register>\d+)|fp(?P<slot>-\d+))(?:_\w+)?=(?P<state>[^\s(,;]+)(?P<more>\([^)]*\))?"
)
_NUMBER = re.compile(r"P?(?:scalar|inv)$")
_BYTES = re.compile(r"[m?0dir]{8}$")
_ID = re.compile(r"\bid=(\d+)")
_OR_NULL = re.compile(r"_or_null_?")
_MOVE = re.compile(r"r(?P<to>\d+) = r(?P<source>\d+)\s*$")
_FILL = re.compile(r"r(?P<to>\d+) = \*\(u64 \*\)\(r10 (?P<slot>-\d+)\)\s*$")
_STORE = re.compile(
    r"(?:lock )?\*\((?P<size>u\d+) \*\)\(r(?P<base>\d+) (?P<slot>[+-]\d+)\) "
    r"(?:= r(?P<source>\d+)\s*$)?"
)
_ADDED = re.compile(r"r(?P<to>\d+) [+-]= ")
_SET = re.compile(r"[rw](?P<to>\d+) (?:s?(?:<<|>>|[-+*/%&|^])?)= ")
_CALL = re.compile(r"call (?P<name>pc[+-]\d+|\w+)")
_TEST = re.compile(r"if r(?P<register>\d+) (?:==|!=) (?:0x)?0 goto ")
_FRAME = re.compile(r"from \d+ to \d+(?: \(speculative execution\))?: (?:frame(?P<frame>\d+): )?")
_CALLER_SAVED, _SLOT = 6, 8  # R0 to R5 are lost in every call
_LOAD_64 = "18"


@dataclass(slots=True)
class Held:
    """A pointer that a register was last seen to hold: its kind as the log calls it, and `calls`.

    `calls` are the names of what was called since, `pc+5` for functions of the program.
    """

    kind: str
    id: str = ""
    calls: list[str] = field(default_factory=list)


_Frame = dict[int, Held]  # registers by their number, slots of the stack by their offset


def before(trace: str, line: str, register: int) -> Held | None:
    """What `register` held before the instruction of which `trace` says `line`; None if unknown.

    None too where `line` is not in `trace`: a log that was cut does not show the whole path.
    """
    lines = trace.splitlines()
    if line not in lines:
        return None
    steps = [at for at in range(lines.index(line)) if _STEP.match(lines[at])]
    frames: list[_Frame] = [{}]
    for text in lines[: steps[-1]] if steps else ():
        _follow(frames, text)
    return frames[-1].get(register)


def _follow(frames: list[_Frame], line: str) -> None:
    if line.startswith(";"):
        return  # the program's own source
    if path := _FRAME.match(line):
        # Another path: what is shown here is all that is known of it.
        frames[:] = [{} for _ in range(int(path["frame"] or 0) + 1)]
    elif line.startswith("callee:"):
        frames.append({})
    elif line.startswith("to caller at") and len(frames) > 1:
        frames.pop()
    if step := _STEP.match(line):
        _run(frames, step["text"].strip(), line)
    _see(frames[-1], line, step["code"] == _LOAD_64 if step else False)


def _run(frames: list[_Frame], text: str, line: str) -> None:
    frame = frames[-1]
    if call := _CALL.match(text):
        _called(frames, call["name"])
    elif move := _MOVE.match(text):
        _copy(frame, int(move["source"]), int(move["to"]))
    elif fill := _FILL.match(text):
        _copy(frame, int(fill["slot"]), int(fill["to"]))
    elif store := _STORE.match(text):
        _stored(frame, store)
    elif test := _TEST.match(text):
        _compared(frame, int(test["register"]), line)
    elif (added := _ADDED.match(text)) and _kind(frame, int(added["to"])) == ARENA:
        pass
    elif changed := _SET.match(text):
        frame.pop(int(changed["to"]), None)


def _called(frames: list[_Frame], name: str) -> None:
    for held in {id(one): one for frame in frames for one in frame.values()}.values():
        held.calls.append(name)
    for register in range(_CALLER_SAVED):
        frames[-1].pop(register, None)
    if name == "bpf_arena_alloc_pages":
        frames[-1][0] = Held(ARENA)


def _copy(frame: _Frame, source: int, to: int) -> None:
    if source in frame:
        frame[to] = frame[source]
    else:
        frame.pop(to, None)


def _stored(frame: _Frame, store: re.Match[str]) -> None:
    base, slot = int(store["base"]), int(store["slot"])
    if base == 10 and store["size"] == "u64" and store["source"] and slot % _SLOT == 0:
        _copy(frame, int(store["source"]), slot)
    elif base == 10:
        frame.pop(slot // _SLOT * _SLOT, None)
    elif base not in frame:
        for key in [key for key in frame if key < 0]:  # perhaps into the stack
            del frame[key]


def _compared(frame: _Frame, register: int, line: str) -> None:
    """A comparison with NULL: all copies of that pointer are pointers now, or 0."""
    tested = frame.get(register)
    if tested is None or not _OR_NULL.search(tested.kind):
        return
    pointer = any(
        shown["register"] == str(register) and _is_pointer(shown) for shown in _SHOWN.finditer(line)
    )
    for key, held in list(frame.items()):
        if held is not tested and (not held.id or held.id != tested.id):
            continue
        if pointer:
            held.kind = _OR_NULL.sub("", held.kind)
        else:
            del frame[key]


def _see(frame: _Frame, line: str, loads: bool) -> None:
    for shown in _SHOWN.finditer(line):
        key = int(shown["register"] or shown["slot"])
        if _is_pointer(shown):
            known = _ID.search(shown["more"])
            frame[key] = Held(shown["state"], known[1] if known else "")
        elif shown["slot"] and _BYTES.match(shown["state"]):
            frame.pop(key, None)
        elif loads and shown["state"] == "scalar":
            frame[key] = Held(ARENA)  # the verifier knows the value of all other constants


def _is_pointer(shown: re.Match[str]) -> bool:
    return bool(shown["more"]) and not _NUMBER.match(shown["state"])


def _kind(frame: _Frame, key: int) -> str:
    return frame[key].kind if key in frame else ""
