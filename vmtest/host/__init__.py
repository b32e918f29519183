"""The host: what it needs, its cache folder and locks, its mirrors, its processes."""
