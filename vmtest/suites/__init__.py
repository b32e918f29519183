"""``vmtest run``: suites of pytest in a guest."""
