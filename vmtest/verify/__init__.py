"""``vmtest verify``: objects loaded in a guest, and what that says."""
