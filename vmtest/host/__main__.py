"""``python -m vmtest.host``: install what the host lacks (standard library only)."""

import sys

from vmtest.host.requirements import main

if __name__ == "__main__":
    sys.exit(main())
