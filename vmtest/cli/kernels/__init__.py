"""``vmtest kernels``: list, fetch, available, outdated, lock, prune."""
