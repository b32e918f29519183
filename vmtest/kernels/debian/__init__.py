"""Kernels from archives of Debian packages, by an isolated apt state."""
