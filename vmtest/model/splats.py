"""What a complaint of the kernel is, whatever kernel it comes from: its fingerprint.  Pure.

The texts are Linux's, 4.19 to 7.x: ``kernel/panic.c``, ``arch/x86/kernel/{dumpstack,traps}.c``,
``arch/x86/mm/fault.c``, ``mm/kasan``, ``lib/ubsan.c``, ``kernel/watchdog.c``, ``kernel/rcu``,
``kernel/hung_task.c``, ``kernel/locking/lockdep.c``.
"""

from __future__ import annotations

import re

_SYMBOL = r"([\w.$]+)\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?(?: \[([\w-]+)[^\]]*\])?"
_IN_TEXT = re.compile(r"(?<![\w.$])" + _SYMBOL)  # not from each letter of a long word on
_POINTER = re.compile(r"^\s*RIP: (?:[0-9a-f]{4}:)?" + _SYMBOL)
_FRAME = re.compile(r"^\s+" + _SYMBOL + r"(?:\s|$)")
_FILE = re.compile(
    r"(?:^|[ /])((?:arch|block|certs|crypto|drivers|fs|include|init|io_uring|ipc|kernel|lib|mm|net|"
    r"rust|samples|security|sound|virt)/[\w./+-]+\.(?:c|h|S|rs)):\d+"
)
_BARE_OOPS = re.compile(r"^Oops: [0-9a-f]{4} \[#\d+\]")
_TRAP = re.compile(r"^(?:Oops: )?invalid opcode: [0-9a-f]{4} \[#\d+\]")
_CLONE = re.compile(r"\.(?:isra|part|constprop|cold|llvm)(?:\.\d+)?(?=\.|$)")
_PROGRAM = re.compile(r"^bpf_prog_[0-9a-f]{16}(?:_|$)")

# How a kernel reports and waits: the place is whoever called it.
_REPORTING = re.compile(
    r"_{0,2}(?:dump_stack|show_(?:stack|trace|regs)|print_|warn|report_bug|ubsan|might_|mutex_lock|"
    r"down_|wait_(?:for|on)_|asan_|msan_|tsan_|schedule)|asm_|exc_|handle_bug|k[amc]san_|"
    r"check_(?:memory_region|preemption_disabled|noncircular)|debug_smp_|lockdep_|mark_lock|"
    r"validate_chain|__lock_acquire|lock_acquire|preempt_schedule|io_schedule|rwsem_|do_wait_|"
    r"bit_wait|out_of_line_wait|_raw_|nmi_|rcu_(?:sched_clock|pending|check|dump)|sched_tick|"
    r"scheduler_tick|update_process_times|tick_|_{0,2}hrtimer_|bad_page|slab_(?:err|bug)|object_err"
)

# In order: the first that is found names the kind; \1 is what the text itself calls it.
_KINDS = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"KASAN: (?:slab-)?([\w-]+)", r"KASAN: \1"),
        (r"\b(UBSAN|KCSAN|KMSAN): ([\w-]+)", r"\1: \2"),
        (r"NULL pointer dereference", "NULL pointer dereference"),
        (r"unable to handle.*(?:paging request|page fault)", "page fault"),
        (r"soft lockup", "soft lockup"),
        (r"hard lockup|hard LOCKUP", "hard lockup"),
        (r"rcu.*detected (?:expedited )?stall", "RCU stall"),
        (r"^INFO: task .* blocked\b.* for more than", "hung task"),
        (r"possible (recursive|circular|irq lock inversion|deadlock)", r"possible \1 locking"),
        (r"suspicious RCU usage", "suspicious RCU usage"),
        (r"sleeping function called from invalid context", "sleeping function called"),
        (r"scheduling while atomic", "scheduling while atomic"),
        (r"^kernel BUG at|invalid opcode", "kernel BUG"),
        (r"general protection fault", "general protection fault"),
        (r"divide error", "divide error"),
        (r"^BUG: Bad (\w+ \w+)", r"bad \1"),
        (r"^BUG (\S+) .*?: ([\w ]+)", r"BUG \1: \2"),
        (r"^Oops: ([A-Za-z][\w ,-]*)", r"\1"),
        (r"^Oops", "oops"),
        (r"^([\w ,-]{1,60}): [0-9a-f]{4} \[#\d+\]", r"\1"),
        (r"^WARNING: (?:CPU: \d+|[\w./+-]+:\d+ at |at )", "WARNING"),
    )
)
# kernel/sched/core.c, sched_show_task(): since 5.10, and before.  2 is kthreadd.
_KERNEL_THREAD = re.compile(
    r"^task:.* state:\S+ .*\bppid:\s*2\b|^\S.* [DRSTI] {1,6}\d+ +\d+ {1,8}2 0x[0-9a-f]{8}$"
)
_STALLS = frozenset({"soft lockup", "hard lockup", "RCU stall", "hung task"})
_MASKS = (
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b[0-9a-f]{8,}\b"), "…"),
    (re.compile(r"(?<=[/:])\d+\b|#\d+|\b\d+(?:\.\d+)*s?\b"), "…"),
)


def place_in(line: str) -> str:
    """``FUNCTION`` or ``FUNCTION [MODULE]`` when a line behind a complaint tells it, else "".

    The line is one of the register dump or of the call trace, as the kernel indents it.
    """
    found = _POINTER.match(line) or _FRAME.match(line)
    if found is None or (found.re is _FRAME and _REPORTING.match(found[1])):
        return ""
    return _symbol(found)


def has_place(text: str) -> bool:
    """Whether a complaint's own ``text`` names the function."""
    return _IN_TEXT.search(text) is not None


def fingerprint(text: str, place: str = "") -> str:
    """Kind, function and module of a complaint: ``WARNING in check_it [a_module]``.

    ``text`` is its first line, ``place`` what :func:`place_in` found behind it.  It is the same
    on every kernel: no address, offset, line number, process, CPU or time is in it.  Without a
    function it has the source file.
    """
    first = text.split("\n", 1)[0].strip()
    kind = _kind(first)
    inside = _IN_TEXT.search(first)
    file = _FILE.search(first)
    where = _symbol(inside) if inside else place or (file[1] if file else "")
    return f"{kind} in {where}" if where else kind


def stalls(text: str) -> bool:
    """Whether the complaint ``text`` says that the kernel, or a task in it, does not go on."""
    return _kind(text) in _STALLS


def names_kernel_thread(line: str) -> bool:
    """Whether a line behind the report of a task says that the task is the kernel's own."""
    return _KERNEL_THREAD.match(line) is not None


def continues(text: str, before: str) -> bool:
    """Whether ``text`` is the oops of the complaint ``before`` it, and none of its own."""
    if _BARE_OOPS.match(text):
        return before.startswith("BUG: ")
    return bool(_TRAP.match(text)) and before.startswith("kernel BUG at")


def _kind(text: str) -> str:
    for pattern, kind in _KINDS:
        if found := pattern.search(text):
            return found.expand(kind)
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return text[:200]


def _symbol(found: re.Match[str]) -> str:
    name = _CLONE.sub("", _PROGRAM.sub("bpf_prog_", found[1])).removesuffix("_") or found[1]
    return f"{name} [{found[2]}]" if found[2] else name
