"""Runs in a guest that is saved: waits, and makes a restored one differ from all others.

One line on standard input: seconds since the epoch, then a seed in hex.  The seed goes into the
kernel's random pool, the generator starts anew from it, and the clock is set.  Then the files that
the arguments name, by which it was asked, are removed.
"""

import fcntl
import os
import struct
import sys
import time

# From linux/random.h.
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207


def main(line: str, files: list[str]) -> None:
    """Do what ``line`` says and remove ``files``; raises OSError where the kernel refuses."""
    now, seed = line.split()
    data = bytes.fromhex(seed)
    pool = os.open("/dev/urandom", os.O_WRONLY)
    fcntl.ioctl(pool, RNDADDENTROPY, struct.pack("ii", len(data) * 8, len(data)) + data)
    fcntl.ioctl(pool, RNDRESEEDCRNG)
    time.clock_settime(time.CLOCK_REALTIME, float(now))
    for file in files:  # rm would be one more command that a restored guest has not translated
        os.unlink(file)  # noqa: PTH108  # pathlib is slow to import


if __name__ == "__main__":
    os.write(1, b"ready\n")
    main(sys.stdin.readline(), sys.argv[1:])
    os._exit(0)  # Python's own end takes longer than all of this on an emulated CPU
