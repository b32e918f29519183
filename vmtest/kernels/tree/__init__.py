"""Kernels built from a git tree."""
