"""``vmtest`` and ``python -m vmtest``."""

from __future__ import annotations

import atexit
import gc
import signal
import sys

_BUG = 70
_GIT_STOPS = 128


def main() -> None:
    """Run the command; also what breaks before it has begun never exits with 1."""
    try:
        # What is imported stays: to look for garbage in it takes a third of the start's time.
        gc.disable()
        from vmtest.cli.main import app
        from vmtest.cli.unread import UNREAD, arrived, give_up

        gc.freeze()
        gc.enable()
        try:
            app(prog_name="vmtest")
        except SystemExit as ended:
            # All is said: a second Ctrl-C while Python ends must not be how this process ended.
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
            # click and rich end what nobody reads with 1, which says that tests failed.
            if isinstance(ended.__context__, BrokenPipeError) or not arrived():
                give_up()
                sys.exit(UNREAD)
            raise
    except Exception:
        import traceback

        traceback.print_exc()
        print(
            "vmtest: a bug in vmtest, or a broken installation: please report it", file=sys.stderr
        )
        # To git, which runs `vmtest bisect step`, 70 would say that a commit is bad.
        sys.exit(_GIT_STOPS if sys.argv[1:3] == ["bisect", "step"] else _BUG)


if __name__ == "__main__":
    main()
