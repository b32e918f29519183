"""The end of a console, without what every boot says."""

import pytest

from vmtest.report import console

ENDS = {
    "5.10": "[    4.150394] virtme-ng-init: /run previously mounted, skipping",
    "6.1": "[    3.812044] Freeing unused kernel image (initmem) memory: 2804K",
    "6.12": "[    4.241355] 9pnet: Limiting 'msize' to 512000 as this is the maximum supported",
    "7.3": "[    3.013118] evm: security.ima",
    "caller": "[    3.013118][    T1] evm: security.ima",
}
LAST = "[    9.000000] reboot: Restarting system"


@pytest.mark.parametrize("line", ENDS.values(), ids=ENDS)
def test_what_every_boot_says_is_left_out_and_counted(line: str) -> None:
    words = "console's last lines, without 1 line that every boot has"
    assert console.tail([line, LAST], 8) == console.Tail([LAST], 0, words)


@pytest.mark.parametrize(
    "line",
    [
        "[    3.2] VFS: Unable to mount root fs on unknown-block(0,0)",
        "[    3.2] virtme-ng-init: ERROR: failed to mount /run",
        "[    3.2] 9p: Could not find request transport: virtio",
        "[    3.2] ACPI Error: AE_NOT_FOUND",
        "[    3.2] 9pnet_virtio: no channels available for device root",
        "[    3.2] squashfs: SQUASHFS error: unable to read inode lookup table",
        "virtme-ng-init: running systemd-tmpfiles",
    ],
)
def test_what_only_some_boots_say_stays(line: str) -> None:
    assert console.tail([line, LAST], 8) == console.Tail([line, LAST], 0, "console's last lines")


def test_the_last_line_stays_whatever_it_is() -> None:
    assert console.tail([ENDS["5.10"]], 8).lines == [ENDS["5.10"]]


def test_lines_that_are_left_out_make_room_for_those_before() -> None:
    lines = ["Oops", *ENDS.values(), LAST]
    assert console.tail(lines, 2).lines == ["Oops", LAST]


def test_lines_before_the_last_are_counted() -> None:
    assert console.tail([f"line {n}" for n in range(10)], 4).left_out == 6
