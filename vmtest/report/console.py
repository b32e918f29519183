"""The end of a guest's console without what every boot says.  Pure.

What every boot says was taken from the consoles of passing runs of Debian's kernels 5.10 to 7.3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vmtest.report.text import counted, last_lines

_UNLIMITED = 100_000
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

    The very last line stays, because it says how far a boot came.
    """
    every = last_lines("\n".join(lines), _UNLIMITED)[0]
    telling = [
        line
        for number, line in enumerate(every)
        if number == len(every) - 1 or not _EVERY_BOOT.match(line)
    ]
    usual = len(every) - len(telling)
    aside = f", without {counted(usual, 'line')} that every boot has" if usual else ""
    left_out = max(0, len(telling) - most)
    return Tail(telling[left_out:], left_out, f"console's last lines{aside}")
