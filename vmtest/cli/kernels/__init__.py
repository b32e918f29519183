"""``vmtest kernels``: list, fetch, available, outdated, presets, add, lock, prune."""
