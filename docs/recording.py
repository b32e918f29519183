"""A session of ``vmtest watch``, recorded: what it says after each save, and how long that takes.

    python docs/recording.py [--kernel NAME ...] [--think SECONDS]

Edits a copy of the program of ``examples/c`` under a real watch and prints the block that
``docs/how-to/watch.md`` shows.  Kernels whose guests are not saved yet boot in the first round.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PROGRAM = "src/block.bpf.c"
BUILD = 'command = ["vmtest", "build"]'
WAITS = "waiting for a save"
SECTION = 'SEC("cgroup/connect4")'
BLOCK = "    __sync_fetch_and_add(times, 1);\n"
CALLBACK = """static long add(__u32 i, __u64 **times)
{
    if (*times)
        **times += i;
    return 0;
}

"""
LOOP = "    for (int i = 0; i < 8; i++)\n        add(i, &times);\n"
SAVES = (
    (
        "a call of bpf_loop()",
        ((SECTION, CALLBACK + SECTION), (BLOCK, "    bpf_loop(8, add, &times, 0)\n")),
    ),
    ("its semicolon", (("&times, 0)\n", "&times, 0);\n"),)),
    ("a loop of C instead", (("    bpf_loop(8, add, &times, 0);\n", LOOP),)),
)
"""What is saved, in words, and what it replaces in the program."""


def settings() -> str:
    """The kernels of this project, and the example's object and build."""
    text = (PROJECT / "kernels.toml").read_text().partition("[[suite]]")[0]
    made = text.replace(BUILD, 'command = ["make", "-s", "build/block.bpf.o"]')
    return f'{made}[[object]]\nname = "block"\npath = "build/block.bpf.o"\n'


def record(folder: Path, kernels: list[str], think: float) -> None:
    """Run the session in ``folder`` and print it; raises SystemExit where the watch ends early."""
    words = ["watch", "verify", *(word for name in kernels for word in ("--kernel", name))]
    # A shell that starts this program in the background has it ignored, and the watch would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, "-m", "vmtest", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "92"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as watch:
        print(f"$ vmtest {' '.join(words)}")
        until_it_waits(watch)
        for what, edits in SAVES:
            time.sleep(think)
            print(f"\n# saved: {what}")
            text = (folder / PROGRAM).read_text()
            for old, new in edits:
                assert old in text, old
                text = text.replace(old, new, 1)
            (folder / PROGRAM).write_text(text)
            until_it_waits(watch)
        watch.send_signal(signal.SIGINT)


def until_it_waits(watch: "subprocess.Popen[str]") -> None:
    """Print the lines of a round, each with the seconds since the round began."""
    began = time.monotonic()
    assert watch.stdout is not None
    for line in watch.stdout:
        print(f"{time.monotonic() - began:5.1f} s  {line.rstrip()}".rstrip(), flush=True)
        if WAITS in line:
            return
    sys.exit("the watch ended")


def main() -> None:
    """Record and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", action="append", help="default: 5.10 and 6.12")
    parser.add_argument("--think", type=float, default=20.0, help="seconds before a save")
    options = parser.parse_args()
    kernels = options.kernel or ["5.10", "6.12"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "block"
        shutil.copytree(PROJECT / "examples" / "c", folder)
        (folder / "kernels.toml").write_text(settings())
        record(folder, kernels, options.think)


if __name__ == "__main__":
    main()
