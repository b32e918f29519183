"""The matrix on a Dask cluster: an engine whose slots are on workers; imported only when asked."""
