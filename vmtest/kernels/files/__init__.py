"""Kernels from files: paths, .deb and .rpm packages, downloads."""
