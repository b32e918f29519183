"""What a guest's console tells at its end, and what of the kernel's words is worth reading.  Pure.

What every boot says was taken from the consoles of passing runs of Debian's kernels 5.10 to 7.3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vmtest.model.results import Complaint, KernelResult
from vmtest.model.text import printable
from vmtest.report.text import counted, last_lines

_UNLIMITED = 100_000
_BEFORE = 2  # lines in front of a panic that no complaint came before
_WORDS = 4  # lines between the kernel's scissors and the complaint
_STAMP = re.compile(r"^(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?)?")
_PANIC = re.compile(r"Kernel panic - not syncing")
_COMPLAINT = re.compile(
    r"(?:NMI |rcu: |watchdog: |Oops: )*(?:BUG(?:: | \S+ \()|Oops\b|kernel BUG at|INFO: |WARNING: |"
    r"general protection fault|divide error|invalid opcode|(?:KASAN|UBSAN|KCSAN|KMSAN): )"
)
# Registers, code and modules: who reads them opens the log.
_DUMP = re.compile(
    r"""\s*(?:
    (?:R(?!IP)[A-Z0-9]{1,2}|[CDEFGS]S|[CD]R\d|ORIG_RAX|PKRU|EFLAGS)\s?:\s+?[0-9a-f(]
    |(?:FS|GS|CS|DS|ES|SS|RSP|EFLAGS|PKRU|CR\d|DR\d):
    |RIP:\ 00(?:33|23):|Code:\ |PGD\ [0-9a-f]|\#PF:|Hardware\ name:|Modules\ linked\ in:
    |Unloaded\ tainted\ modules|Kernel\ Offset:|---\[|</?(?:TASK|IRQ|NMI|EOI)>|\?\ \S+\+0x
)""",
    re.VERBOSE,
)
_EVERY_BOOT = re.compile(
    r"""(?:\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])?\s*)(?:
    virtme\ initramfs:\ (?:loading|initramfs\ does\ not\ have\ module|mounting\ root|done;)
    |virtme-ng-init:\ (?:/run\ previously|mount\ devtmpfs|Setting\ hostname|running\ systemd-tmpf
        |WARNING:\ failed\ to\ run:\ "systemd-tmpfiles"|basic\ initialization
        |unable\ to\ find\ udevd
        |virtme-init:\ cannot\ find\ script|starting\ script)
    |Freeing\ (?:unused|initrd|SMP)|Write\ protecting\ the\ kernel|x86/mm:\ Checked\ W\+X.*passed
    |Run\ /init\ as|Trying\ to\ unpack\ rootfs|Unpacking\ initramfs
    |9p(?:net)?:\ (?:Installing|Limiting)|squashfs:\ version|netfs:\ FS-Cache|fuse:\ init
    |EXT4-fs\ \(vd\w\):\ mounted|erofs:\ (?:initialized|\(device\ vd\w\):\ mounted)
    |VFS:\ (?:Disk\ quotas|Dquot-cache)|AppArmor:\ AppArmor|integrity:\ \w+\ Keyring\ init
    |ima:\ (?:No\ TPM|Allocated|No\ arch)|evm:\ (?:Init|security|HMAC|overlay\ not)
    |NetLabel:\ +(?:Init|domain|protocols|unlabeled)|clk:\ Disabling|PM:\ genpd:\ Disabling
    |serio:\ i8042|i8042:\ PNP|mousedev:\ PS/2|input:\ AT\ Raw|rtc_cmos\ \S+\ (?:RTC\ can|re|set|al)
    |tsc:\ Refined|clocksource:\ (?:\S+\ mask|Switched)|sched_clock:\ Marking
    |hpet\d:\ (?:at|\d\ comp)
    |ledtrig-cpu:\ registered|alg:\ self-tests|mpls_gso:\ |mip6:\ |pps_core:\ |PTP\ clock\ support
    |vgaarb:\ loaded|workingset:\ timestamp|RAS:\ Correctable|pnp:\ PnP\ ACPI|pinctrl\ core:\ init
    |iommu:\ (?:Default|DMA)|system\ \S+\ .*reserved|SMBIOS\ |BIOS-e820:
    |pci\ \S+\ BAR\ .*assigned|pci_bus\ \S+\ resource|ACPI:\ (?:PCI:\ Interrupt|\\_SB_)
    |virtio-pci\ \S+\ enabling|virtio_blk\ \S+\ .*(?:queues|logical\ blocks)
    |NET:\ Registered|Key\ type\ |Asymmetric\ key\ parser|(?:Loading\ compiled-in|Loaded)\ X\.509
    |Initialise\ system\ trusted|registered\ taskstats|IPI\ shorthand|Demotion\ targets
    |Segment\ Routing
    |In-situ\ OAM|Block\ layer|io\ scheduler|Serial:|Linux\ agpgart|PCI\ Interrupt\ Link
    |vda:\ detected|\S+\ hash\ table\ entries
    |(?:IP\ idents|TCP(?:\ \w+)?|UDP(?:-Lite)?|MPTCP\ token)\ (?:hash|bind|established)
)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Tail:
    """The last lines that tell something; ``left_out`` says how many such lines came before.

    ``title`` are the words that stand above them.
    """

    lines: list[str]
    left_out: int
    title: str


def tail(lines: Sequence[str], most: int) -> Tail:
    """The last ``most`` of ``lines`` that not every boot has.

    The very last line stays, because it says how far a boot came.  Of a panic it is what the kernel
    said of it, from its first line on, and the last line is the panic's.
    """
    every = last_lines("\n".join(lines), _UNLIMITED)[0]
    telling = [
        line
        for number, line in enumerate(every)
        if number == len(every) - 1 or not _EVERY_BOOT.match(line)
    ]
    if (story := _of_a_panic(telling, most)) is not None:
        return Tail(story, 0, "console around the panic, without registers")
    usual = len(every) - len(telling)
    aside = f", without {counted(usual, 'line')} that every boot has" if usual else ""
    left_out = max(0, len(telling) - most)
    return Tail(telling[left_out:], left_out, f"console's last lines{aside}")


def _of_a_panic(lines: Sequence[str], most: int) -> list[str] | None:
    """What ``lines`` tell of a panic, in at most ``most`` lines; None where there is none."""
    texts = [_STAMP.sub("", line) for line in lines]
    panic = next((n for n, text in enumerate(texts) if _PANIC.match(text)), None)
    if panic is None:
        return None
    first = next((n for n in range(panic) if _COMPLAINT.match(texts[n])), None)
    begin = max(panic - _BEFORE, 0) if first is None else _with_words(texts, first)
    last = lines[panic]
    told = without_dumps(lines[begin:])
    if len(told) <= most:
        return told
    kept = told[: most - 2]
    if last in kept:
        kept = told[: most - 1]
    end = [] if last in kept else [last]
    left_out = len(told) - len(kept) - len(end)
    return [*kept, f"... {counted(left_out, 'more line')}; the log has all", *end]


def _with_words(lines: Sequence[str], complaint: int) -> int:
    """Where ``complaint`` begins, which may have words of its own in front of its line."""
    for before in range(complaint - 1, max(complaint - 1 - _WORDS, -1), -1):
        if "[ cut here ]" in lines[before]:
            return before + 1
    return complaint


def without_dumps(lines: Sequence[str]) -> list[str]:
    """``lines`` of a kernel without registers, code, modules, and frames that it doubts itself."""
    kept, seen = [], set()
    for line in lines:
        text = _STAMP.sub("", line)
        if _DUMP.match(text) or (text.startswith("RIP: ") and text in seen):
            continue
        seen.add(text)
        kept.append(line)
    return kept


def of_a_complaint(complaint: Complaint, kernel: KernelResult, most: int) -> list[str]:
    """What ``kernel`` said when it complained: its call trace too where the test's log has that."""
    for test in kernel.tests:
        if test.test == complaint.test and (told := story(test.kernel_log, complaint.text, most)):
            return told
    lines = without_dumps(printable(complaint.text).strip("\n").split("\n"))
    left_out = max(0, len(lines) - most)
    return [*lines[:most], *([f"... {counted(left_out, 'more line')}"] if left_out else [])]


def story(log: str, complaint: str, most: int) -> list[str]:
    """What ``log``, messages of the kernel, says of ``complaint``; nothing where it has not that.

    The first line is the complaint's, or what a WARN() says in front of it.
    """
    begins = complaint.partition("\n")[0][:100].strip()
    lines = last_lines(log, _UNLIMITED)[0]
    at = next((n for n, line in enumerate(lines) if begins and begins in line), None)
    if at is None:
        return []
    end = next((n for n, line in enumerate(lines) if n > at and "---[ end trace" in line), None)
    told = without_dumps(lines[_with_words(lines, at) : end])
    left_out = len(told) - most
    if left_out <= 0:
        return told
    return [*told[: most - 1], f"... {counted(left_out + 1, 'more line')}; the log has all"]
