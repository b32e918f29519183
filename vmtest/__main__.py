"""``python -m vmtest``."""

from vmtest.cli.main import app

app(prog_name="vmtest")
