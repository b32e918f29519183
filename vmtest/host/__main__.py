"""``python -m vmtest.host``: install what the host lacks (``--tests``: also for the tests)."""

import sys

from vmtest.host.requirements import main

if __name__ == "__main__":
    sys.exit(main())
