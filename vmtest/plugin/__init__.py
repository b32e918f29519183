"""``pytest --vmtest-kernel 6.12``: a project's own pytest, with its tests run in guests."""
