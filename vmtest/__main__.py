"""``vmtest`` and ``python -m vmtest``."""

from __future__ import annotations

import sys

_BUG = 70
_GIT_STOPS = 128


def main() -> None:
    """Run the command; also what breaks before it has begun never exits with 1."""
    try:
        from vmtest.cli.main import app

        app(prog_name="vmtest")
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
