"""``vmtest exec``: any one command in a guest, its output and its tests."""
